"""Problems and block spaces: what a config may say of them, and how what it may not is refused."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.cli import BadInput
from kernels.contract import Problem, Space, is_power_of_two, standard_normal
from kernels.knn import Knn

SPACE = Space(
    axes={"BLOCK": (32, 64), "num_warps": (4, 8)},
    default={"BLOCK": 32, "num_warps": 4},
    rule=lambda problem, block: "too many warps" if block["num_warps"] > block["BLOCK"] // 8 else None,
    powers_of_two=frozenset({"BLOCK"}),
)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        pytest.param({"n": 5, "d": 2, "m": 3}, "sweep.a.m: unknown field; one of", id="unknown-field"),
        pytest.param({"n": "5", "d": 2}, "sweep.a.n: '5' is not of type int", id="text-for-int"),
        pytest.param({"n": True, "d": 2}, "sweep.a.n: True is not of type int", id="bool-for-int"),
        pytest.param({"n": 5.0, "d": 2}, "sweep.a.n: 5.0 is not of type int", id="float-for-int"),
        pytest.param({"n": None, "d": 2}, "sweep.a.n: None is not of type int", id="nothing-for-int"),
        pytest.param({"n": 5, "d": 2, "metric": "l3"}, "sweep.a.metric: 'l3' is not one of 'cosine', 'l2'", id="wrong-literal"),
        pytest.param({"n": 5, "d": 2, "metric": {"l2": 1}}, "sweep.a.metric: {'l2': 1} is not one of", id="mapping-for-literal"),
        pytest.param({"n": 5, "d": 2, "dtype": "float16"}, "sweep.a.dtype: 'float16' is not one of 'float32'", id="dtype-it-lacks"),
        pytest.param({"n": 5}, "sweep.a: missing field d", id="missing-field"),
        pytest.param({}, "sweep.a: missing field n, d", id="missing-fields"),
        pytest.param({"n": 5, "d": 0}, "sweep.a: d: 0 is less than 1", id="refused-by-the-problem"),
    ],
)
def test_a_bad_problem_is_refused_in_one_line_that_names_the_key(fields: dict[str, Any], message: str):
    with pytest.raises(BadInput) as refusal:
        Knn.parse(fields, "sweep.a")
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)


@given(
    st.builds(
        Knn, q=st.integers(0, 99), n=st.integers(0, 99), d=st.integers(1, 99), k=st.integers(1, 99), metric=st.sampled_from(["l1", "l2"])
    )
)
def test_a_problem_is_what_its_fields_say(problem: Knn):
    assert Knn.parse(problem.fields(), "x") == problem


lists = st.lists(st.integers(1, 50), min_size=1, max_size=4)


@given(lists, lists, st.integers(1, 50))
def test_a_grid_is_the_product_of_its_lists_without_repeats(n: list[int], d: list[int], k: int):
    found = Knn.grid([{"n": n, "d": d, "k": k}], "x")
    assert len(found) == len(set(found))
    assert {tuple(map(each.fields().get, "ndk")) for each in found} == {(*pair, k) for pair in itertools.product(n, d)}


def test_a_grid_names_the_entry_and_the_key_of_a_mistake():
    with pytest.raises(BadInput, match=r"^sweep\.a\.problems\[1\]\.d: 'x' is not of type int$"):
        Knn.grid([{"n": 1, "d": 1}, {"n": 1, "d": [2, "x"]}], "sweep.a.problems")


def test_an_empty_list_is_a_mistake_and_not_no_problems():
    with pytest.raises(BadInput, match=r"^p\[0\]\.d: an empty list; give at least one value$"):
        Knn.grid([{"n": 1, "d": []}], "p")


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        pytest.param({"BLOK": [32]}, "b.BLOK: unknown block axis; one of BLOCK, num_warps", id="unknown-axis"),
        pytest.param({"BLOCK": [32, 48]}, "b.BLOCK: 48 is not a power of two", id="not-a-power-of-two"),
        pytest.param({"BLOCK": 48}, "b.BLOCK: 48 is not a power of two", id="one-value-without-a-list"),
        pytest.param({"num_warps": [0]}, "b.num_warps: 0 is not a positive whole number", id="zero"),
        pytest.param({"num_warps": [-4]}, "b.num_warps: -4 is not a positive whole number", id="negative"),
        pytest.param({"num_warps": [True]}, "b.num_warps: True is not a positive whole number", id="bool"),
        pytest.param({"num_warps": ["4"]}, "b.num_warps: '4' is not a positive whole number", id="text"),
        pytest.param({"num_warps": [4.0]}, "b.num_warps: 4.0 is not a positive whole number", id="float"),
        pytest.param({"num_warps": []}, "b.num_warps: an empty list; give at least one value", id="empty"),
    ],
)
def test_a_bad_block_axis_is_refused_in_one_line_that_names_the_key(axes: dict[str, Any], message: str):
    with pytest.raises(BadInput) as refusal:
        SPACE.narrowed(axes, "b")
    assert str(refusal.value) == message


def test_an_axis_of_no_backend_says_that_there_are_none():
    with pytest.raises(BadInput, match=r"one of \(none\)"):
        Space().narrowed({"ROWS": [1]}, "b")


def test_narrowing_replaces_the_named_axes_alone():
    narrow = SPACE.narrowed({"BLOCK": 128}, "b")
    assert narrow.axes == {"BLOCK": (128,), "num_warps": (4, 8)}
    assert narrow.default == SPACE.default
    assert SPACE.axes["BLOCK"] == (32, 64)


def test_every_combination_is_there_and_invalid_ones_have_the_reason():
    found = {tuple(block.values()): reason for block, reason in SPACE.blocks(None)}
    assert found == {(32, 4): None, (32, 8): "too many warps", (64, 4): None, (64, 8): None}


def test_a_backend_without_block_parameters_has_one_block():
    assert Space().blocks(None) == [({}, None)]
    assert Space().objection(None, {}) is None


@pytest.mark.parametrize(
    ("block", "objection"),
    [
        pytest.param({"BLOCK": 256, "num_warps": 4}, None, id="outside-the-axes-values"),
        pytest.param({"BLOCK": 32}, "axes BLOCK, not BLOCK, num_warps", id="axis-missing"),
        pytest.param({"BLOCK": 32, "num_warps": 4, "X": 1}, "axes BLOCK, num_warps, X, not BLOCK, num_warps", id="axis-too-many"),
        pytest.param({}, "axes (none), not BLOCK, num_warps", id="no-axes"),
        pytest.param({"BLOCK": 48, "num_warps": 4}, "BLOCK = 48 is not a power of two", id="not-a-power-of-two"),
        pytest.param({"BLOCK": -32, "num_warps": 4}, "BLOCK = -32 is not a positive whole number", id="negative"),
        pytest.param({"BLOCK": 32, "num_warps": True}, "num_warps = True is not a positive whole number", id="bool"),
        pytest.param({"BLOCK": 32, "num_warps": 8}, "too many warps", id="against-the-rule"),
    ],
)
def test_a_block_from_outside_is_checked_for_all_that_a_space_knows(block: dict[str, int], objection: str | None):
    assert SPACE.objection(None, block) == objection


@given(st.integers(-(2**40), 2**40))
def test_powers_of_two_are_those_with_one_bit(value: int):
    assert is_power_of_two(value) == (value > 0 and value.bit_count() == 1)


@given(st.integers(0, 2**32))
def test_inputs_are_of_shape_and_dtype_and_the_same_for_the_same_seed(seed: int):
    import numpy as np

    shapes = {"a": ((3, 4), "float32"), "b": ((5,), "float16"), "c": ((2,), "bfloat16")}
    first, second = (standard_normal(shapes, np.random.default_rng(seed)) for _ in range(2))
    for name, (shape, dtype) in shapes.items():
        assert first[name].shape == shape
        assert str(first[name].dtype) == ("float32" if dtype == "bfloat16" else dtype)
        assert (first[name] == second[name]).all()


def test_the_base_problem_has_a_dtype():
    assert Problem().fields() == {"dtype": "float32"}
