"""Matrix products against NumPy's in float64, what the tolerance finds, and what the public function refuses."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.cli import BadInput
from kernels import cuda, registry
from kernels.arrays import place, to_numpy
from kernels.gemm import OPERATOR, PRECISIONS, Gemm, gemm, reference
from kernels.gemm.space import CUPY, TRITON
from kernels.gemm.torch_impl import precisely
from tests.commands import run_python
from tests.needs import require

ROOT = Path(__file__).parents[2]
DTYPE = {precision: dtype for dtype, precisions in PRECISIONS.items() for precision in precisions}
EVERY = [pytest.param(precision, id=precision) for precision in DTYPE]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def problem_of(precision: str, m: int = 9, n: int = 11, k: int = 40, **fields) -> Gemm:
    return Gemm(m=m, n=n, k=k, precision=precision, dtype=DTYPE[precision], **fields)


def test_reference_is_the_sum_over_k() -> None:
    a, b = normal(3, 5), normal(5, 4, seed=1)
    sums = [[sum(float(a[m, k]) * float(b[k, n]) for k in range(5)) for n in range(4)] for m in range(3)]
    np.testing.assert_allclose(reference.product(a, b), sums, rtol=1e-12)


@pytest.mark.parametrize("name", ["numpy", "torch"])
@pytest.mark.parametrize("problem", OPERATOR.awkward, ids=str)
def test_cpu_backends_on_awkward_problems(name: str, problem: Gemm) -> None:
    backend = registry.backend(registry.operator("gemm"), name)
    inputs = OPERATOR.make_inputs(problem, 3)
    placed = place(inputs, OPERATOR.shapes(problem), backend.arrays, "cpu")
    outputs = backend.run(problem, placed, {})
    assert outputs["c"].dtype == placed["a"].dtype
    verdict = OPERATOR.compare(problem, inputs, to_numpy(outputs), OPERATOR.oracle(problem, inputs))
    assert verdict.ok, verdict


@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
@settings(max_examples=25, deadline=None)
@given(m=st.integers(0, 40), n=st.integers(0, 40), k=st.integers(0, 90), half=st.booleans(), seed=st.integers(0, 99))
def test_any_shape_agrees_with_numpy(library, m: int, n: int, k: int, half: bool, seed: int) -> None:
    dtype = np.float16 if half else np.float32
    a, b = (normal(*shape, seed=seed + at).astype(dtype) for at, shape in enumerate(((m, k), (k, n))))
    found = np.asarray(gemm(library(a), library(b)))
    assert found.dtype == dtype and found.shape == (m, n)
    exact = np.einsum("mk,kn->mn", a.astype(np.float64), b.astype(np.float64))
    np.testing.assert_allclose(found, exact, rtol=1e-3 if half else 1e-6, atol=1e-2 if half else 1e-5)


def test_bfloat16_stays_bfloat16() -> None:
    a, b = (torch.from_numpy(normal(6, 6, seed=seed)).bfloat16() for seed in (0, 1))
    found = gemm(a, b)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, (a.double() @ b.double()).bfloat16())


def test_nan_and_infinities_reach_their_own_rows_and_columns_only() -> None:
    a, b = normal(4, 3), normal(3, 5, seed=1)
    a[1, 2], b[0, 4] = np.nan, np.inf
    touched = ~np.isfinite(gemm(a, b))
    expected = np.zeros((4, 5), bool)
    expected[1] = expected[:, 4] = True
    np.testing.assert_array_equal(touched, expected)


def test_inputs_that_are_not_contiguous() -> None:
    wide = normal(12, 12)
    np.testing.assert_array_equal(gemm(wide[::2, ::3], wide.T[:4, 1::2]), gemm(wide[::2, ::3].copy(), wide.T[:4, 1::2].copy()))


@pytest.mark.parametrize(
    ("a", "b", "precision", "message"),
    [
        (normal(2, 3), normal(4, 2), None, r"a: shape \[2, 3\] does not go with b of shape \[4, 2\]"),
        (normal(3), normal(3, 2), None, r"a: shape \[3\]; give a matrix"),
        (normal(2, 3), normal(1, 3, 2), None, r"b: shape \[1, 3, 2\]; give a matrix"),
        (normal(2, 3).astype(np.float64), normal(3, 2), None, "a: dtype float64, shape .*float32 or float16 or bfloat16"),
        (normal(2, 3), normal(3, 2).astype(np.float16), None, "a is of dtype float32 and b of float16"),
        (normal(2, 3), torch.zeros(3, 2), None, "a is on numpy and b on torch cpu"),
        (normal(2, 3), [[1.0]], None, "b: list is not an array"),
        (normal(2, 3), normal(3, 2), "fp16", "precision: 'fp16' does not go with float32 inputs; one of fp32, tf32"),
        (normal(2, 3).astype(np.float16), normal(3, 2).astype(np.float16), "tf32", "one of fp16"),
    ],
)
def test_what_is_refused(a, b, precision, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        gemm(a, b, precision)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"m": -1, "n": 1, "k": 1}, "m: -1 is not from 0"),
        ({"m": 1, "n": 1 << 31, "k": 1}, "n: 2147483648 is not from 0 to"),
        ({"m": 1, "n": 1, "k": 1, "precision": "bf16"}, "precision: 'bf16' does not go with float32"),
    ],
)
def test_problems_that_are_refused(fields, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Gemm(**fields)


@pytest.mark.parametrize("precision", EVERY)
def test_compare_finds_one_product_left_out(precision: str) -> None:
    """Of 500 products in a sum, in one element: the error of a loop that is one step short."""
    problem = problem_of(precision, k=500)
    inputs = OPERATOR.make_inputs(problem, 1)
    expected = OPERATOR.oracle(problem, inputs)
    found = expected["c"].astype(np.float16 if precision == "fp16" else np.float32)
    assert OPERATOR.compare(problem, inputs, {"c": found}, expected).ok
    found[2, 3] -= inputs["a"][2, 0] * inputs["b"][0, 3]
    verdict = OPERATOR.compare(problem, inputs, {"c": found}, expected)
    assert not verdict.ok and verdict.error > 1 and "c[2, 3]" in verdict.message


def test_tolerance_tells_tf32_from_fp32() -> None:
    """Operands cut as TF32 cuts them pass as tf32, and do not as fp32."""
    problem = problem_of("fp32", m=30, n=30, k=300)
    inputs = OPERATOR.make_inputs(problem, 1)
    a, b = ((inputs[name].view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32) for name in ("a", "b"))
    expected, cut = OPERATOR.oracle(problem, inputs), {"c": a.astype(np.float64) @ b}
    assert OPERATOR.compare(dataclasses.replace(problem, precision="tf32"), inputs, cut, expected).ok
    assert not OPERATOR.compare(problem, inputs, cut, expected).ok


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_compare_finds_poison_and_a_wrong_shape(poison: float) -> None:
    problem = problem_of("fp32")
    inputs = OPERATOR.make_inputs(problem, 0)
    expected = OPERATOR.oracle(problem, inputs)
    assert OPERATOR.compare(problem, inputs, {"c": np.full((9, 11), poison)}, expected).error == np.inf
    assert "shape [11, 9]" in OPERATOR.compare(problem, inputs, {"c": np.zeros((11, 9))}, expected).message


def test_a_result_beyond_float16_is_infinite() -> None:
    a = np.full((1, 2), 200, np.float16)
    assert gemm(a, a.T).tolist() == [[np.inf]]
    problem = problem_of("fp16", m=1, n=1, k=2)
    inputs = {"a": a, "b": a.T}
    assert OPERATOR.compare(problem, inputs, {"c": np.array([[np.inf]])}, OPERATOR.oracle(problem, inputs)).ok


@pytest.mark.parametrize(
    "problem", [problem_of("fp32", 3000, 2000, 600), problem_of("fp32", 5, 100_000, 800), problem_of("fp32", 0, 4, 3)], ids=str
)
def test_part_of_a_large_problem_is_checked(problem: Gemm) -> None:
    assert OPERATOR.part is not None
    inputs = {"a": np.broadcast_to(np.arange(problem.m, dtype=np.float32)[:, None], (problem.m, problem.k))}
    inputs["b"] = np.broadcast_to(np.arange(problem.n, dtype=np.float32), (problem.k, problem.n))
    outputs = {"c": problem.k * np.outer(np.arange(problem.m), np.arange(problem.n))}
    smaller, some, found = OPERATOR.part(problem, inputs, outputs)
    assert smaller.m * smaller.n * smaller.k <= 1 << 28 and min(smaller.m, 1) == min(problem.m, 1)
    assert OPERATOR.compare(smaller, some, found, OPERATOR.oracle(smaller, some)).ok


def test_inputs_of_bfloat16_are_numbers_that_it_has() -> None:
    for array in OPERATOR.make_inputs(problem_of("bf16"), 4).values():
        tensor = torch.from_numpy(array)
        assert torch.equal(tensor.bfloat16().float(), tensor) and len(tensor.unique()) > 50


def test_precision_of_others_is_restored() -> None:
    before = torch.backends.cuda.matmul.allow_tf32
    for allowed in (True, False):
        torch.backends.cuda.matmul.allow_tf32 = allowed
        with precisely("fp32"):
            assert not torch.backends.cuda.matmul.allow_tf32
        with pytest.raises(RuntimeError), precisely("tf32"):
            assert torch.backends.cuda.matmul.allow_tf32
            raise RuntimeError
        assert torch.backends.cuda.matmul.allow_tf32 == allowed
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize("precision", EVERY)
@pytest.mark.parametrize("space", [TRITON, CUPY], ids=["triton", "cupy"])
def test_default_block_is_valid_among_few(space, precision: str) -> None:
    problem = problem_of(precision)
    valid = [block for block, reason in space.blocks(problem) if reason is None]
    if space is CUPY and precision == "bf16":
        assert not valid
    else:
        assert dict(space.default) in valid and len(valid) <= 96


@pytest.mark.parametrize(
    ("precision", "block", "reason"),
    [
        ("fp16", {"BLOCK_M": 256, "BLOCK_N": 256}, "256 accumulators a thread"),
        ("tf32", {"BLOCK_N": 256, "BLOCK_K": 64}, "3 stages of 98,304 B"),
        ("fp32", {"BLOCK_K": 64, "BLOCK_M": 64, "BLOCK_N": 64}, "in registers"),
        ("fp16", {"BLOCK_K": 8}, "at least 16"),
    ],
)
def test_blocks_that_cannot_work(precision: str, block: dict[str, int], reason: str) -> None:
    assert reason in str(TRITON.rule(problem_of(precision), {**TRITON.default, **block}))


DESCRIPTORS = """
import sys
from kernels.gemm import triton_impl
from tests.kernels.interpret import main
if sys.argv.pop() == "descriptors":
    triton_impl.by_descriptors = lambda precision: True
