"""Lloyd's algorithm by its definition, in float64: the specification that every backend is compared with.

One iteration labels each point with the centroid nearest to it, of equals the one of the smaller number, and moves each
centroid to the mean of its points. A centroid without points stays where it is.

l2      distance sqrt(sum (x - c)^2); the inertia sums its squares
cosine  distance 1 - x·c / (|x| |c|), 1 where either is the zero vector; points count as x / |x| (the zero vector as itself), and
        centroids are scaled to length 1, or are zero where the mean is (spherical k-means); the inertia sums the distances

A point with a value that is not finite, or whose square float32 cannot hold, belongs to no cluster: label -1, no part in any
mean or in the inertia.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernels.distance.reference import METRICS
from kernels.distance.tolerance import LARGEST


class Iteration(NamedTuple):
    """Labels [N], the centroids [K, D] that they are of, centroids after the update, points of each cluster [K], inertia."""

    labels: np.ndarray
    before: np.ndarray
    centroids: np.ndarray
    counts: np.ndarray
    inertia: float


def usable(points: np.ndarray) -> np.ndarray:
    """Which points [N] belong to a cluster at all."""
    with np.errstate(over="ignore"):
        return np.einsum("nd,nd->n", points, points, dtype=np.float64) <= LARGEST


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1; zero rows stay."""
    norms = np.sqrt(np.sum(rows * rows, axis=1, keepdims=True))
    return rows / np.where(norms == 0, 1.0, norms)


def assign(points: np.ndarray, centroids: np.ndarray, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels [N] and distances [N] of points to the nearest of `centroids`; -1 and 0 for a point that is not usable."""
    labels, distances = np.full(len(points), -1, np.int64), np.zeros(len(points))
    for row in np.flatnonzero(usable(points)):
        found = METRICS[metric](points[row].astype(np.float64), centroids)
        labels[row] = found.argmin()
        distances[row] = found[labels[row]]
    return labels, distances


def update(points: np.ndarray, labels: np.ndarray, centroids: np.ndarray, metric: str) -> np.ndarray:
    """Centroids [K, D] after the move to the means of their points."""
    moved = centroids.copy()
    for label in np.unique(labels[labels >= 0]):
        members = points[labels == label].astype(np.float64)
        moved[label] = members.mean(axis=0) if metric == "l2" else unit(unit(members).mean(axis=0, keepdims=True))[0]
    return moved


def lloyd(points: np.ndarray, centroids: np.ndarray, metric: str, iterations: int) -> Iteration:
    """The last of `iterations` iterations from `centroids` [K, D] over `points` [N, D]."""
    after = np.asarray(centroids, np.float64)
    after = after if metric == "l2" else unit(after)
    for _ in range(iterations):
        before = after
        labels, distances = assign(points, before, metric)
        after = update(points, labels, before, metric)
    inertia = float(np.sum(distances**2 if metric == "l2" else distances))
    return Iteration(labels, before, after, np.bincount(labels[labels >= 0], minlength=len(before)), inertia)
