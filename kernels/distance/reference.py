"""The four distances by their definitions, in float64: the specification that every backend is compared with.

cosine  1 - x·y / (|x| |y|);  1 where x or y is the zero vector (no direction, so none in common)
l2      sqrt(sum (x - y)^2)
dot     x·y  (a similarity: the largest is the nearest)
l1      sum |x - y|  (Manhattan)

NaN in a vector makes its distances NaN; infinities follow IEEE arithmetic.
"""

from __future__ import annotations

import numpy as np


def cosine(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    norms = np.sqrt(np.sum(x * x)) * np.sqrt(np.sum(y * y, axis=1))
    zero = norms == 0
    return np.where(zero, 1.0, 1.0 - (y @ x) / np.where(zero, 1.0, norms))


def l2(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sqrt(np.sum((x - y) ** 2, axis=1))


def dot(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return y @ x


def l1(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sum(np.abs(x - y), axis=1)


METRICS = {"cosine": cosine, "l2": l2, "dot": dot, "l1": l1}


def distances(x: np.ndarray, y: np.ndarray, metric: str) -> np.ndarray:
    """Distances [Q, N] in float64 between each row of x [Q, D] and each row of y [N, D]."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    result = np.empty((len(x), len(y)))
    with np.errstate(all="ignore"):
        for query, row in zip(x, result, strict=True):
            row[:] = METRICS[metric](query, y)
    return result
