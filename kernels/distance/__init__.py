"""Distances between vectors: a pair, one query and a collection, or queries and a collection, by the shapes given."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from analysis.cli import BadInput
from kernels import dispatch, metrics
from kernels.contract import Arrays, Cost, Memory, Operator, Peer, Problem, Signature, Verdict, as_bfloat16, standard_normal
from kernels.distance import reference
from kernels.distance.space import LONG
from kernels.distance.tolerance import allowed, deviation, row_norms, spread

OPERATIONS = {"l2": 3, "l1": 2, "dot": 2, "cosine": 2}
"""Operations an element and pair: l2 subtracts and multiply-adds (2), l1 subtracts and adds (|.| is free), dot multiply-adds."""

Data = Literal["normal", "offset", "special"]
SIZE = {"float32": 4, "float16": 2, "bfloat16": 2}
RATE = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
"""The ceiling of products, by dtype; differences are float32 arithmetic whatever the inputs."""
ORACLE = 1 << 26
"""Differences that the float64 oracle is asked for at most when a large problem is checked."""


@dataclass(frozen=True, kw_only=True)
class Distance(Problem):
    """All distances, in float32, between q rows and n rows of d dimensions, which are of `dtype`.

    `data`: "normal" is N(0, 1); "offset" lies around 10,000 with spread 1; "special" has NaN, infinities and zero vectors in some rows.
    """

    metric: metrics.Metric = "l2"
    q: int = 1
    n: int = 1
    d: int
    data: Data = "normal"

    def __post_init__(self) -> None:
        for name, least in (("q", 0), ("n", 0), ("d", 1)):
            if getattr(self, name) < least:
                raise BadInput(f"{name}: {getattr(self, name)} is less than {least}")


def shapes(problem: Distance) -> dict[str, tuple[tuple[int, ...], str]]:
    return {"x": ((problem.q, problem.d), problem.dtype), "y": ((problem.n, problem.d), problem.dtype)}


def inputs(problem: Distance, rng: np.random.Generator) -> Arrays:
    """Random rows; for bfloat16 float32 numbers that it has, so that the oracle is given what the backends are."""
    arrays = standard_normal(shapes(problem), rng)
    if problem.data == "offset":
        arrays = {name: (array + np.float32(1e4)).astype(array.dtype) for name, array in arrays.items()}
    if problem.data == "special":
        for array, infinity in zip(arrays.values(), (-np.inf, np.inf), strict=True):
            array[1::5, 0], array[2::5, -1], array[3::5] = np.nan, infinity, 0
    if problem.dtype == "bfloat16":
        arrays = {name: as_bfloat16(array) for name, array in arrays.items()}
    return arrays


def oracle(problem: Distance, inputs: Arrays) -> Arrays:
    return {"distances": reference.distances(inputs["x"], inputs["y"], problem.metric)}


def compare(problem: Distance, inputs: Arrays, outputs: Arrays, expected: Arrays) -> Verdict:
    """Every distance against the oracle's, within the rounding of float32 (see `kernels.distance.tolerance`)."""
    found, true = np.asarray(outputs["distances"]), expected["distances"]
    if found.shape != true.shape:
        return Verdict(False, np.inf, f"distances have shape {list(found.shape)}, not {list(true.shape)}")
    with np.errstate(invalid="ignore"):
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
    """Inputs read once and distances written once; a fused multiply-add counts as 2 operations; cosine adds its norms.

    A float32 product is also had by three in TF32, of halves of its operands.
    """
    q, n, d = problem.q, problem.n, problem.d
    norms = 2 * (q + n) * d if problem.metric == "cosine" else 0
    rate = "fp32" if problem.metric in ("l2", "l1") else RATE[problem.dtype]
    operations = OPERATIONS[problem.metric] * q * n * d + norms
    split = ((3 * operations, "tf32"),) if problem.metric in ("dot", "cosine") and rate == "fp32" else ()
    return Cost(SIZE[problem.dtype] * (q + n) * d + 4 * q * n, operations, rate, split)


def memory(problem: Distance) -> Memory:
    """Host: inputs as drawn and as given, outputs, and float64 copies of all. Device: inputs, a float32 copy, outputs, torch's scratch."""
    q, n, d = problem.q, problem.n, problem.d
    return Memory(host=16 * (q + n) * d + 24 * q * n, device=(SIZE[problem.dtype] + 4) * (q + n) * d + 16 * q * n)


def _called(function: Any, problem: Distance, inputs: Arrays) -> Arrays:
    """`function(X, Y)` with vectors where there is one row and matrices elsewhere, as the course's functions take them."""
    x, y = (array[0] if len(array) == 1 else array for array in (inputs["x"], inputs["y"]))
    return {"distances": np.asarray(function(x, y)).reshape(problem.q, problem.n)}


