"""The matrix product C = A B of row-major matrices, in four precisions: the classic study of block sizes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from analysis.cli import BadInput
from kernels import dispatch
from kernels.contract import Arrays, Cost, Memory, Operator, Peer, Problem, Signature, Verdict, as_bfloat16, standard_normal
from kernels.distance.tolerance import spread
from kernels.gemm import reference
from kernels.gemm.space import SIZE
from kernels.gemm.tolerance import compare_product

Precision = Literal["fp32", "tf32", "fp16", "bf16"]
PRECISIONS: dict[str, tuple[Precision, ...]] = {"float32": ("fp32", "tf32"), "float16": ("fp16",), "bfloat16": ("bf16",)}
"""What each dtype of the inputs may be multiplied in; the first is the default."""

ORACLE = 1 << 28
"""Multiply-adds that the float64 oracle is asked for at most when a large problem is checked."""


@dataclass(frozen=True, kw_only=True)
class Gemm(Problem):
    """The product [m, n] of [m, k] and [k, n]; `data` "nonfinite" has NaN in a row of A and infinities in one of A and a column of B."""

    m: int
    n: int
    k: int
    precision: Precision = "fp32"
    data: Literal["normal", "nonfinite"] = "normal"

    def __post_init__(self) -> None:
        for name in ("m", "n", "k"):
            if not 0 <= getattr(self, name) < 1 << 31:
                raise BadInput(f"{name}: {getattr(self, name)} is not from 0 to 2^31 - 1")
        check_precision(self.precision, self.dtype)


def check_precision(precision: str, dtype: str) -> None:
    """Raise BadInput unless inputs of `dtype` can be multiplied in `precision`."""
    if precision not in PRECISIONS[dtype]:
        raise BadInput(f"precision: {precision!r} does not go with {dtype} inputs; one of {', '.join(PRECISIONS[dtype])}")


def shapes(problem: Gemm) -> dict[str, tuple[tuple[int, ...], str]]:
    return {"a": ((problem.m, problem.k), problem.dtype), "b": ((problem.k, problem.n), problem.dtype)}


def inputs(problem: Gemm, rng: np.random.Generator) -> Arrays:
    """Standard normal; bfloat16 as the float32 numbers that it has, so that the oracle multiplies what the backends do."""
    arrays = standard_normal(shapes(problem), rng)
    if problem.dtype == "bfloat16":
        arrays = {name: as_bfloat16(array) for name, array in arrays.items()}
    if problem.data == "nonfinite":
        arrays["a"][0, 0] = np.nan
        arrays["a"][-1, -1] = np.inf
        arrays["b"][0, -1] = -np.inf
    return arrays


def oracle(problem: Gemm, inputs: Arrays) -> Arrays:
    return {"c": reference.product(inputs["a"], inputs["b"])}


def compare(problem: Gemm, inputs: Arrays, outputs: Arrays, expected: Arrays) -> Verdict:
    return compare_product(problem.precision, inputs["a"], inputs["b"], np.asarray(outputs["c"]), expected["c"])


def part(problem: Gemm, inputs: Arrays, outputs: Arrays) -> tuple[Gemm, Arrays, Arrays]:
    """Rows and columns of C, evenly spread, as many as the oracle does in a second or so."""
    rows = spread(problem.m, max(1, ORACLE // (min(problem.n, 128) * problem.k + 1)))
    columns = spread(problem.n, max(1, ORACLE // (len(rows) * problem.k + 1)))
    some = {"a": inputs["a"][rows], "b": inputs["b"][:, columns]}
    return replace(problem, m=len(rows), n=len(columns)), some, {"c": outputs["c"][np.ix_(rows, columns)]}


def cost(problem: Gemm) -> Cost:
    """Inputs read once and the product written once; a multiply-add is 2 operations, at the rate of the precision."""
    return Cost(_bytes(problem), 2 * problem.m * problem.n * problem.k, problem.precision)


def memory(problem: Gemm) -> Memory:
    """Host: float32 inputs and outputs, and the oracle's float64 copies of a part. Device: inputs and output, each at most twice."""
    elements = _bytes(problem) // SIZE[problem.dtype]
    return Memory(host=3 * 4 * elements, device=2 * _bytes(problem))


