"""Top-k: the k smallest or largest elements of each row, best first."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from analysis.cli import BadInput
from kernels import dispatch
from kernels.contract import Arrays, Cost, Memory, Operator, Problem, Signature, as_bfloat16, standard_normal
from kernels.distance.tolerance import spread
from kernels.topk import peers, reference
from kernels.topk.compare import compare

MOST = 2048
"""The largest k."""
COLUMNS = (1 << 31) - (1 << 15)
"""The longest row."""
ORACLE = 1 << 24
"""Elements that the oracle sorts at most when a large problem is checked."""
NAN = 0x7FC00000
"""The upper half of a packed NaN: after that of infinity, before that of `kernels.packing.NONE`."""
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, kw_only=True)
class TopK(Problem):
    """The k best of each of `rows` rows of `columns` elements.

    `data`: "normal" is N(0, 1); "duplicates" are whole numbers from -4 to 4, both zeros among them; "nan" has NaN and
    infinities; "constant" is all ones.
    """

    rows: int = 1
    columns: int
    k: int = 10
    order: Literal["smallest", "largest"] = "smallest"
    data: Literal["normal", "duplicates", "nan", "constant"] = "normal"

    def __post_init__(self) -> None:
        for name, least, most in (("rows", 0, None), ("columns", 0, COLUMNS), ("k", 1, MOST)):
            value = getattr(self, name)
            if value < least or (most is not None and value > most):
                raise BadInput(f"{name}: {value} is not " + (f"{least} to {most}" if most else f"at least {least}"))

    @property
    def largest(self) -> bool:
        return self.order == "largest"


def shapes(problem: TopK) -> dict[str, tuple[tuple[int, ...], str]]:
    return {"values": ((problem.rows, problem.columns), problem.dtype)}


def inputs(problem: TopK, rng: np.random.Generator) -> Arrays:
    """Inputs in the problem's dtype; those of bfloat16 are float32 numbers that bfloat16 holds exactly."""
    values = standard_normal(shapes(problem), rng)["values"]
    if problem.data == "duplicates":
        signs = rng.choice(np.array([-1, 1], values.dtype), values.shape)
        values = signs * rng.integers(0, 5, values.shape).astype(values.dtype)
    elif problem.data == "nan":
        values[:, ::3], values[:, 1::7], values[:, 2::11] = np.nan, np.inf, -np.inf
    elif problem.data == "constant":
        values = np.ones_like(values)
    if problem.dtype == "bfloat16":
        values = as_bfloat16(values)
    return {"values": values}


def oracle(problem: TopK, inputs: Arrays) -> Arrays:
    values, ids = reference.topk(inputs["values"], problem.k, problem.largest)
    return {"values": values, "ids": ids}


def part(problem: TopK, inputs: Arrays, outputs: Arrays) -> tuple[TopK, Arrays, Arrays]:
    """Some of the rows, evenly spread, as many as the oracle does in a second or so, and one at least."""
    rows = spread(problem.rows, max(1, ORACLE // (problem.columns + 1)))
    found = {name: array[rows] for name, array in outputs.items()}
    return replace(problem, rows=len(rows)), {"values": inputs["values"][rows]}, found


def cost(problem: TopK) -> Cost:
    """Elements read once, the best and their 64-bit ids written once; comparisons are not counted."""
    size = BYTES[problem.dtype]
    return Cost(size * problem.rows * problem.columns + (size + 8) * problem.rows * problem.k, 0)


def memory(problem: TopK) -> Memory:
    """Host: inputs twice, outputs, and a row in float64 with its order. Device: inputs, outputs, and lists or packed chunks of elements."""
    elements, found = problem.rows * problem.columns, problem.rows * problem.k
    once, packed = cost(problem).bytes, 24 * min(elements, max(1 << 25, problem.columns))
    return Memory(host=8 * elements + 2 * 12 * found + 24 * problem.columns, device=once + packed + 24 * found)


def _native(function: Any, problem: TopK, inputs: Arrays) -> Arrays:
    values, ids = function(inputs["values"], problem.k, problem.largest)
    return {"values": np.asarray(values), "ids": np.asarray(ids)}


_SHAPES = (
    (1, 1, 1), (1, 1, 3), (2, 7, 7), (3, 64, 5), (2, 65, 64), (1, 130, 1), (5, 100, 17), (2, 300, 10), (1, 1000, 100),
    (2, 0, 3), (0, 5, 2), (1, 3, 200),
)  # fmt: skip
_DATA: tuple[Literal["duplicates", "nan", "constant"], ...] = ("duplicates", "nan", "constant")
_ORDERS: tuple[Literal["smallest", "largest"], ...] = ("smallest", "largest")
OPERATOR = Operator(
    name="topk",
    summary="the k best of each row, ties by the smaller id",
    problem=TopK,
    shapes=shapes,
    inputs=inputs,
    oracle=oracle,
    compare=compare,
    cost=cost,
    memory=memory,
    awkward=[
        *(TopK(rows=rows, columns=columns, k=k) for rows, columns, k in _SHAPES),
        *(TopK(rows=2, columns=200, k=k, order=order, data=data) for data in _DATA for order in _ORDERS for k in (9, 150)),
        TopK(rows=2, columns=150, k=20, order="largest"),
        TopK(rows=2, columns=150, k=20, dtype="float16", data="duplicates"),
        TopK(rows=2, columns=150, k=20, dtype="bfloat16", order="largest"),
    ],
    signatures=[Signature(("values", "k", "largest"), _native)],
    peers=peers.PEERS,
    part=part,
)


def topk(values: Any, k: int, largest: bool = False, *, block: dict[str, int] | None = None) -> tuple[Any, Any]:
    """The k smallest elements of each row, or the k largest: (values, ids), best first.

    `values` [R, M] is a NumPy, torch or CuPy array of dtype float32 or float16, or of torch's bfloat16; the results [R, k], of
    that dtype and int64, lie in the same place. One row [M] gives [k]. Equal elements come by id (their column), the smaller
    first; -0.0 equals 0.0, and either is given back as 0.0. NaN is worse than anything else in both directions, infinities
    included. Where M < k the rest has id -1 and the worst infinity: inf, or -inf for the largest. `k` is 1 to 2048 and M at
    most 2^31 - 2^15; R x M may pass 2^31. Inputs that are not contiguous are copied. `block` sets the backend's block
    parameters; None takes the tuned ones.

    Raises BadInput, a ValueError, for another dtype, shape or k.
    """
    if not isinstance(k, int | np.integer) or not 1 <= k <= MOST:
        raise BadInput(f"k: {k!r} is not a whole number from 1 to {MOST}")
    dispatch.check_dtype("values", values, dispatch.FLOATS)
    if values.ndim not in (1, 2) or values.shape[-1] > COLUMNS:
        raise BadInput(f"values: shape {list(values.shape)}; give a row [M] or rows [R, M] with M of at most {COLUMNS}")
    rows = dispatch.rows(values) if values.ndim == 2 else dispatch.rows(values[None])
    dtype: Any = dispatch.dtype_of(rows)
    problem = TopK(rows=rows.shape[0], columns=rows.shape[1], k=int(k), order="largest" if largest else "smallest", dtype=dtype)
    found = dispatch.compute(OPERATOR, problem, {"values": rows}, block)
    shape = (*values.shape[:-1], int(k))
    return found["values"].reshape(shape), found["ids"].reshape(shape)
