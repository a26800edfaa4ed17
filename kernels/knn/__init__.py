"""Exact nearest neighbours: the k rows of a collection that are nearest to each query."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from analysis.cli import BadInput
from kernels import dispatch, metrics
from kernels.contract import Arrays, Cost, Memory, Operator, Problem, Signature, standard_normal
from kernels.distance import OPERATIONS, ORACLE
from kernels.distance.tolerance import spread
from kernels.filter import FEW, NARROW
from kernels.knn import peers, reference
from kernels.knn.compare import compare

Data = Literal["normal", "offset", "duplicates", "constant", "nan"]
SCRATCH = 1 << 30
"""Bytes of scratch on the device that the GPU backends stay within, whatever the number of queries."""


@dataclass(frozen=True, kw_only=True)
class Knn(Problem):
    """The k nearest of n rows to each of q queries in d dimensions.

    `data`: "normal" is N(0, 1); "offset" lies around 10,000 with spread 1; "duplicates" repeats a quarter of the rows;
    "constant" has one row only, many times; "nan" has NaN in some rows.
    """

    metric: metrics.Metric = "l2"
    q: int = 1
    n: int
    d: int
    k: int = 10
    data: Data = "normal"
    dtype: Literal["float32"] = "float32"

    def __post_init__(self) -> None:
        for name, least in (("q", 0), ("n", 0), ("d", 1), ("k", 1)):
            if getattr(self, name) < least:
                raise BadInput(f"{name}: {getattr(self, name)} is less than {least}")
        if self.n >= 1 << 31:
            raise BadInput(f"n: {self.n} is more than 2^31 - 1 rows")


def shapes(problem: Knn) -> dict[str, tuple[tuple[int, ...], str]]:
    return {"queries": ((problem.q, problem.d), problem.dtype), "collection": ((problem.n, problem.d), problem.dtype)}


def inputs(problem: Knn, rng: np.random.Generator) -> Arrays:
    arrays = standard_normal(shapes(problem), rng)
    collection = arrays["collection"]
    if problem.data == "offset":
        arrays = {name: array + np.float32(1e4) for name, array in arrays.items()}
    elif problem.data == "duplicates" and problem.n:
        arrays["collection"] = collection[rng.integers(0, 1 + problem.n // 4, problem.n)]
    elif problem.data == "constant" and problem.n:
        arrays["collection"] = np.repeat(collection[:1], problem.n, axis=0)
    elif problem.data == "nan":
        collection[::3, 0] = np.nan
    return arrays


def oracle(problem: Knn, inputs: Arrays) -> Arrays:
    distances, ids = reference.knn(inputs["queries"], inputs["collection"], problem.k, problem.metric)
    return {"distances": distances, "ids": ids}


def part(problem: Knn, inputs: Arrays, outputs: Arrays) -> tuple[Knn, Arrays, Arrays]:
    """Some of the queries, evenly spread, as many as the oracle does in a second or so, and one at least."""
    rows = spread(problem.q, max(1, ORACLE // (problem.n * problem.d + 1)))
    found = {name: array[rows] for name, array in outputs.items()}
    return replace(problem, q=len(rows)), inputs | {"queries": inputs["queries"][rows]}, found


def cost(problem: Knn) -> Cost:
    """Inputs read once, float32 distances and 64-bit ids written once; selection is not counted, a fused multiply-add is 2.

    In half precision a product is enough to leave out nearly all rows; l1 has none, and few columns fill no tensor core.
    """
    q, n, d, k = problem.q, problem.n, problem.d, problem.k
    exact = OPERATIONS[problem.metric] * q * n * d
    half = ((2 * q * n * d, "fp16"),) if problem.metric != "l1" and d >= NARROW else ()
    return Cost(4 * (q + n) * d + 12 * q * k, exact, "fp32", half)


def memory(problem: Knn) -> Memory:
    """Host: inputs twice, outputs, and float64 copies of the oracle's chunks. Device: inputs, outputs and scratch, which is bounded."""
    q, n, d, k = problem.q, problem.n, problem.d, problem.k
    once, chunk = 4 * (q + n) * d + 12 * q * k, 8 * 4 * min(n, reference.ROWS) * d
    scratch = min(2 * SCRATCH, 32 * q * (n + 128 * k))
    return Memory(host=2 * once + chunk + 8 * 3 * n, device=once + 12 * q * k + scratch)


