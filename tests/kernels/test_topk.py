"""Top-k against sorting by value and id: ties, zeros, NaN, padding, every dtype, long rows, contrived data, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.cli import BadInput
from kernels import registry
from kernels.arrays import place, to_numpy
from kernels.topk import COLUMNS, OPERATOR, TopK, peers, reference, topk
from kernels.topk.space import CUPY, TRITON
from tests.commands import run_python
from tests.needs import require

LIBRARIES = pytest.mark.parametrize("library", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
LARGEST = pytest.mark.parametrize("largest", [False, True], ids=["smallest", "largest"])


def by_sorting(row: list[float], k: int, largest: bool) -> tuple[list[float], list[int]]:
    """The definition once more, by Python's sort: NaN last, then by value, then by id; padded."""

    def rank(id: int) -> tuple[bool, float, int]:
        value = row[id]
        return math.isnan(value), 0.0 if math.isnan(value) else -value if largest else value, id

    ids = sorted(range(len(row)), key=rank)[:k]
    padding = k - len(ids)
    return [row[id] for id in ids] + [-math.inf if largest else math.inf] * padding, ids + [-1] * padding


def check(values: Any, ids: Any, rows: np.ndarray, k: int, largest: bool) -> None:
    for row, found, found_ids in zip(rows, np.asarray(values, np.float64), np.asarray(ids), strict=True):
        true, true_ids = by_sorting([float(value) for value in row], k, largest)
        assert found_ids.tolist() == true_ids
        np.testing.assert_array_equal(found, true)


numbers = st.floats(width=32) | st.sampled_from([0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 1e-45, -1e-45])


@LARGEST
@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 3), columns=st.integers(0, 40), k=st.integers(1, 50), data=st.data())
def test_any_rows_agree_with_sorting(largest: bool, rows: int, columns: int, k: int, data) -> None:
    row = st.lists(numbers, min_size=columns, max_size=columns)
    values = np.array(data.draw(st.lists(row, min_size=rows, max_size=rows), label="values"), np.float32).reshape(rows, columns)
    check(*reference.topk(values, k, largest), values, k, largest)
    check(*topk(values, k, largest), values, k, largest)
    check(*topk(torch.from_numpy(values), k, largest), values, k, largest)


@pytest.mark.parametrize("name", ["numpy", "torch"])
@pytest.mark.parametrize("problem", OPERATOR.awkward, ids=str)
def test_cpu_backends_on_awkward_problems(name: str, problem: TopK) -> None:
    backend = registry.backend(registry.operator("topk"), name)
    if backend.space.rule(problem, {}):
        assert (name, problem.dtype) == ("numpy", "bfloat16")
        return
    inputs = OPERATOR.make_inputs(problem, 3)
    outputs = to_numpy(backend.run(problem, place(inputs, OPERATOR.shapes(problem), backend.arrays, "cpu"), {}))
    assert OPERATOR.compare(problem, inputs, outputs, OPERATOR.oracle(problem, inputs)).ok


@LARGEST
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_rows_and_columns_in_chunks(monkeypatch: pytest.MonkeyPatch, name: str, largest: bool) -> None:
    backend = registry.backend(registry.operator("topk"), name)
    monkeypatch.setattr(backend.module, "ELEMENTS", 64)
    problem = TopK(rows=7, columns=150, k=9, order="largest" if largest else "smallest", data="duplicates")
    inputs = OPERATOR.make_inputs(problem, 1)
    outputs = to_numpy(backend.run(problem, place(inputs, OPERATOR.shapes(problem), name, "cpu"), {}))
    check(outputs["values"], outputs["ids"], inputs["values"], 9, largest)


@LARGEST
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_values_keep_their_dtype(dtype: str, largest: bool) -> None:
    values = torch.randn(3, 100, generator=torch.Generator().manual_seed(1)).to(getattr(torch, dtype))
    found, ids = topk(values, 20, largest)
    assert found.dtype == values.dtype and ids.dtype == torch.int64
    check(found.float(), ids, values.float().numpy(), 20, largest)
    if dtype != "bfloat16":
        assert topk(values.numpy(), 20, largest)[0].dtype == dtype