def _scipy(problem: Distance, inputs: Arrays) -> Arrays:
    from scipy.spatial.distance import cdist

    x, y = (array.float().numpy() for array in (inputs["x"], inputs["y"]))
    if problem.metric == "dot":
        raise BadInput("peer scipy cdist: has no dot")
    return {"distances": cdist(x, y, {"l2": "euclidean", "l1": "cityblock", "cosine": "cosine"}[problem.metric])}


def _cdist(problem: Distance, inputs: Arrays) -> Arrays:
    import torch

    if problem.metric not in ("l2", "l1") or problem.dtype != "float32":
        raise BadInput(f"peer torch.cdist: has no {problem.metric} of {problem.dtype}")
    return {"distances": torch.cdist(inputs["x"], inputs["y"], p=int(problem.metric[1]))}


def _mm(problem: Distance, inputs: Arrays) -> Arrays:
    """cuBLAS: half precision on tensor cores with float32 results, which torch has from 2.8 on; float32 as torch is set."""
    import torch

    if problem.metric != "dot":
        raise BadInput(f"peer torch.mm: has no {problem.metric}")
    if problem.dtype == "float32":
        return {"distances": torch.mm(inputs["x"], inputs["y"].T)}
    return {"distances": torch.mm(inputs["x"], inputs["y"].T, out_dtype=torch.float32)}


_SHAPES = (
    (1, 1, 1), (1, 1, 127), (1, 1, 4099), (1, 37, 2), (3, 5, 1), (13, 67, 19), (33, 129, 31), (40, 1, 7), (1, 200, 33), (9, 0, 4),
    (5, 83, 64), (1, 1, LONG + 64), (2, 3, LONG + 17),
)  # fmt: skip
_HALF_SHAPES = ((2, 45), (3, 64), (11, 32), (9, 1039))
_HARD: tuple[Data, ...] = ("offset", "special")
_HALF: tuple[Literal["float16", "bfloat16"], ...] = ("float16", "bfloat16")
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
        *(Distance(metric=metric, q=q, n=70, d=37, data=data) for metric in metrics.METRICS for q in (4, 11) for data in _HARD),
        *(Distance(metric=metric, q=11, n=70, d=37, data="special", dtype="float16") for metric in metrics.METRICS),
        *(Distance(metric=metric, q=q, n=130, d=d, dtype=dtype) for metric in metrics.METRICS for dtype in _HALF for q, d in _HALF_SHAPES),
    ],
    signatures=[Signature(("X", "Y"), _called), Signature(("x", "y"), _called)],
    peers={"scipy cdist": Peer(_scipy, ("cpu",)), "torch.cdist": Peer(_cdist), "torch.mm": Peer(_mm, ("cuda",))},
    part=part,
)


def distance(x: Any, y: Any, metric: str = "l2", *, block: dict[str, int] | None = None) -> Any:
    """Distances between `x` and `y`, arrays of one dtype in one place: NumPy's, torch's or CuPy's float32 or float16, or torch's bfloat16.

    x [D], y [D]: one distance []. x [D], y [N, D]: [N]. x [Q, D], y [D]: [Q]. x [Q, D], y [N, D]: [Q, N]. The result lies
    where the inputs lie and is float32, as are all sums, whatever the inputs' dtype. Metrics: "cosine" (1 - cos; 1 for a zero vector),
    "l2" (the square root is taken), "dot" (plain x·y), "l1". L2 and L1 sum direct differences, so that a large offset costs no digits.

    Errors are those of float32 sums: (8 + sqrt D) epsilons of the distance (l2, l1), of |x| |y| (dot) or of 1 (cosine). A component whose
    square float32 cannot hold overflows to inf, beyond 1.8e19, or is lost, below 1e-19 (l2, cosine). NaN makes the distances of its
    vector NaN, and infinities follow IEEE arithmetic (inf - inf is NaN). No rows give no distances; D is at least 1 and has no upper
    limit, nor have N D and Q N. Inputs that are not contiguous are copied. `block` sets the backend's block parameters; None takes
    the tuned ones.

    Raises BadInput, a ValueError, for another dtype or two, widths that differ, or arrays in different places.
    """
    known = metrics.known_metric(metric)
    dtypes = dispatch.FLOATS if dispatch.library("x", x) == "torch" else ("float32", "float16")
    dispatch.check_pair("x", x, "y", y, dtypes)
    wide_x, wide_y = dispatch.rows(x), dispatch.rows(y)
    dtype: Any = dispatch.dtype_of(x)
    problem = Distance(metric=known, q=wide_x.shape[0], n=wide_y.shape[0], d=wide_x.shape[1], dtype=dtype)
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
