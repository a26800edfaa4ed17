"""The first centroids: given, random points, or k-means++.

"random" draws k of the (finite) points without repetition. "k-means++" (Arthur and Vassilvitskii, SODA 2007) draws each point with a
probability proportional to its squared distance to the nearest of those drawn before; two things keep it from costing more than the
iterations that follow. It draws from a random sample of the points, SAMPLE of them or SHARE a cluster, whichever is more.
And it takes no more than ROUNDS rounds: with more than that many clusters several points are drawn in a round, by the same
distances and without repetition, so that two of them may fall into one cluster. The work is that of one assignment of the sample.

What depends on the array library is in `on_numpy`, `on_torch` and `on_cupy`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from analysis.cli import BadInput
from kernels import dispatch
from kernels.distance.tolerance import EPSILON
from kernels.kmeans import KMeans

SAMPLE, SHARE = 1 << 16, 64
ROUNDS = 256
SMALL = 1e-30
"""Weight of a point that lies on a drawn one: it is drawn only where all others do too."""
VARIANCE = 1 << 22
"""Values of which the variance is taken at most."""


class Start(NamedTuple):
    """The first centroids [K, D] where the points are; the mean variance of the points' columns (of unit vectors for cosine); and up to
    which squared distance (l2) or distance (cosine) a point may be said to lie on its centroid, by rounding."""

    centroids: Any
    variance: float
    rounding: float


def start(library: Any, problem: KMeans, points: Any, init: Any, seed: int) -> Start:
    """How `kernels.kmeans.lloyd.cluster` begins.

    Raises BadInput for an init that is none of those above, and where fewer points than clusters are finite.
    """
    rng = np.random.default_rng(seed)
    squares = library.squares(points)
    finite = np.flatnonzero(np.isfinite(squares))
    if problem.k > len(finite):
        raise BadInput(
            f"k: {problem.k} clusters of N = {problem.n} points, {len(finite)} of them finite; give at most as many as are finite"
        )
    rounding = 8 * EPSILON if problem.metric == "cosine" else (8 * EPSILON) ** 2 * float(squares[finite].max())

    def drawn(count: int) -> Any:
        return library.take(points, finite if count >= len(finite) else np.sort(finite[rng.choice(len(finite), count, replace=False)]))

    some = library.host(drawn(max(1, VARIANCE // problem.d))).astype(np.float64)
    if problem.metric == "cosine":
        some /= np.maximum(np.linalg.norm(some, axis=1, keepdims=True), 1e-300)
    variance = float(some.var(axis=0).mean())
    if not isinstance(init, str):
        return Start(_given(library, problem, points, init), variance, rounding)
    if init == "random":
        return Start(library.take(points, finite[rng.choice(len(finite), problem.k, replace=False)]), variance, rounding)
    if init == "k-means++":
        sample = drawn(max(SAMPLE, SHARE * problem.k))
        sample = sample if problem.metric == "l2" else library.unit(sample)
        return Start(library.plus_plus(sample, problem.k, seed), variance, rounding)
    raise BadInput(f'init: {init!r} is not "k-means++", "random" or an array of centroids')


def rounds(k: int) -> list[int]:
    """How many points each round draws: one in the first."""
    together = -(-k // ROUNDS)
    return [1] + [min(together, k - start) for start in range(1, k, together)]


def _given(library: Any, problem: KMeans, points: Any, init: Any) -> Any:
    dispatch.check_dtype("init", init)
    dispatch.check_together("init", init, "points", points)
    if tuple(init.shape) != (problem.k, problem.d):
        raise BadInput(f"init: shape {list(init.shape)}; give k = {problem.k} centroids of D = {problem.d} columns")
    init = dispatch.rows(init)
    if not np.isfinite(library.squares(init)).all():
        raise BadInput("init: a centroid is not finite; give finite ones, with squares that float32 can hold")
    return init
