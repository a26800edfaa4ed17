"""softmax(x)_j = exp(x_j) / sum_i exp(x_i) of each row, in float64; the row's maximum is taken off first, which changes nothing."""

from __future__ import annotations

import numpy as np


def softmax(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, np.float64)
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