sys.exit(main())
"""


@pytest.mark.parametrize("way", ["pointers", "descriptors"])
def test_triton_in_the_interpreter(way: str) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", DESCRIPTORS, "gemm", way], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


CROSS = """
import sys
from kernels import registry
from kernels.arrays import meta
from kernels.cross import compiling
from kernels.gemm import Gemm
operator = registry.operator("gemm")
backend = registry.backend(operator, "triton")
for size in (4096, 4095):
    for precision, dtype in (("fp32", "float32"), ("tf32", "float32"), ("fp16", "float16")):
        problem = Gemm(m=size, n=size, k=size, precision=precision, dtype=dtype)
        with compiling(int(sys.argv[1])) as kernels:
            backend.run(problem, meta(operator.shapes(problem)), dict(backend.space.default))
        for one in kernels:
            ptx = one.kernel.asm["ptx"]
            words = ("wgmma", "mma.sync", "fma.rn.f32", "cp.async.bulk.tensor", "cp.async.cg")
            print(size, precision, one.name, one.kernel.hash, *(word for word in words if word in ptx))
"""


@pytest.mark.parametrize(
    ("architecture", "kernel", "product", "load"),
    [(80, "gemm_pointers", "mma.sync", "cp.async.cg"), (90, "gemm_descriptors", "wgmma", "cp.async.bulk.tensor")],
)
def test_machine_code(architecture: int, kernel: str, product: str, load: str, tmp_path: Path) -> None:
    """Tensor cores fed asynchronously, in 16-byte pieces, whether or not a size is a multiple of anything: one compilation for both."""
    done = run_python("-c", CROSS, str(architecture), TRITON_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done
    lines = [line.split() for line in done.stdout.splitlines()]
    products = [line for line in lines if line[2] != "transpose"]
    assert len(products) == 6 and len(lines) == 8
    assert [line[3] for line in products[:3]] == [line[3] for line in products[3:]]
    for _, precision, name, _, *words in products:
        expected = ("gemm_pointers", "fma.rn.f32", "cp.async.cg") if precision == "fp32" else (kernel, product, load)
        assert name == expected[0] and set(expected[1:]) <= set(words)


@pytest.mark.parametrize("architecture", ["sm_75", "sm_90"])
def test_cuda_sources_compile_without_a_gpu(architecture: str) -> None:
    backend = registry.backend(registry.operator("gemm"), "cupy")
    for precision in ("fp32", "fp16"):
        [source] = backend.module.sources(problem_of(precision), dict(backend.space.default))
        cubin, resources = cuda.compile_cubin(source, architecture)
        assert cubin.startswith(b"\x7fELF") and resources["gemm_tile"]["spills"] == 0


def check_on_gpu(problem: Gemm) -> None:
    """One problem by Triton on the GPU at the default block, against the oracle."""
    backend = registry.backend(registry.operator("gemm"), "triton")
    inputs = OPERATOR.make_inputs(problem, 5)
    outputs = to_numpy(backend.run(problem, place(inputs, OPERATOR.shapes(problem), backend.arrays, "gpu"), dict(backend.space.default)))
    assert OPERATOR.part is not None
    smaller, some, found = OPERATOR.part(problem, inputs, outputs)
    verdict = OPERATOR.compare(smaller, some, found, OPERATOR.oracle(smaller, some))
    assert verdict.ok, (str(problem), verdict)


@pytest.mark.parametrize("name", ["torch", "triton", "cupy"])
def test_gpu_backends_on_awkward_problems(name: str) -> None:
    require("gpu")
    from tests.kernels.gpu import check_awkward

    check_awkward("gemm", name)


@pytest.mark.parametrize("precision", EVERY)
def test_gpu_sizes_that_take_several_tiles_and_rounds(precision: str) -> None:
    require("gpu")
    for m, n, k in ((1000, 2011, 777), (4096, 4096, 512), (3, 70_000, 100), (70_001, 65, 31)):
        check_on_gpu(problem_of(precision, m, n, k))


def test_gpu_product_of_more_than_2_31_elements() -> None:
    require("gpu")
    m, n = 50_000, 45_000
    a, b = torch.randn(m, 8, device="cuda").half(), torch.randn(8, n, device="cuda").half()
    found = gemm(a, b)
    rows = torch.tensor([0, m // 2, m - 1], device="cuda")
    torch.testing.assert_close(found[rows], a[rows] @ b, rtol=2e-3, atol=2e-3)


def test_gpu_memory_that_starts_at_odd_addresses() -> None:
    require("gpu")
    line = torch.randn(64 * 64 + 1, device="cuda").half()
    a = line[1:].view(64, 64)
    torch.testing.assert_close(gemm(a, a), a @ a, rtol=2e-3, atol=2e-2)
