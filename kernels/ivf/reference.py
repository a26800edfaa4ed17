"""Search of an inverted file by its definition, in float64: the specification that every backend is compared with.

A collection is kept in lists: `rows` [N, D] lie list after list, those of list l from offsets[l] to offsets[l + 1], and row i has the
id ids[i]. Each list has a centroid. A query probes the lists of the nprobe nearest centroids (for dot: of the largest products), of
equally near ones those of smaller number, and finds the k nearest of all rows in them, nearest first; rows at equal distance come
by id, the smaller first. A distance that is NaN counts as infinitely far (+inf; -inf for dot), for lists as for rows. Where
the probed lists hold fewer than k rows the rest is padded with id -1 at that distance.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from kernels.distance.reference import distances


def keys(query: np.ndarray, rows: np.ndarray, metric: str) -> np.ndarray:
    """What the rows [N, D] are ranked by, smallest first: the distances to `query` [D], or the negative products; inf for NaN."""
    found = distances(query[None], rows, metric)[0]
    return np.nan_to_num(-found if metric == "dot" else found, nan=np.inf, posinf=np.inf, neginf=-np.inf)


def probes(query: np.ndarray, centroids: np.ndarray, nprobe: int, metric: str) -> np.ndarray:
    """The lists that `query` probes, the nearest first."""
    return np.argsort(keys(query, centroids, metric), kind="stable")[:nprobe]


def positions(offsets: np.ndarray, lists: Iterable[int]) -> np.ndarray:
    """Where the rows of `lists` lie."""
    return np.concatenate([np.empty(0, np.int64), *(np.arange(offsets[each], offsets[each + 1]) for each in lists)])


def nearest(query: np.ndarray, rows: np.ndarray, ids: np.ndarray, k: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Distances and ids [k] of the nearest of `rows`, padded."""
    found, best, best_ids = keys(query, rows, metric), np.full(k, np.inf), np.full(k, -1, np.int64)
    order = np.lexsort((ids, found))[:k]
    best[: len(order)], best_ids[: len(order)] = found[order], ids[order]
    return -best if metric == "dot" else best, best_ids


def search(queries: np.ndarray, centroids: np.ndarray, rows: np.ndarray, ids: np.ndarray, offsets: np.ndarray, k: int, nprobe: int,
           metric: str) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Distances [Q, k] in float64 and ids [Q, k] of what each of `queries` [Q, D] finds."""
    best, best_ids = np.empty((len(queries), k)), np.empty((len(queries), k), np.int64)
    for number, query in enumerate(queries):
        at = positions(offsets, probes(query, centroids, nprobe, metric))
        best[number], best_ids[number] = nearest(query, rows[at], ids[at], k, metric)
    return best, best_ids
