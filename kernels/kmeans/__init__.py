"""k-means: points in k clusters, each around the mean of its points, by Lloyd's algorithm; l2 and spherical (cosine)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from analysis.cli import BadInput
from kernels import dispatch
from kernels.contract import Arrays, Cost, Memory, Operator, Problem, Signature, standard_normal
from kernels.distance import ORACLE
from kernels.distance.tolerance import spread
from kernels.kmeans import peers, reference
from kernels.kmeans.compare import compare

Metric = Literal["l2", "cosine"]
METRICS: tuple[Metric, ...] = ("l2", "cosine")
Data = Literal["normal", "blobs", "offset", "duplicates", "nan", "zeros", "outliers"]
LARGEST_K = 65536
TENSOR_CORES = 16
"""Columns from which tensor cores pay; where there are fewer, products are float32."""


@dataclass(frozen=True, kw_only=True)
class KMeans(Problem):
    """A fixed number of Lloyd iterations from given centroids: n points in d dimensions, k clusters.

    `data`: "normal" is N(0, 1); "blobs" are k clusters of spread 1 far from each other; "offset" lies around 10,000 with
    spread 1; "duplicates" repeats a quarter of the points; "nan" has NaN, infinity or 3e19 in some points; in "zeros" some are zero;
    in "outliers" some are a million times as large.
    The centroids are points drawn at random, of "blobs" one a cluster.
    """

    metric: Metric = "l2"
    n: int
    d: int
    k: int
    iterations: int = 1
    data: Data = "normal"
    dtype: Literal["float32"] = "float32"

    def __post_init__(self) -> None:
        for name in ("n", "d", "k", "iterations"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name}: {getattr(self, name)} is less than 1")
        if self.k > min(self.n, LARGEST_K):
            raise BadInput(f"k: {self.k} clusters of n = {self.n} points; at most {min(self.n, LARGEST_K)}")
        if self.n >= 1 << 31:
            raise BadInput(f"n: {self.n} is more than 2^31 - 1 points")


class Clustering(NamedTuple):
    """What `kmeans` gives.

    labels:     cluster of each point, int32 [N], where the points are; -1 for a point that is not finite
    centroids:  float32 [K, D], where the points are; for cosine of length 1
    inertia:    sum of the squared distances (l2) or of the distances (cosine) of the points to their centroids
    iterations: how often the centroids were moved
    """

    labels: Any
    centroids: Any
    inertia: float
    iterations: int


def shapes(problem: KMeans) -> dict[str, tuple[tuple[int, ...], str]]:
    return {"points": ((problem.n, problem.d), problem.dtype), "centroids": ((problem.k, problem.d), problem.dtype)}


def inputs(problem: KMeans, rng: np.random.Generator) -> Arrays:
    n, k = problem.n, problem.k
    points = standard_normal({"points": ((n, problem.d), problem.dtype)}, rng)["points"]
    first = rng.permutation(n)[:k] if n <= 1 << 20 else rng.choice(n, k, replace=False)
    if problem.data == "blobs":
        blob = np.arange(n) % k
        points[:, 0] += 30 * blob.astype(np.float32)
        first = np.arange(k)
    elif problem.data == "offset":
        points += np.float32(1e4)
    elif problem.data == "duplicates":
        points = points[rng.integers(0, 1 + n // 4, n)]
    elif problem.data == "zeros":
        points[::3] = 0
    elif problem.data == "outliers":
        points[1::50] *= np.float32(1e6)
        first[: k // 8] = (1 + 50 * np.arange(k // 8)) % n
    centroids = points[first]
    if problem.data == "nan":
        points[::3, 0], points[1::7, -1], points[2::25] = np.nan, -np.inf, 3e19
    return {"points": points, "centroids": centroids}


def oracle(problem: KMeans, inputs: Arrays) -> Arrays:
    """The last iteration, with the centroids before it and the distances to the nearest of those; of the "rows" if they are named."""
    points = inputs["points"]
    if "rows" in inputs:  # of one iteration, and labels alone: the rest follows from the labels that are found
        before = np.asarray(inputs["centroids"], np.float64)
        labels, distances = reference.assign(points[inputs["rows"]], before, problem.metric)
        return {"labels": labels, "before": before if problem.metric == "l2" else reference.unit(before), "distances": distances}
    found = reference.lloyd(points, inputs["centroids"], problem.metric, problem.iterations)
    return {**found._asdict(), "distances": reference.assign(points, found.before, problem.metric)[1]}


def part(problem: KMeans, inputs: Arrays, outputs: Arrays) -> tuple[KMeans, Arrays, Arrays]:
    """The same with "rows": points, evenly spread, whose labels the oracle checks in a second or so. All else is checked whole.

    What takes several iterations is checked whole, labels too.
    """
    if problem.iterations > 1:
        return problem, inputs, outputs
    return problem, inputs | {"rows": spread(problem.n, max(1, ORACLE // (problem.k * problem.d)))}, outputs


def cost(problem: KMeans) -> Cost:
    """Each iteration reads the points once and multiplies each with each centroid (2 operations an element); labels are written once.

    The products need no more than half precision where its error is bounded and what it leaves open is computed again; with
    fewer than TENSOR_CORES columns they count as float32. The update, n d additions, is not counted.
    """
    n, d, k = problem.n, problem.d, problem.k
    rate = "bf16" if d >= TENSOR_CORES else "fp32"
    return Cost(problem.iterations * (4 * n * d + 8 * k * d) + 4 * n, problem.iterations * 2 * n * k * d, rate)


def memory(problem: KMeans) -> Memory:
    """Host: inputs, outputs and the oracle's copies. Device: inputs, outputs, and scratch by points and pieces of them."""
    n, d, k = problem.n, problem.d, problem.k
    once = 4 * (n * d + 2 * k * d + n)
    scratch = 64 * n + 4 * (n // 256 + k) * d + 16 * k * d + (1 << 30)  # the torch backend's chunk, or the rooms of Triton's programs
    return Memory(host=2 * once + 32 * k * d + 40 * n + (256 << 20), device=once + scratch)


def _native(function: Any, problem: KMeans, inputs: Arrays) -> Arrays:
    """`function(points, centroids, metric, iterations) -> (labels, centroids, inertia)`; counts are taken from its labels."""
    labels, centroids, inertia = function(inputs["points"], inputs["centroids"], problem.metric, problem.iterations)
    labels = np.asarray(labels)
    counts = np.bincount(labels[labels >= 0], minlength=problem.k)
    return {"labels": labels, "centroids": np.asarray(centroids), "counts": counts, "inertia": np.asarray(inertia)}


_SHAPES: dict[Metric, tuple[tuple[int, int, int], ...]] = {
    "l2": ((1, 1, 1), (40, 2, 5), (131, 3, 40), (257, 17, 1), (90, 130, 70), (64, 64, 64), (270, 5, 2)),
    "cosine": ((1, 1, 1), (131, 3, 40), (199, 37, 7), (90, 130, 70)),
}
_HARD: tuple[Data, ...] = ("offset", "duplicates", "nan", "zeros", "outliers")
_WIDE: tuple[tuple[Metric, Data], ...] = (("l2", "offset"), ("l2", "outliers"), ("cosine", "nan"))
OPERATOR = Operator(
    name="kmeans",
    summary="k-means by Lloyd's algorithm: points to their nearest centroids, centroids to the means of their points",
    problem=KMeans,
    shapes=shapes,
    inputs=inputs,
    oracle=oracle,
    compare=compare,
    cost=cost,
    memory=memory,
    awkward=[
        *(KMeans(metric=metric, n=n, d=d, k=k) for metric in METRICS for n, d, k in _SHAPES[metric]),
        *(KMeans(metric=metric, n=120, d=19, k=28, data=data) for metric in METRICS for data in _HARD),
        *(KMeans(metric=metric, n=70, d=130, k=9, data=data) for metric, data in _WIDE),
        *(KMeans(n=140, d=d, k=5, iterations=2, data="blobs") for d in (3, 20)),
    ],
    signatures=[Signature(("points", "centroids", "metric", "iterations"), _native)],
    peers=peers.PEERS,
    part=part,
)


def kmeans(points: Any, k: int, metric: str = "l2", *, init: Any = "k-means++", max_iterations: int = 100, tolerance: float = 1e-4,
           seed: int = 0, block: dict[str, int] | None = None) -> Clustering:  # fmt: skip
    """`points` in `k` clusters: (labels, centroids, inertia, iterations), see `Clustering`.

    `points` [N, D] is a float32 array of NumPy, torch or CuPy, and labels and centroids lie where it lies; k is at most N and
    65,536. Metrics: "l2", and "cosine" for spherical k-means, where points and centroids count by their directions alone. Labels are exact
    up to ties within float32 rounding; of equals the smaller number is taken, so that the zero vector, which is at cosine
    distance 1 from all, has label 0.

    `init` is "k-means++", "random" (rows drawn without repetition), or the first centroids [K, D]; see `kernels.kmeans.seeding`.
    Iterations end when the sum of the squared shifts of the centroids is at most `tolerance` times the mean variance of the
    columns (scikit-learn's rule; the variance is of a sample where points are many; of cosine's unit vectors), or after
    `max_iterations`. Each iteration waits once for the device to ask that. Labels and inertia are of the centroids that are
    returned, which takes one assignment more unless the centroids stood still. A cluster without points moves to the point that is
    farthest from its centroid, several to the farthest ones in order, ties by the smaller id; a point that lies on its
    centroid but for rounding is not taken, and the cluster stays where it is.

    A point with NaN, infinity or a square beyond float32 has label -1 and counts nowhere. The same seed gives the same result, bit
    for bit, on the same device with the same versions.

    Raises BadInput, a ValueError, for another dtype or shape, or more clusters than (finite) points.
    """
    from kernels.kmeans.lloyd import Options, cluster

    dispatch.check_dtype("points", points)
    if points.ndim != 2 or 0 in points.shape:
        raise BadInput(f"points: shape {list(points.shape)}; give rows [N, D] with N and D of at least 1")
    if metric not in METRICS:
        raise BadInput(f"metric: {metric!r} is not one of {', '.join(METRICS)}")
    if not isinstance(k, int | np.integer) or not 1 <= k <= LARGEST_K:
        raise BadInput(f"k: {k!r} is not a whole number from 1 to {LARGEST_K}")
    if k > len(points):
        raise BadInput(f"k: {k} clusters of N = {len(points)} points; give at most as many clusters as points")
    options = Options(init, max_iterations, tolerance, seed)
    return cluster(dispatch.rows(points), KMeans(metric=metric, n=len(points), d=points.shape[1], k=int(k)), options, block)


def our_kmeans(N: int, D: int, A: Any, K: int) -> Any:
    """The course's signature: labels [N] of the rows of A [N, D] in K clusters by l2, from random rows until no centroid moves.

    At most 100 iterations; see `kmeans`. A NumPy array of another dtype than float32, such as float64 out of a text file, is converted.
    """
    if isinstance(A, np.ndarray):
        A = A.astype(np.float32, copy=False)
    if tuple(A.shape) != (N, D):
        raise BadInput(f"A: shape {list(A.shape)}, but N = {N} and D = {D}")
    return kmeans(A, K, init="random", tolerance=0.0).labels
