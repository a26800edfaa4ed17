"""Distances between vectors: a pair, one query and a collection, or queries and a collection, by the shapes given."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from analysis.cli import BadInput
from kernels import dispatch, metrics
from kernels.contract import Arrays, Cost, Memory, Operator, Peer, Problem, Signature, Verdict, standard_normal
from kernels.distance import reference
from kernels.distance.tolerance import allowed, deviation, row_norms, spread

OPERATIONS = {"l2": 3, "l1": 2, "dot": 2, "cosine": 2}
"""Operations an element and pair: l2 subtracts and multiply-adds (2), l1 subtracts and adds (|.| is free), dot multiply-adds."""

ORACLE = 1 << 26
"""Differences that the float64 oracle is asked for at most when a large problem is checked."""


@dataclass(frozen=True, kw_only=True)
class Distance(Problem):
    """All distances between q rows and n rows of d dimensions; `data` "offset" puts them around 10,000 with spread 1."""

    metric: metrics.Metric = "l2"
    q: int = 1
    n: int = 1
    d: int
    data: Literal["normal", "offset"] = "normal"
    dtype: Literal["float32"] = "float32"

    def __post_init__(self) -> None:
        for name, least in (("q", 0), ("n", 0), ("d", 1)):
            if getattr(self, name) < least:
                raise BadInput(f"{name}: {getattr(self, name)} is less than {least}")


def shapes(problem: Distance) -> dict[str, tuple[tuple[int, ...], str]]:
    return {"x": ((problem.q, problem.d), problem.dtype), "y": ((problem.n, problem.d), problem.dtype)}


def inputs(problem: Distance, rng: np.random.Generator) -> Arrays:
    arrays = standard_normal(shapes(problem), rng)
    return {name: array + np.float32(1e4) for name, array in arrays.items()} if problem.data == "offset" else arrays


def oracle(problem: Distance, inputs: Arrays) -> Arrays:
    return {"distances": reference.distances(inputs["x"], inputs["y"], problem.metric)}


def compare(problem: Distance, inputs: Arrays, outputs: Arrays, expected: Arrays) -> Verdict:
    """Every distance against the oracle's, within the rounding of float32 (see `kernels.distance.tolerance`)."""
    found, true = np.asarray(outputs["distances"]), expected["distances"]
    if found.shape != true.shape:
        return Verdict(False, np.inf, f"distances have shape {list(found.shape)}, not {list(true.shape)}")
    norms = np.outer(row_norms(inputs["x"]), row_norms(inputs["y"])) if problem.metric == "dot" else 1.0
    units = deviation(found, true, allowed(problem.metric, problem.d, true, norms))
    if not units.size or (worst := float(units.max())) == 0:
        return Verdict(True, 0.0)
    at = np.unravel_index(units.argmax(), units.shape)
    where = f"distances{[int(i) for i in at]} is {found[at]:.9g}, the oracle says {true[at]:.9g}"
    return Verdict(worst <= 1, worst, "" if worst <= 1 else where)


