"""Distances against their definitions and SciPy, and what the public functions refuse."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from analysis.cli import BadInput
from kernels import cuda, registry
from kernels.arrays import place, to_numpy
from kernels.distance import (
    OPERATOR,
    Data,
    Distance,
    distance,
    distance_cosine,
    distance_dot,
    distance_l2,
    distance_manhattan,
    reference,
)
from kernels.distance.cuda_metric import lanes, vector
from kernels.distance.space import CUPY, LONG, NUMPY, PAIRS, TRITON, shared, tiled
from kernels.metrics import METRICS
from tests.commands import run_python
from tests.needs import require

ROOT = Path(__file__).parents[2]
SCIPY = {"l2": "euclidean", "l1": "cityblock", "cosine": "cosine"}
OUTSIDE = [str(ROOT / "tests" / "operators" / "softmax")]
LIBRARIES = pytest.mark.parametrize("library", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float16, torch.bfloat16], ids=["float32", "float16", "bfloat16"])


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def independent(x: np.ndarray, y: np.ndarray, metric: str) -> np.ndarray:
    """SciPy's distances in float64; it has no dot product."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    return np.einsum("qd,nd->qn", x, y) if metric == "dot" else cdist(x, y, SCIPY[metric])


@pytest.mark.parametrize("metric", METRICS)
def test_reference_agrees_with_scipy(metric: str) -> None:
    x, y = normal(4, 9), normal(6, 9, seed=1)
    np.testing.assert_allclose(reference.distances(x, y, metric), independent(x, y, metric), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["numpy", "torch"])
@pytest.mark.parametrize("problem", OPERATOR.awkward, ids=str)
def test_cpu_backends_on_awkward_problems(name: str, problem: Distance) -> None:
    backend = registry.backend(registry.operator("distance"), name)
    inputs = OPERATOR.make_inputs(problem, 3)
    placed = place(inputs, OPERATOR.shapes(problem), backend.arrays, "cpu")
    for rows in (7, backend.space.default["ROWS"]):
        outputs = to_numpy(backend.run(problem, placed, {"ROWS": rows}))
        verdict = OPERATOR.compare(problem, inputs, outputs, OPERATOR.oracle(problem, inputs))
        assert verdict.ok, verdict


@LIBRARIES
@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=15, deadline=None)
@given(q=st.integers(1, 20), n=st.integers(1, 50), d=st.integers(1, 70), seed=st.integers(0, 99))
def test_any_shape_agrees_with_scipy(library, metric: str, q: int, n: int, d: int, seed: int) -> None:
    x, y = normal(q, d, seed=seed), normal(n, d, seed=seed + 100)
    found = np.asarray(distance(library(x), library(y), metric))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, independent(x, y, metric), rtol=1e-5, atol=1e-5 * np.sqrt(d))


@DTYPES
@pytest.mark.parametrize("metric", METRICS)
def test_half_precision_inputs_give_float32_sums_of_what_they_hold(metric: str, dtype) -> None:
    """A sum in half precision would be off by D / 2 of its epsilons, some 3 %."""
    x, y = (np.abs(normal(4, 300, seed=seed)) for seed in (0, 1))
    given_x, given_y = (
        (array.astype(dtype) if isinstance(dtype, type) else torch.from_numpy(array).to(dtype)) for array in (x, y)
    )  # fmt: skip
    found = distance(given_x, given_y, metric)
    held_x, held_y = (array.float().numpy() if isinstance(array, torch.Tensor) else array for array in (given_x, given_y))
    assert str(found.dtype).removeprefix("torch.") == "float32"
    np.testing.assert_allclose(np.asarray(found), independent(held_x, held_y, metric), rtol=3e-6, atol=3e-6)


@pytest.mark.parametrize("data", get_args(Data))
def test_inputs_are_numbers_that_the_dtype_has(data) -> None:
    for dtype in ("float16", "bfloat16"):
        problem = Distance(q=3, n=5, d=7, dtype=dtype, data=data)
        inputs = OPERATOR.make_inputs(problem, 0)
        placed = place(inputs, OPERATOR.shapes(problem), "torch", "cpu")
        for name, array in inputs.items():
            assert str(placed[name].dtype) == f"torch.{dtype}"
            np.testing.assert_array_equal(placed[name].float().numpy(), array.astype(np.float32))


