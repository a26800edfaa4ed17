"""Top-k by its definition, in float64: the specification that every backend is compared with.

The k best elements of each row, best first: the smallest, or the largest. Equal elements come by id, which is their column,
the smaller first; -0.0 equals 0.0. NaN comes after all numbers and infinities in both directions. Where a row has fewer
than k elements the rest is padded with id -1 and the worst infinity.
"""

from __future__ import annotations

import numpy as np


def topk(values: np.ndarray, k: int, largest: bool) -> tuple[np.ndarray, np.ndarray]:
    """The k best of each row of `values` [R, M] in float64, and their ids, both [R, k]."""
    best = np.full((len(values), k), -np.inf if largest else np.inf)
    ids = np.full((len(values), k), -1, np.int64)
    for row, row_best, row_ids in zip(values, best, ids, strict=True):
        wide = row.astype(np.float64)
        order = np.argsort(-wide if largest else wide, kind="stable")[:k]  # NumPy sorts NaN last
        row_best[: len(order)], row_ids[: len(order)] = wide[order], order
    return best, ids
