"""The matrix product by its definition, in float64: c[m, n] = sum over k of a[m, k] b[k, n]; an empty sum is zero.

NaN and infinities follow IEEE arithmetic: they reach the rows and columns that they are in, and no others.
"""

from __future__ import annotations

import numpy as np


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[M, N] in float64 of a [M, K] and b [K, N]."""
    with np.errstate(all="ignore"):
        return np.asarray(a, np.float64) @ np.asarray(b, np.float64)