def test_shapes_of_results_follow_those_of_inputs() -> None:
    pair, rows, more = normal(5), normal(3, 5), normal(4, 5)
    assert [distance(a, b).shape for a, b in ((pair, pair), (pair, rows), (rows, pair), (rows, more))] == [(), (3,), (3,), (3, 4)]


def test_course_names() -> None:
    x, y = np.array([3.0, 4.0], np.float32), np.array([0.0, 1.0], np.float32)
    assert distance_cosine(x, y) == pytest.approx(1 - 4 / 5)
    assert distance_l2(x, y) == pytest.approx(np.sqrt(18))
    assert distance_dot(x, y) == pytest.approx(4)
    assert distance_manhattan(x, y) == pytest.approx(6)


@LIBRARIES
def test_zero_vector_has_cosine_distance_one(library) -> None:
    x = np.array([[0, 0, 0], [1, 2, 3]], np.float32)
    np.testing.assert_allclose(distance(library(x), library(x), "cosine"), [[1, 1], [1, 0]], atol=1e-6)


@LIBRARIES
def test_offset_costs_no_digits_of_l2(library) -> None:
    x, y = (normal(12, 64, seed=seed) + np.float32(1e4) for seed in (0, 1))
    np.testing.assert_allclose(distance(library(x), library(y), "l2"), independent(x, y, "l2"), rtol=2e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_nan_reaches_its_own_distances_only(metric: str) -> None:
    y = normal(5, 4)
    y[2, 1] = np.nan
    assert np.isnan(distance(normal(4), y, metric)).tolist() == [False, False, True, False, False]


@LIBRARIES
@pytest.mark.parametrize(
    ("metric", "expected"), [("l2", [np.nan, np.inf]), ("l1", [np.nan, np.inf]), ("dot", [np.inf, -np.inf]), ("cosine", [np.nan, np.nan])]
)
def test_infinities_follow_ieee_arithmetic(library, metric: str, expected: list[float]) -> None:
    x, y = np.array([np.inf, 1], np.float32), np.array([[np.inf, 2], [-3, 2]], np.float32)
    np.testing.assert_array_equal(np.asarray(distance(library(x), library(y), metric)), np.array(expected, np.float32))


@LIBRARIES
@pytest.mark.parametrize("metric", METRICS)
def test_squares_that_float32_cannot_hold(library, metric: str) -> None:
    """Beyond 1.8e19 they overflow, below 1e-19 they are lost; l1 squares nothing."""
    large, small = np.full(2, 1e20, np.float32), np.full(2, 1e-25, np.float32)
    far = {"l2": np.inf, "l1": 4e20, "dot": -np.inf, "cosine": np.nan}
    near = {"l2": 0, "l1": 4e-25, "dot": 0, "cosine": 1}
    found = [float(distance(library(values), library(-values), metric)) for values in (large, small)]
    np.testing.assert_allclose(found, [far[metric], near[metric]], rtol=1e-6)


@LIBRARIES
def test_input_that_is_not_contiguous(library) -> None:
    wide = normal(8, 10)
    x, y = library(wide)[::2, ::3], library(wide)[1::2, ::3]
    np.testing.assert_array_equal(distance(x, y), distance(library(wide[::2, ::3].copy()), library(wide[1::2, ::3].copy())))
    np.testing.assert_allclose(distance(library(wide).T, library(wide).T), independent(wide.T, wide.T, "l2"), atol=1e-5)


@LIBRARIES
def test_no_rows_give_no_distances(library) -> None:
    none, some = library(normal(0, 3)), library(normal(4, 3))
    assert [tuple(distance(*pair).shape) for pair in ((none, some), (some, none), (none, none), (none, some[0]))] == [
        (0, 4),
        (4, 0),
        (0, 0),
        (0,),
    ]


@pytest.mark.parametrize(
    ("x", "y", "metric", "message"),
    [
        (normal(3), normal(4), "l2", r"x: shape \[3\] does not go with y of shape \[4\]"),
        (normal(3).astype(np.float64), normal(3), "l2", "x: dtype float64, .* convert it to float32 or float16$"),
        (torch.zeros(3).double(), torch.zeros(3), "l2", "x: dtype float64, .* convert it to float32 or float16 or bfloat16$"),
        (normal(3).astype(np.float16), normal(3), "l2", "x is of dtype float16 and y of float32"),
        (normal(3), torch.zeros(3, dtype=torch.int32), "l2", "y: dtype int32"),
        (normal(2, 2, 3), normal(3), "l2", r"x: shape \[2, 2, 3\]"),
        (normal(0), normal(0), "l2", r"x: shape \[0\]"),
        (normal(3), normal(3), "hamming", "metric: 'hamming' is not one of cosine, l2, dot, l1"),
        (normal(3), torch.zeros(3), "l2", "x is on numpy and y on torch cpu"),
        ([1.0], normal(1), "l2", "x: list is not an array"),
    ],
)
def test_what_is_refused(x, y, metric: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        distance(x, y, metric)


def test_block_of_another_backend_is_refused() -> None:
    with pytest.raises(BadInput, match="the numpy backend has ROWS"):
        distance(normal(3), normal(3), block={"BLOCK_N": 64})


def test_compare_finds_one_wrong_value() -> None:
    problem = Distance(q=2, n=3, d=4)
    inputs = OPERATOR.make_inputs(problem, 0)
    expected = OPERATOR.oracle(problem, inputs)
    wrong = expected["distances"].astype(np.float32)
    assert OPERATOR.compare(problem, inputs, {"distances": wrong}, expected).ok
    wrong[1, 2] *= 1.001
    verdict = OPERATOR.compare(problem, inputs, {"distances": wrong}, expected)
    assert not verdict.ok and verdict.error > 1 and "[1, 2]" in verdict.message


@pytest.mark.parametrize("problem", [Distance(q=1, n=10**6, d=100), Distance(q=3000, n=3000, d=100), Distance(q=0, n=4, d=3)], ids=str)
def test_part_of_a_large_problem_is_checked(problem: Distance) -> None:
    assert OPERATOR.part is not None
    ids = {"x": np.arange(problem.q, dtype=np.float32), "y": np.arange(problem.n, dtype=np.float32)}
    whole = {name: np.broadcast_to(rows[:, None], (len(rows), problem.d)) for name, rows in ids.items()}
    outputs = {"distances": np.abs(ids["x"][:, None] - ids["y"]) * np.sqrt(np.float32(problem.d))}
    smaller, inputs, some = OPERATOR.part(problem, whole, outputs)
    assert smaller.q * smaller.n * smaller.d <= 1 << 26 and min(smaller.q, 1) == min(problem.q, 1)
    assert OPERATOR.compare(smaller, inputs, some, OPERATOR.oracle(smaller, inputs)).ok


def test_compare_finds_poison() -> None:
    problem = Distance(q=1, n=2, d=4)
    inputs = OPERATOR.make_inputs(problem, 0)
    verdict = OPERATOR.compare(problem, inputs, {"distances": np.full((1, 2), np.nan)}, OPERATOR.oracle(problem, inputs))
    assert not verdict.ok and verdict.error == np.inf


@pytest.mark.parametrize("space", [TRITON, CUPY], ids=["triton", "cupy"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("q", "n", "d"), [(1, 99, 8), (99, 99, 8), (99, 9, LONG + 1)])
def test_default_block_is_valid_among_few(space, metric, dtype, q: int, n: int, d: int) -> None:
    problem = Distance(metric=metric, q=q, n=n, d=d, dtype=dtype)
    valid = [block for block, reason in space.blocks(problem) if reason is None]
    assert dict(space.default) in valid and len(valid) <= 40


def test_blocks_that_cannot_work_are_told() -> None:
    differences, products = Distance(q=99, n=99, d=8, metric="l1"), Distance(q=99, n=99, d=8, metric="dot")
    assert "64 threads" in str(TRITON.rule(differences, {**TRITON.default, "BLOCK_N": 64, "BLOCK_Q": 64, "num_warps": 2}))
    assert "PASSES = 2" in str(TRITON.rule(products, {**TRITON.default, "PASSES": 2}))
    assert "256 results a thread" in str(TRITON.rule(products, {**TRITON.default, "BLOCK_N": 256, "num_warps": 4}))
    assert [space.rule(Distance(d=3, dtype="bfloat16"), dict(space.default)) for space in (NUMPY, CUPY)] == [
        "NumPy has no bfloat16",
        "CuPy has no bfloat16",
    ]


def test_few_long_pairs_are_shared_and_nothing_else() -> None:
    assert shared(Distance(q=1, n=1, d=LONG + 1)) and shared(Distance(q=64, n=64, d=LONG + 1))
    assert not shared(Distance(q=1, n=PAIRS + 1, d=LONG + 1)) and not shared(Distance(q=1, n=1, d=LONG))
    assert tiled(Distance(q=65, n=64, d=LONG + 1)) and not tiled(Distance(q=64, n=64, d=LONG + 1))


@pytest.mark.parametrize(
    ("d", "size", "pointers", "expected"),
    [(128, 4, (256, 512), 4), (128, 2, (256,), 8), (2, 4, (256,), 2), (127, 4, (256,), 1), (128, 4, (256, 8), 2), (12, 2, (256,), 4)],
)
def test_width_of_a_load_divides_rows_and_pointers(d: int, size: int, pointers: tuple[int, ...], expected: int) -> None:
    assert vector(d, size, *pointers) == expected
    assert lanes(d, expected) == min(32, 1 << (-(-d // expected) - 1).bit_length())


def test_bytes_and_rate_of_half_precision() -> None:
    wide, half = (OPERATOR.cost(Distance(metric="dot", q=8, n=9, d=100, dtype=dtype)) for dtype in ("float32", "bfloat16"))
    assert wide.bytes - half.bytes == 2 * 17 * 100 and (wide.rate, half.rate) == ("fp32", "bf16")
    assert OPERATOR.cost(Distance(metric="l2", d=3, dtype="float16")).rate == "fp32"
    assert OPERATOR.memory(Distance(n=9, d=100, dtype="float16")).device < OPERATOR.memory(Distance(n=9, d=100)).device


@pytest.mark.parametrize(
    ("peer", "metric"),
    [("scipy cdist", "l2"), ("scipy cdist", "l1"), ("scipy cdist", "cosine"), ("torch.cdist", "l2"), ("torch.cdist", "l1")],
)
def test_peers_agree(peer: str, metric) -> None:
    problem = Distance(metric=metric, q=3, n=5, d=7)
    inputs = OPERATOR.make_inputs(problem, 0)
    outputs = OPERATOR.peers[peer].call(problem, place(inputs, OPERATOR.shapes(problem), "torch", "cpu"))
    np.testing.assert_allclose(outputs["distances"], OPERATOR.oracle(problem, inputs)["distances"], rtol=1e-5)


@pytest.mark.parametrize("peer", ["scipy cdist", "torch.cdist", "torch.mm"])
def test_peers_say_what_they_lack(peer: str) -> None:
    problem = Distance(metric="l2" if peer == "torch.mm" else "dot", d=2)
    with pytest.raises(BadInput, match=f"peer {peer}: has no {problem.metric}"):
        OPERATOR.peers[peer].call(problem, place(OPERATOR.make_inputs(problem, 0), OPERATOR.shapes(problem), "torch", "cpu"))


INTERPRETED = """
import os, sys
import torch
from kernels import registry
from kernels.arrays import place, poisoned, to_numpy
from kernels.distance import Distance

operator = registry.operator("distance")
backend = registry.backend(operator, "triton")
backend.module.SCRATCH = 1  # operands by columns a chunk of 256 rows at a time
problems = [problem for problem in operator.awkward if problem.dtype == "bfloat16"]
for problem in [*problems, Distance(q=9, n=600, d=3, metric="l1"), Distance(q=300, n=9, d=5), Distance(q=300, n=9, d=5, metric="cosine")]:
    inputs = operator.make_inputs(problem, 3)
    with poisoned("torch"):
        outputs = to_numpy(backend.run(problem, place(inputs, operator.shapes(problem), "torch", "cpu"), dict(backend.space.default)))
    verdict = operator.compare(problem, inputs, outputs, operator.oracle(problem, inputs))
    assert verdict.ok, (problem, verdict)
"""
"""bfloat16 tensors, and operands that do not fit the scratch."""


def test_triton_in_the_interpreter_on_bfloat16_and_chunks() -> None:
    done = run_python("-c", INTERPRETED, TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stdout + done.stderr


COMPILED = """
from kernels import registry
from kernels.arrays import meta
from kernels.cross import compiling
from kernels.distance import Distance
from kernels.resources import of_triton

operator = registry.operator("distance")
backend = registry.backend(operator, "triton")
for metric, dtype in (("l2", "float32"), ("l1", "float16"), ("dot", "float32"), ("cosine", "bfloat16")):
    problem = Distance(metric=metric, dtype=dtype, q=99, n=999, d=64)
    with compiling(90) as compiled:
        backend.run(problem, meta(operator.shapes(problem)), dict(backend.space.default))
    kernel = compiled[-1].kernel
    words = ("ld.global.v4", "wgmma.mma_async", "tf32")
    print(metric, compiled[-1].name, of_triton(kernel, 90).spills, *(kernel.asm["ptx"].count(word) for word in words))
"""


def test_triton_compiles_to_wide_loads_and_tensor_cores() -> None:
    """A tile of differences loads 4 (operands) x 4 (columns) numbers at a time, 12 times a step; products are on tensor cores."""
    done = run_python("-c", COMPILED)
    assert done.returncode == 0, done
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert rows["l2"] == rows["l1"] == ["distance_differences", "0", "12", "0", "0"]
    assert all(rows[metric][0] == "distance_products" and int(rows[metric][3]) > 0 for metric in ("dot", "cosine"))
    assert int(rows["dot"][4]) > 0 and int(rows["cosine"][4]) == 0


@pytest.mark.parametrize("operator", ["distance", "knn", *OUTSIDE], ids=lambda word: Path(word).name)
def test_triton_in_the_interpreter(operator: str) -> None:
    done = run_python("tests/kernels/interpret.py", operator, TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("architecture", ["sm_75", "sm_90"])
@pytest.mark.parametrize("operator", ["distance", "knn"])
def test_cuda_sources_compile_without_a_gpu(operator: str, architecture: str) -> None:
    found = registry.operator(operator)
    backend = registry.backend(found, "cupy")
    problems = [problem for problem in found.awkward if problem.dtype != "bfloat16"]
    sources = {source for problem in problems for source in backend.module.sources(problem, dict(backend.space.default))}
    for source in sources:
        cubin, resources = cuda.compile_cubin(source, architecture)
        assert cubin.startswith(b"\x7fELF")
        assert set(resources) == set(source.kernels)
        assert all(report["registers"] > 0 and report["spills"] == 0 for report in resources.values()), (source.options, resources)


def test_cubin_name_depends_on_all_that_determines_it() -> None:
    source = cuda.CudaSource('extern "C" __global__ void f() {}', ("-DA=1",), ("f",))
    others = [(cuda.CudaSource(source.code + " ", source.options, ("f",)), "sm_90"), (cuda.CudaSource(source.code, (), ("f",)), "sm_90")]
    names = {cuda.cubin_name(*pair) for pair in [(source, "sm_90"), (source, "sm_80"), *others]}
    assert len(names) == 4 and cuda.cubin_name(source, "sm_90") in names


def test_unknown_architecture_is_named() -> None:
    with pytest.raises(BadInput, match="architecture sm_1: unknown to NVRTC"):
        cuda.compile_cubin(cuda.CudaSource("", (), ()), "sm_1")


def test_source_that_does_not_compile_shows_the_log() -> None:
    with pytest.raises(RuntimeError, match="undefined"):
        cuda.compile_cubin(cuda.CudaSource('extern "C" __global__ void f() { undefined(); }', (), ("f",)), "sm_90")


@pytest.mark.parametrize("name", ["torch", "triton", "cupy"])
def test_gpu_backends_on_awkward_problems(name: str) -> None:
    require("gpu")
    from tests.kernels.gpu import check_awkward

    check_awkward("distance", name)
