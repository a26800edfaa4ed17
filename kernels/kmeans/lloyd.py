"""Lloyd's iterations: a fixed number of them, as backends are compared, and until the centroids stand still, as users want them.

A backend's module has `prepare(problem, points, block)`, for what all iterations share, and `step(problem, prepared, centroids,
block)`, one iteration with the outputs of `run`. A step never waits for the device; `cluster` waits once after each.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.cli import BadInput
from kernels import dispatch
from kernels.contract import Arrays, Block
from kernels.kmeans import Clustering, KMeans
from kernels.kmeans.seeding import Start, start


@dataclass(frozen=True)
class Options:
    """How `cluster` begins and ends; see `kernels.kmeans.kmeans`. Raises BadInput for a limit, tolerance or seed that is none."""

    init: Any
    max_iterations: int
    tolerance: float
    seed: int

    def __post_init__(self) -> None:
        for name, least in (("max_iterations", 1), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or value < least:
                raise BadInput(f"{name}: {value!r} is not a whole number of at least {least}")
        if not isinstance(self.tolerance, int | float | np.floating) or not 0 <= self.tolerance < math.inf:
            raise BadInput(f"tolerance: {self.tolerance!r} is not a number of at least 0")


def iterate(problem: KMeans, inputs: Arrays, block: Block, prepare: Callable[..., Any], step: Callable[..., Arrays]) -> Arrays:
    """The outputs of the last of `problem.iterations` iterations from `inputs["centroids"]`."""
    prepared = prepare(problem, inputs["points"], block)
    outputs = {"centroids": inputs["centroids"]}
    for _ in range(problem.iterations):
        outputs = step(problem, prepared, outputs["centroids"], block)
    return outputs


def cluster(points: Any, problem: KMeans, options: Options, block: Block | None) -> Clustering:
    """Clusters of `points` [N, D], contiguous and checked, in `problem.k` clusters; `problem.iterations` is not looked at."""
    library = importlib.import_module(f"kernels.kmeans.on_{dispatch.library('points', points)}")
    _, backend, block = dispatch.chosen("kmeans", problem, points, block)
    begin = start(library, problem, points, options.init, int(options.seed))
    prepared, centroids, iterations, shift = backend.prepare(problem, points, block), begin.centroids, 0, math.inf
    while iterations < options.max_iterations and shift > options.tolerance * begin.variance:
        found = backend.step(problem, prepared, centroids, block)
        before, centroids = centroids, _reseeded(library, problem, points, found, begin)
        shift, iterations = library.shift(before, centroids), iterations + 1
    if shift > 0:
        found = backend.step(problem, prepared, centroids, block)
    return Clustering(found["labels"], centroids, float(found["inertia"]), iterations)


def _reseeded(library: Any, problem: KMeans, points: Any, found: Arrays, begin: Start) -> Any:
    """The centroids, where the ones of clusters without points are the points farthest from their centroids after the move.

    Farthest first in the order of the clusters, of equals the smaller id; none that lies on its centroid but for rounding.
    """
    empty = np.flatnonzero(library.host(found["counts"]) == 0)
    if not len(empty):
        return found["centroids"]
    distances = library.distances(problem.metric, points, found["centroids"], found["labels"])
    farthest = np.argsort(-distances, kind="stable")[: min(len(empty), np.count_nonzero(distances > begin.rounding))]
    if not len(farthest):
        return found["centroids"]
    rows = library.take(points, farthest)
    return library.replaced(found["centroids"], empty[: len(farthest)], rows if problem.metric == "l2" else library.unit(rows))