def part(problem: Distance, inputs: Arrays, outputs: Arrays) -> tuple[Distance, Arrays, Arrays]:
    """Rows of x and of y, evenly spread, as many as the oracle does in a second or so."""
    rows_x = spread(problem.q, max(1, ORACLE // (min(problem.n, 1024) * problem.d + 1)))
    rows_y = spread(problem.n, max(1, ORACLE // (len(rows_x) * problem.d + 1)))
    found = {"distances": outputs["distances"][np.ix_(rows_x, rows_y)]}
    return replace(problem, q=len(rows_x), n=len(rows_y)), {"x": inputs["x"][rows_x], "y": inputs["y"][rows_y]}, found


def cost(problem: Distance) -> Cost:
    """Inputs read once and distances written once; a fused multiply-add counts as 2 operations; cosine adds its norms."""
    q, n, d = problem.q, problem.n, problem.d
    norms = 2 * (q + n) * d if problem.metric == "cosine" else 0
    return Cost(4 * ((q + n) * d + q * n), OPERATIONS[problem.metric] * q * n * d + norms, "fp32")


def memory(problem: Distance) -> Memory:
    """Host: inputs, outputs and the oracle's float64 copies of all. Device: inputs, outputs, and torch's blockwise scratch."""
    q, n, d = problem.q, problem.n, problem.d
    once = 4 * ((q + n) * d + q * n)
    return Memory(host=6 * once, device=2 * once)


def _called(function: Any, problem: Distance, inputs: Arrays) -> Arrays:
    """`function(X, Y)` with vectors where there is one row and matrices elsewhere, as the course's functions take them."""
    x, y = (array[0] if len(array) == 1 else array for array in (inputs["x"], inputs["y"]))
    return {"distances": np.asarray(function(x, y)).reshape(problem.q, problem.n)}


def _scipy(problem: Distance, inputs: Arrays) -> Arrays:
    from scipy.spatial.distance import cdist

    x, y = (array.numpy() for array in (inputs["x"], inputs["y"]))
    if problem.metric == "dot":
        raise BadInput("peer scipy cdist: has no dot")
    return {"distances": cdist(x, y, {"l2": "euclidean", "l1": "cityblock", "cosine": "cosine"}[problem.metric])}


def _torch(problem: Distance, inputs: Arrays) -> Arrays:
    import torch

    if problem.metric not in ("l2", "l1"):
        raise BadInput(f"peer torch.cdist: has no {problem.metric}")
    return {"distances": torch.cdist(inputs["x"], inputs["y"], p=int(problem.metric[1]))}


_SHAPES = ((1, 1, 1), (1, 1, 127), (1, 1, 4099), (1, 37, 2), (3, 5, 1), (13, 67, 19), (33, 129, 31), (40, 1, 7), (1, 200, 33), (9, 0, 4))
OPERATOR = Operator(
    name="distance",
    summary="distances between vectors: cosine, L2, dot product and L1",
    problem=Distance,
    shapes=shapes,
    inputs=inputs,
    oracle=oracle,
    compare=compare,
    cost=cost,
    memory=memory,
    awkward=[
        *(Distance(metric=metric, q=q, n=n, d=d) for metric in metrics.METRICS for q, n, d in _SHAPES),
        *(Distance(metric=metric, q=q, n=70, d=37, data="offset") for metric in metrics.METRICS for q in (2, 11)),
    ],
    signatures=[Signature(("X", "Y"), _called), Signature(("x", "y"), _called)],
    peers={"scipy cdist": Peer(_scipy, ("cpu",)), "torch.cdist": Peer(_torch)},
    part=part,
)


def distance(x: Any, y: Any, metric: str = "l2", *, block: dict[str, int] | None = None) -> Any:
    """Distances between `x` and `y`, float32 arrays of NumPy, torch or CuPy in the same place.

    x [D], y [D]: one distance []. x [D], y [N, D]: [N]. x [Q, D], y [D]: [Q]. x [Q, D], y [N, D]: [Q, N]. The result is
    float32 and lies where the inputs lie. Metrics: "cosine" (1 - cos; 1 for a zero vector), "l2" (the square root is taken),
    "dot" (plain x·y), "l1". L2 and L1 sum direct differences, so that a large offset costs no digits. Inputs that are not
    contiguous are copied. `block` sets the backend's block parameters; None takes the tuned ones.

    Raises BadInput, a ValueError, for another dtype, widths that differ, or arrays in different places.
    """
    known = metrics.known_metric(metric)
    dispatch.check_pair("x", x, "y", y)
    wide_x, wide_y = dispatch.rows(x), dispatch.rows(y)
    problem = Distance(metric=known, q=wide_x.shape[0], n=wide_y.shape[0], d=wide_x.shape[1])
    found = dispatch.compute(OPERATOR, problem, {"x": wide_x, "y": wide_y}, block)["distances"]
    return found.reshape(tuple(x.shape[:-1]) + tuple(y.shape[:-1]))


def distance_cosine(X: Any, Y: Any) -> Any:
    """The course's cosine distance, 1 - X·Y / (|X| |Y|); see `distance`."""
    return distance(X, Y, "cosine")


def distance_l2(X: Any, Y: Any) -> Any:
    """The course's Euclidean distance; see `distance`."""
    return distance(X, Y, "l2")


def distance_dot(X: Any, Y: Any) -> Any:
    """The course's dot product X·Y; see `distance`."""
    return distance(X, Y, "dot")


def distance_manhattan(X: Any, Y: Any) -> Any:
    """The course's Manhattan distance, sum |X - Y|; see `distance`."""
    return distance(X, Y, "l1")
