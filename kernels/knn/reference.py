"""Exact nearest neighbours by their definition, in float64: the specification that every backend is compared with.

The k nearest rows of the collection to each query, nearest first; for dot that is the largest product first. Rows at equal
distance come by id, the smaller first. A distance that is NaN counts as infinitely far (+inf; -inf for dot). Where the
collection has fewer than k rows the rest is padded with id -1 at the same infinite distance.
"""

from __future__ import annotations

import numpy as np

from kernels.distance.reference import distances

ROWS = 65536
"""Rows of the collection that are widened to float64 at a time."""


def knn(queries: np.ndarray, collection: np.ndarray, k: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Distances [Q, k] in float64 and ids [Q, k] of the k nearest rows of `collection` [N, D] to each of `queries` [Q, D]."""
    far = -np.inf if metric == "dot" else np.inf
    nearest = np.full((len(queries), k), far)
    ids = np.full((len(queries), k), -1, np.int64)
    for query, best, best_ids in zip(queries, nearest, ids, strict=True):
        chunks = [distances(query[None], collection[start : start + ROWS], metric)[0] for start in range(0, len(collection), ROWS)]
        found = np.concatenate(chunks) if chunks else np.empty(0)
        found[np.isnan(found)] = far
        order = np.argsort(-found if metric == "dot" else found, kind="stable")[:k]
        best[: len(order)], best_ids[: len(order)] = found[order], order
    return nearest, ids
