"""Distances against their definitions and SciPy, and what the public functions refuse."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from analysis.cli import BadInput
from kernels import cuda, registry
from kernels.distance import (
    OPERATOR,
    Distance,
    distance,
    distance_cosine,
    distance_dot,
    distance_l2,
    distance_manhattan,
    reference,
)
from kernels.distance.space import CUPY, TRITON
from kernels.metrics import METRICS
from tests.needs import require

ROOT = Path(__file__).parents[2]
SCIPY = {"l2": "euclidean", "l1": "cityblock", "cosine": "cosine"}
OUTSIDE = [str(ROOT / "tests" / "operators" / "softmax")]


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
    given_inputs = {key: torch.from_numpy(array) for key, array in inputs.items()} if name == "torch" else inputs
    for rows in (7, backend.space.default["ROWS"]):
        outputs = {key: np.asarray(array) for key, array in backend.run(problem, given_inputs, {"ROWS": rows}).items()}
        verdict = OPERATOR.compare(problem, inputs, outputs, OPERATOR.oracle(problem, inputs))
        assert verdict.ok, verdict


@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=15, deadline=None)
@given(q=st.integers(1, 20), n=st.integers(1, 50), d=st.integers(1, 70), seed=st.integers(0, 99))
def test_any_shape_agrees_with_scipy(library, metric: str, q: int, n: int, d: int, seed: int) -> None:
    x, y = normal(q, d, seed=seed), normal(n, d, seed=seed + 100)
    found = np.asarray(distance(library(x), library(y), metric))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, independent(x, y, metric), rtol=1e-5, atol=1e-5 * np.sqrt(d))


def test_shapes_of_results_follow_those_of_inputs() -> None:
    pair, rows, more = normal(5), normal(3, 5), normal(4, 5)
    assert [distance(a, b).shape for a, b in ((pair, pair), (pair, rows), (rows, pair), (rows, more))] == [(), (3,), (3,), (3, 4)]


def test_course_names() -> None:
    x, y = np.array([3.0, 4.0], np.float32), np.array([0.0, 1.0], np.float32)
    assert distance_cosine(x, y) == pytest.approx(1 - 4 / 5)
    assert distance_l2(x, y) == pytest.approx(np.sqrt(18))
    assert distance_dot(x, y) == pytest.approx(4)
    assert distance_manhattan(x, y) == pytest.approx(6)


@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_zero_vector_has_cosine_distance_one(library) -> None:
    x = np.array([[0, 0, 0], [1, 2, 3]], np.float32)
    np.testing.assert_allclose(distance(library(x), library(x), "cosine"), [[1, 1], [1, 0]], atol=1e-6)


@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_offset_costs_no_digits_of_l2(library) -> None:
    x, y = (normal(12, 64, seed=seed) + np.float32(1e4) for seed in (0, 1))
    np.testing.assert_allclose(distance(library(x), library(y), "l2"), independent(x, y, "l2"), rtol=2e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_nan_reaches_its_own_distances_only(metric: str) -> None:
    y = normal(5, 4)
    y[2, 1] = np.nan
    assert np.isnan(distance(normal(4), y, metric)).tolist() == [False, False, True, False, False]


def test_input_that_is_not_contiguous() -> None:
    wide = normal(8, 10)
    np.testing.assert_array_equal(distance(wide[::2, ::3], wide[1::2, ::3]), distance(wide[::2, ::3].copy(), wide[1::2, ::3].copy()))


@pytest.mark.parametrize(
    ("x", "y", "metric", "message"),
    [
        (normal(3), normal(4), "l2", r"x: shape \[3\] does not go with y of shape \[4\]"),
        (normal(3).astype(np.float64), normal(3), "l2", "x: dtype float64"),
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
@pytest.mark.parametrize("problem", [Distance(q=1, n=99, d=8), Distance(q=99, n=99, d=8), Distance(q=99, n=99, d=8, metric="dot")], ids=str)
def test_default_block_is_valid_among_few(space, problem: Distance) -> None:
    valid = [block for block, reason in space.blocks(problem) if reason is None]
    assert dict(space.default) in valid and len(valid) <= 40


@pytest.mark.parametrize("operator", ["distance", "knn", *OUTSIDE], ids=lambda word: Path(word).name)
def test_triton_in_the_interpreter(operator: str) -> None:
    command = [sys.executable, str(Path(__file__).with_name("interpret.py")), operator]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("architecture", ["sm_75", "sm_90"])
@pytest.mark.parametrize("operator", ["distance", "knn"])
def test_cuda_sources_compile_without_a_gpu(operator: str, architecture: str) -> None:
    found = registry.operator(operator)
    backend = registry.backend(found, "cupy")
    sources = {source for problem in found.awkward for source in backend.module.sources(problem, dict(backend.space.default))}
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