@LIBRARIES
def test_one_row_as_a_vector(library) -> None:
    values, ids = topk(library(np.array([3, 1, 2, 1], np.float32)), 3)
    assert np.asarray(values).tolist() == [1, 1, 2] and np.asarray(ids).tolist() == [1, 3, 2]


@LIBRARIES
def test_input_that_is_not_contiguous(library) -> None:
    wide = np.random.default_rng(0).standard_normal((40, 6), np.float32)
    check(*topk(library(wide)[::2].T, 4), wide[::2].T, 4, False)


@LIBRARIES
@pytest.mark.parametrize("shape", [(0, 4), (2, 0), (0, 0)], ids=str)
def test_empty_inputs(library, shape: tuple[int, int]) -> None:
    values, ids = topk(library(np.empty(shape, np.float32)), 3, largest=True)
    assert tuple(values.shape) == tuple(ids.shape) == (shape[0], 3)
    assert (np.asarray(values) == -np.inf).all() and (np.asarray(ids) == -1).all()


@pytest.mark.parametrize(
    ("values", "k", "message"),
    [
        (np.zeros((2, 3), "f"), 0, "k: 0 is not a whole number from 1 to 2048"),
        (np.zeros((2, 3), "f"), 2049, "k: 2049 is not"),
        (np.zeros((2, 3), "f"), 1.5, "k: 1.5 is not"),
        (np.zeros((2, 3)), 1, "values: dtype float64"),
        (np.zeros((2, 3, 4), "f"), 1, r"values: shape \[2, 3, 4\]; give a row"),
        (np.float32(1) * np.ones((), "f"), 1, r"values: (shape \[\]|float32 is not an array)"),
        (np.broadcast_to(np.float32(1), (1, COLUMNS + 1)), 1, "with M of at most"),
        ([1.0, 2.0], 1, "values: list is not an array"),
    ],
    ids=["k0", "k2049", "k1.5", "float64", "three-dimensions", "scalar", "too-long", "list"],
)
def test_what_is_refused(values: Any, k: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        topk(values, k)


@pytest.mark.parametrize(("field", "value"), [("k", 0), ("k", 2049), ("rows", -1), ("columns", -1), ("columns", COLUMNS + 1)])
def test_a_problem_out_of_range_is_refused(field: str, value: int) -> None:
    with pytest.raises(BadInput, match=f"^here: {field}: {value} is not"):
        TopK.parse({"columns": 5, field: value}, "here")


def answer(problem: TopK) -> tuple[Any, Any, dict[str, np.ndarray]]:
    inputs = OPERATOR.make_inputs(problem, 0)
    expected = OPERATOR.oracle(problem, inputs)
    return inputs, expected, {"values": expected["values"].astype(np.float32), "ids": expected["ids"].copy()}


def other_id(outputs: dict[str, np.ndarray]) -> None:
    outputs["ids"][0, 3] = 49


def other_value(outputs: dict[str, np.ndarray]) -> None:
    outputs["values"][1, 0] = np.nextafter(outputs["values"][1, 0], np.float32(9))


def order_of_ties(outputs: dict[str, np.ndarray]) -> None:
    first = int(np.flatnonzero(np.diff(outputs["values"][0]) == 0)[0])
    outputs["ids"][0, [first, first + 1]] = outputs["ids"][0, [first + 1, first]]


def lost_column(outputs: dict[str, np.ndarray]) -> None:
    outputs["values"] = outputs["values"][:, :-1]


@pytest.mark.parametrize("spoil", [other_id, other_value, order_of_ties, lost_column])
def test_compare_finds_what_is_wrong(spoil) -> None:
    problem = TopK(rows=2, columns=50, k=12, data="duplicates")
    inputs, expected, outputs = answer(problem)
    assert OPERATOR.compare(problem, inputs, outputs, expected).ok
    spoil(outputs)
    verdict = OPERATOR.compare(problem, inputs, outputs, expected)
    assert not verdict.ok and verdict.error > 1 and verdict.message


def test_a_peer_may_order_ties_as_it_likes_but_not_invent_ids() -> None:
    problem = TopK(rows=2, columns=50, k=12, data="duplicates")
    inputs, expected, outputs = answer(problem)
    order_of_ties(outputs)
    outputs["any_ids"] = outputs.pop("ids")
    assert OPERATOR.compare(problem, inputs, outputs, expected).ok
    outputs["any_ids"][1, 1] = outputs["any_ids"][1, 0]
    assert "an id twice" in OPERATOR.compare(problem, inputs, outputs, expected).message
    outputs["any_ids"][1] = np.setdiff1d(np.arange(50), expected["ids"][1])[:12]
    assert "any_ids" in OPERATOR.compare(problem, inputs, outputs, expected).message


@LARGEST
def test_torch_topk_as_a_peer(largest: bool) -> None:
    problem = TopK(rows=3, columns=90, k=6, order="largest" if largest else "smallest", data="duplicates")
    inputs = OPERATOR.make_inputs(problem, 0)
    outputs = to_numpy(peers.torch_topk(problem, {"values": torch.from_numpy(inputs["values"])}))
    assert OPERATOR.compare(problem, inputs, outputs, OPERATOR.oracle(problem, inputs)).ok
    for undefined in (TopK(columns=9, k=3, data="nan"), TopK(columns=2, k=3)):
        with pytest.raises(BadInput, match=r"torch\.topk: does not define"):
            peers.torch_topk(undefined, {})


@pytest.mark.parametrize("problem", [TopK(rows=300, columns=1 << 20, k=5), TopK(rows=3, columns=50), TopK(rows=0, columns=5)], ids=str)
def test_part_of_a_large_problem_is_checked(problem: TopK) -> None:
    whole = {"values": np.broadcast_to(np.arange(problem.columns, dtype=np.float32), (problem.rows, problem.columns))}
    outputs = {name: np.broadcast_to(np.arange(problem.k), (problem.rows, problem.k)) for name in ("values", "ids")}
    assert OPERATOR.part is not None
    smaller, inputs, some = OPERATOR.part(problem, whole, outputs)
    assert smaller.rows == len(inputs["values"]) == len(some["ids"]) == min(problem.rows, 15)
    if smaller.columns >= smaller.k:
        assert OPERATOR.compare(smaller, inputs, some, OPERATOR.oracle(smaller, inputs)).ok


def test_outside_functions_are_called() -> None:
    problem = TopK(rows=3, columns=30, k=5, order="largest")
    inputs = OPERATOR.make_inputs(problem, 0)
    outputs = OPERATOR.signatures[0].call(topk, problem, inputs)
    assert OPERATOR.compare(problem, inputs, outputs, OPERATOR.oracle(problem, inputs)).ok


@pytest.mark.parametrize("space", [TRITON, CUPY], ids=["triton", "cupy"])
@pytest.mark.parametrize("problem", [TopK(columns=99), TopK(columns=99999), TopK(columns=99999, k=2048)], ids=str)
def test_default_block_is_valid_among_few(space, problem: TopK) -> None:
    valid = [block for block, reason in space.blocks(problem) if reason is None]
    assert dict(space.default) in valid and 2 <= len(valid) <= 24


INTERPRETED = """
import numpy as np
import torch
from kernels.packing import NONE, pack_torch
from kernels.topk import OPERATOR, TopK, triton_impl, triton_select

torch.use_deterministic_algorithms(True)  # fills what torch.empty gives, so that what is never written shows
triton_select.LEAST = 4
rng = np.random.default_rng(0)
block = {"TILE": 512, "KEYS": 16, "REGISTERS": 128}


def keys(data, shape):
    column, normal = np.arange(shape[1]), rng.standard_normal(shape)
    one_lane = np.where(column % 32 == 0, 10 - column / 32, 20) * (column < 320) + 20 * (column >= 320)
    return {
        "sorted": np.sort(normal),
        "reversed": -np.sort(normal),
        "few lanes": column % 32 + normal / 9,
        "one lane": np.where((0 < column) & (column < 5), 15, one_lane) + 0 * normal,
        "ends of segments": np.abs((column - 366.5 + 183.5) % 367 - 183.5) + 0 * normal,
        "equal": 0 * normal,
        "ties": rng.integers(0, 3, shape),
    }.get(data, normal).astype(np.float32)


def candidates(data, shape):
    packed = pack_torch(torch.from_numpy(keys(data, shape)), torch.arange(shape[1])).numpy()
    packed[:, {"padded": rng.random(shape[1]) < 0.7, "nearly empty": np.arange(shape[1]) > 2}.get(data, [])] = NONE
    return packed[:, rng.integers(0, 4, shape[1])] if data == "repeated" else packed


for rows, columns, k in ((1, 1100, 5), (1, 1100, 20)):
    for data in (
        "normal", "sorted", "reversed", "few lanes", "one lane", "ends of segments", "equal", "ties", "padded", "nearly empty", "repeated",
    ):  # fmt: skip
        packed = np.ascontiguousarray(candidates(data, (rows, columns)))
        found = triton_select.smallest(torch.from_numpy(packed), k, block).numpy()
        assert (found == np.sort(packed)[:, :k]).all(), (rows, columns, k, data)

triton_select.NARROW = 8  # what is collected is narrowed to k before it is sorted
for order in ("smallest", "largest"):
    for data in ("normal", "nan", "constant", "duplicates"):
        problem = TopK(rows=2, columns=1100, k=7, order=order, data=data)
        inputs = OPERATOR.make_inputs(problem, 1)
        if data == "nan":
            inputs["values"][1] = np.nan
        outputs = triton_impl.run(problem, {"values": torch.from_numpy(inputs["values"])}, block)
        verdict = OPERATOR.compare(problem, inputs, outputs, OPERATOR.oracle(problem, inputs))
        assert verdict.ok, (problem, verdict)
"""
"""Long rows, packed and not, with a tile so small that they are cut into segments, and data that the bound by minima fails on."""


def test_triton_in_the_interpreter_on_long_rows_and_contrived_data() -> None:
    done = run_python("-c", INTERPRETED, TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stdout + done.stderr


def test_triton_in_the_interpreter() -> None:
    done = run_python("tests/kernels/interpret.py", "topk", TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stdout + done.stderr


COMPILED = """
import torch
from kernels import registry
from kernels.arrays import meta
from kernels.cross import compiling
from kernels.resources import of_triton
from kernels.topk import TopK, triton_select

operator = registry.operator("topk")
backend = registry.backend(operator, "triton")
with compiling(80) as compiled:
    for problem in (TopK(rows=9, columns=1000), TopK(columns=10**6, k=100, dtype="bfloat16", order="largest"), TopK(columns=40)):
        backend.run(problem, meta(operator.shapes(problem)), dict(backend.space.default))
    triton_select.smallest(torch.empty((1, 10**5), dtype=torch.int64, device="meta"), 10)
    before = len(compiled)
    backend.run(TopK(rows=77, columns=1001, k=9), {"values": torch.empty((77, 1001), device="meta")}, dict(backend.space.default))
print(all(each.cached for each in compiled[before:]))
for each in compiled[:before]:
    used = of_triton(each.kernel, 80)
    print(each.name, used.spills, used.shared_dynamic)
"""


def test_triton_compiles_to_kernels_that_keep_elements_in_their_threads() -> None:
    """No matrix moves through shared memory, few registers spill, and another size of a row compiles nothing anew."""
    done = run_python("-c", COMPILED)
    assert done.returncode == 0, done
    same, *rows = done.stdout.splitlines()
    assert same == "True"
    assert {row.split()[0] for row in rows} == {"topk_row", "topk_sort", "topk_stream"}
    assert all(int(spills) <= 256 and int(shared) <= 2048 for _, spills, shared in map(str.split, rows)), rows


@pytest.mark.parametrize("architecture", ["sm_75", "sm_90"])
def test_cuda_sources_compile_without_a_gpu(architecture: str) -> None:
    from kernels import cuda

    backend = registry.backend(registry.operator("topk"), "cupy")
    problems = [TopK(columns=9), TopK(columns=9, k=2048, dtype="float16", order="largest")]
    for source in {source for problem in problems for source in backend.module.sources(problem, dict(backend.space.default))}:
        _, report = cuda.compile_cubin(source, architecture)
        assert {used["spills"] for used in report.values()} == {0}


@pytest.mark.parametrize("name", ["torch", "triton", "cupy"])
def test_gpu_backends_on_awkward_problems(name: str) -> None:
    require("gpu")
    from tests.kernels.gpu import check_awkward

    check_awkward("topk", name)
