"""float32 on the CPU: BLAS products for a first guess, direct differences where that leaves more than one centroid.

A key is |c|² / 2 - x·c around the mean of the centroids, which orders centroids as the distance does. Its rounding is bounded;
centroids whose keys are within that bound of the least are compared in float64 by their definition.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csc_array

from kernels.contract import Arrays, Block
from kernels.distance.tolerance import EPSILON
from kernels.kmeans import KMeans
from kernels.kmeans.lloyd import iterate
from kernels.kmeans.space import NUMPY as SPACE

ARRAYS = "numpy"
DEVICES = ("cpu",)
PAIRS = 1 << 22
"""Values of pairs of a point and a centroid that are compared in float64 at once."""

__all__ = ["ARRAYS", "DEVICES", "SPACE", "prepare", "run", "step"]


@dataclass(frozen=True)
class Points:
    """Points [N, D], scaled to length 1 for cosine and zero where not usable; which are usable [N]."""

    values: np.ndarray
    usable: np.ndarray


def run(problem: KMeans, inputs: Arrays, block: Block) -> Arrays:
    """Labels [n] and inertia of the last iteration, centroids [k, d] after it, and how many points each has [k]."""
    return iterate(problem, inputs, block, prepare, step)


def prepare(problem: KMeans, points: np.ndarray, block: Block) -> Points:
    """What all iterations share."""
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("nd,nd->n", points, points)
    usable = np.isfinite(squares)
    if not usable.all():
        points = np.where(usable[:, None], points, np.float32(0))
    return Points(points if problem.metric == "l2" else _unit(points), usable)


def step(problem: KMeans, points: Points, centroids: np.ndarray, block: Block) -> Arrays:
    """One iteration."""
    if problem.metric == "cosine":
        centroids = _unit(centroids)
    labels = np.empty(problem.n, np.int32)
    sums, inertia = np.zeros((problem.k, problem.d)), 0.0
    centre = centroids.mean(axis=0) if problem.metric == "l2" else np.zeros(problem.d, np.float32)
    for start in range(0, problem.n, block["ROWS"]):
        chunk = slice(start, start + block["ROWS"])
        usable, values = points.usable[chunk], points.values[chunk]
        own = _nearest(problem.metric, values, centroids, centre)
        labels[chunk] = np.where(usable, own, -1)
        inertia += float(_distances(problem.metric, values, centroids[own])[usable].sum())
        real = np.flatnonzero(usable)
        member = csc_array((np.ones(len(real)), own[real], np.arange(len(real) + 1)), shape=(problem.k, len(real)))
        sums += member @ values[real]
    counts = np.bincount(labels[points.usable], minlength=problem.k)
    means = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
    means = np.where(counts[:, None] > 0, means, centroids)
    moved = means if problem.metric == "l2" else _unit(means)
    return {"labels": labels, "centroids": moved, "counts": counts.astype(np.int32), "inertia": np.asarray(inertia)}


def _unit(rows: np.ndarray) -> np.ndarray:
    norms = np.sqrt(np.einsum("nd,nd->n", rows, rows))[:, None]
    return rows / np.where(norms == 0, np.float32(1), norms)


def _distances(metric: str, points: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Squared distances (l2) or distances (cosine) in float64 of rows of points to the same rows of centroids."""
    points = points.astype(np.float64)
    if metric == "cosine":
        return 1.0 - np.einsum("nd,nd->n", points, centroids)
    points -= centroids
    return np.einsum("nd,nd->n", points, points)


def _nearest(metric: str, points: np.ndarray, centroids: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """The nearest centroid of each point, of equals the first."""
    x, c = points - centre, centroids - centre
    squares = np.einsum("kd,kd->k", c, c)
    keys = x @ c.T
    np.subtract(squares / 2 if metric == "l2" else np.float32(0), keys, out=keys)
    largest = np.sqrt(squares.max())
    rounding = EPSILON * (8 + np.sqrt(points.shape[1])) * largest * (np.sqrt(np.einsum("nd,nd->n", x, x)) + largest)
    close = keys <= (keys.min(axis=1) + 2 * rounding)[:, None]
    nearest = close.argmax(axis=1)
    several = np.flatnonzero(np.count_nonzero(close, axis=1) > 1)
    for some in np.array_split(several, -(-len(several) * close.shape[1] * points.shape[1] // PAIRS) or 1):
        rows, candidates = np.nonzero(close[some])
        distances = np.full((len(some), close.shape[1]), np.inf)
        distances[rows, candidates] = _distances(metric, points[some[rows]], centroids[candidates])
        nearest[some] = distances.argmin(axis=1)
    return nearest