def _bytes(problem: Gemm) -> int:
    m, n, k = problem.m, problem.n, problem.k
    return SIZE[problem.dtype] * (m * k + k * n + m * n)


def _called(function: Any, problem: Gemm, inputs: Arrays) -> Arrays:
    return {"c": np.asarray(function(inputs["a"], inputs["b"]))}


def _accepts(problem: Gemm) -> str | None:
    return None if problem.precision in ("fp32", "fp16") else f"NumPy arrays say nothing of {problem.precision}"


def _cublas(problem: Gemm, inputs: Arrays) -> Arrays:
    import torch

    from kernels.gemm.torch_impl import precisely

    with precisely(problem.precision):
        return {"c": torch.matmul(inputs["a"], inputs["b"])}


_SHAPES = (
    (33, 65, 70),
    (1, 1, 1),
    (1, 1, 37),
    (129, 1, 16),
    (1, 131, 5),
    (31, 37, 41),
    (128, 256, 64),
    (7, 300, 33),
    (0, 4, 3),
    (4, 0, 3),
    (3, 4, 0),
)
_DTYPE: dict[Precision, Any] = {precision: dtype for dtype, precisions in PRECISIONS.items() for precision in precisions}
OPERATOR = Operator(
    name="gemm",
    summary="matrix product of row-major matrices",
    problem=Gemm,
    shapes=shapes,
    inputs=inputs,
    oracle=oracle,
    compare=compare,
    cost=cost,
    memory=memory,
    awkward=[
        *(Gemm(m=m, n=n, k=k, precision=each, dtype=_DTYPE[each]) for m, n, k in _SHAPES for each in _DTYPE),
        *(Gemm(m=40, n=50, k=19, precision=each, dtype=_DTYPE[each], data="nonfinite") for each in _DTYPE),
    ],
    signatures=[Signature(("a", "b"), _called, _accepts), Signature(("A", "B"), _called, _accepts)],
    peers={"cuBLAS": Peer(_cublas, ("cuda",))},
    part=part,
)


def gemm(a: Any, b: Any, precision: Precision | None = None, *, block: dict[str, int] | None = None) -> Any:
    """The matrix product [M, N] of `a` [M, K] and `b` [K, N], arrays of NumPy, torch or CuPy in the same place.

    The result has the inputs' dtype, float32, float16 or bfloat16, and lies where they lie. `precision`: "fp32" (IEEE float32)
    or "tf32" for float32, "fp16" for float16, "bf16" for bfloat16; None takes the first that goes with the dtype, so that TF32
    has to be asked for. TF32 allows the operands to be cut to 10 bits of fraction where the hardware gains from it (a CPU and
    CuPy's kernels compute in float32). Sums are float32 in every precision. K = 0 gives zeros; NaN and infinities follow IEEE
    arithmetic. Inputs that are not contiguous are copied. `block` sets the backend's block parameters; None takes the tuned ones.

    Raises BadInput, a ValueError, for another dtype, a precision that does not go with it, shapes that do not go together, or
    arrays in different places.
    """
    for name, array in (("a", a), ("b", b)):
        dispatch.check_dtype(name, array, dispatch.FLOATS)
        if array.ndim != 2:
            raise BadInput(f"{name}: shape {list(array.shape)}; give a matrix")
    if a.shape[1] != b.shape[0]:
        raise BadInput(f"a: shape {list(a.shape)} does not go with b of shape {list(b.shape)}; give [M, K] and [K, N]")
    dispatch.check_together("a", a, "b", b)
    dtype: Any = dispatch.dtype_of(a)
    chosen = PRECISIONS[dtype][0] if precision is None else precision
    check_precision(chosen, dtype)
    problem = Gemm(m=a.shape[0], n=b.shape[1], k=a.shape[1], precision=chosen, dtype=dtype)
    return dispatch.compute(OPERATOR, problem, {"a": dispatch.rows(a), "b": dispatch.rows(b)}, block)["c"]