def _native(function: Any, problem: Knn, inputs: Arrays) -> Arrays:
    distances, ids = function(inputs["queries"], inputs["collection"], problem.k, problem.metric)
    return {"distances": np.asarray(distances), "ids": np.asarray(ids)}


def _course(function: Any, problem: Knn, inputs: Arrays) -> Arrays:
    collection = inputs["collection"]
    found = [np.asarray(function(*collection.shape, collection, query, problem.k)) for query in inputs["queries"]]
    return {"ids": np.stack(found).reshape(problem.q, -1)}


def _course_accepts(problem: Knn) -> str | None:
    """The course defines l2 over finite rows with K of at least 1 and at most N."""
    if problem.metric != "l2":
        return f"our_knn(N, D, A, X, K) has no metric; it is asked for l2, not {problem.metric}"
    if not 1 <= problem.k <= problem.n or problem.data == "nan":
        return f"the course does not define k = {problem.k} of n = {problem.n} rows of {problem.data} data"
    return None


_SHAPES = (
    (1, 1, 1, 1), (1, 1, 7, 3), (2, 5, 1, 9), (1, 300, 2, 10), (2, 40, 37, 40), (5, 64, 16, 1),
    (17, 200, 31, 7), (12, 129, 5, 20), (1, 520, 130, 5), (9, 0, 4, 2),
)  # fmt: skip
_HARD: tuple[tuple[int, Data], ...] = ((2, "offset"), (9, "offset"), (2, "duplicates"), (9, "duplicates"), (2, "nan"), (9, "nan"))
_FULLY, _PARTLY = metrics.METRICS[:2], metrics.METRICS[2:]
"""Metrics whose every path is gone, and those that differ from them in a key alone."""
_LARGE = (
    Knn(q=FEW + 1, n=40, d=16, k=1), Knn(q=2, n=2500, d=3, k=1, data="constant"), Knn(q=3, n=2500, d=17, k=1, data="constant"),
    Knn(q=1, n=2500, d=5, k=3, data="constant"),
)  # fmt: skip
OPERATOR = Operator(
    name="knn",
    summary="exact k nearest neighbours, without a matrix of all distances",
    problem=Knn,
    shapes=shapes,
    inputs=inputs,
    oracle=oracle,
    compare=compare,
    cost=cost,
    memory=memory,
    awkward=[
        *(Knn(metric=metric, q=q, n=n, d=d, k=k) for metric in _FULLY for q, n, d, k in _SHAPES),
        *(Knn(metric=metric, q=q, n=n, d=d, k=k) for metric in _PARTLY for q, n, d, k in _SHAPES[::2]),
        *(Knn(metric=metric, q=q, n=150, d=19, k=20, data=data) for metric in _FULLY for q, data in _HARD),
        *(Knn(metric=metric, q=q, n=150, d=19, k=7, data=data) for metric in _PARTLY for q, data in _HARD[::2]),
        *_LARGE,
    ],
    signatures=[
        Signature(("queries", "collection", "k", "metric"), _native),
        Signature(("N", "D", "A", "X", "K"), _course, _course_accepts),
    ],
    peers=peers.PEERS,
    part=part,
)


def knn(queries: Any, collection: Any, k: int, metric: str = "l2", *, block: dict[str, int] | None = None) -> tuple[Any, Any]:
    """The k rows of `collection` nearest to each query: (distances, ids), best first.

    `queries` [Q, D] and `collection` [N, D] are float32 arrays of NumPy, torch or CuPy in the same place; the results, float32
    and int64 [Q, k], lie there too. One query [D] gives [k]. Metrics are those of `kernels.distance.distance`; "dot" ranks the
    largest product first. Rows at equal distance come by id, the smaller first. A NaN distance counts as infinitely far:
    such rows come after all others, in any order among rows at infinity, at distance inf (-inf for dot). Where N < k the
    rest has id -1 at that same distance. Answers are exact up to ties within float32 rounding. Inputs that are not contiguous
    are copied. `block` sets the backend's block parameters; None takes the tuned ones.

    Raises BadInput, a ValueError, for another dtype, widths that differ, k < 1, or arrays in different places.
    """
    known = metrics.known_metric(metric)
    _check_k(k)
    dispatch.check_pair("queries", queries, "collection", collection)
    if collection.ndim != 2:
        raise BadInput(f"collection: shape {list(collection.shape)}; give rows [N, D]")
    wide, rows = dispatch.rows(queries), dispatch.rows(collection)
    problem = Knn(metric=known, q=wide.shape[0], n=rows.shape[0], d=rows.shape[1], k=int(k))
    moving = "queries" if problem.q > 1 else None  # for one there are no launches to save
    found = dispatch.compute(OPERATOR, problem, {"queries": wide, "collection": rows}, block, moving)
    shape = (*queries.shape[:-1], int(k))
    return found["distances"].reshape(shape), found["ids"].reshape(shape)


def knn_streamed(queries: Any, collection: np.ndarray, k: int, metric: str = "l2", *, memory: int = 4 << 30) -> tuple[Any, Any]:
    """`knn` in a collection that need not fit the GPU: (distances, ids) [Q, k], torch tensors where the queries lie.

    `queries` [Q, D] is a torch tensor on the GPU that shall search; `collection` [N, D] a NumPy array in host memory or a memory-mapped
    file, of the same dtype, which passes through pinned buffers a chunk at a time. `memory` bounds what the collection's chunks and
    the search take of the GPU's memory, in bytes (default 4 GiB); queries and results come on top, and pinned buffers on the host.

    Raises BadInput as `knn` does, and for less memory than a MiB.
    """
    known = metrics.known_metric(metric)
    _check_k(k)
    if not isinstance(collection, np.ndarray) or collection.ndim != 2:
        raise BadInput(f"collection: {_kind(collection)}; give a NumPy array or a memory-mapped file of rows [N, D]")
    if dispatch.library("queries", queries) != "torch" or queries.ndim != 2:
        raise BadInput(f"queries: {_kind(queries)}; give a torch tensor of rows [Q, D] on the GPU that shall search")
    dispatch.check_widths("queries", queries, "collection", collection)
    if memory < 1 << 20:
        raise BadInput(f"memory: {memory} bytes; give a MiB at least, enough for a few rows and the search")
    from kernels.knn import streamed

    return streamed.search(dispatch.rows(queries), collection, int(k), known, memory)


def _kind(array: Any) -> str:
    return f"{type(array).__name__} of shape {list(getattr(array, 'shape', ()))}"


def _check_k(k: Any) -> None:
    if not isinstance(k, int | np.integer) or k < 1:
        raise BadInput(f"k: {k!r} is not a whole number of at least 1")


def our_knn(N: int, D: int, A: Any, X: Any, K: int) -> Any:
    """The course's signature: ids [K] of the K rows of A [N, D] nearest to X [D] in L2, nearest first; see `knn`.

    NumPy inputs of another dtype than float32, such as float64 out of text files, are converted.
    """
    if isinstance(A, np.ndarray) and isinstance(X, np.ndarray):
        A, X = A.astype(np.float32, copy=False), X.astype(np.float32, copy=False)
    if tuple(A.shape) != (N, D):
        raise BadInput(f"A: shape {list(A.shape)}, but N = {N} and D = {D}")
    return knn(X, A, K)[1]
