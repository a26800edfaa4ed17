"""Tuned tables: which block is looked up, and that no table can make an answer wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from analysis.cli import BadInput
from kernels import tuned
from kernels.contract import Space
from kernels.knn import Knn, knn

H200 = "NVIDIA H200"
SPACE = Space(axes={"ROWS": (1, 2)}, default={"ROWS": 7}, rule=lambda problem, block: "too many" if block["ROWS"] > problem.n else None)


def entry(rows: Any, n: int = 1000, **changes: Any) -> dict[str, Any]:
    return {"operator": "knn", "backend": "torch", "problem": Knn(n=n, d=64).fields(), "block": {"ROWS": rows}, **changes}


def written(path: Path, *entries: dict[str, Any], device: str = H200, schema: object = 1) -> Path:
    path.write_text(json.dumps({"schema": schema, "device": device, "entries": list(entries)}))
    return path


def block(problem: Knn, *tables: Path, backend: str = "torch") -> int:
    return tuned.lookup("knn", backend, problem, H200, SPACE, tables)["ROWS"]


@pytest.fixture(autouse=True)
def shipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of shipped tables, empty."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    monkeypatch.setattr(tuned, "FOLDER", folder)
    return folder


@pytest.mark.parametrize(
    ("n", "rows"),
    [
        pytest.param(1000, 10, id="tuned"),
        pytest.param(1100, 10, id="near-the-smaller"),
        pytest.param(3000, 10, id="nearer-by-the-ratio"),
        pytest.param(4000, 20, id="near-the-larger"),
        pytest.param(10**9, 20, id="far"),
    ],
)
def test_the_block_is_that_of_the_nearest_shape(tmp_path: Path, n: int, rows: int):
    table = written(tmp_path / "t.json", entry(10, n=1000), entry(20, n=10_000))
    assert block(Knn(n=n, d=64), table) == rows


def test_another_metric_is_farther_than_any_size(tmp_path: Path):
    table = written(
        tmp_path / "t.json", entry(10, problem=Knn(n=10**9, d=1).fields()), entry(20, problem=Knn(n=1000, d=64, metric="l1").fields())
    )
    assert block(Knn(n=1000, d=64), table) == 10


def test_the_runs_own_table_comes_before_the_shipped_one(tmp_path: Path, shipped: Path):
    written(shipped / "NVIDIA_H200.json", entry(20))
    assert block(Knn(n=1000, d=64)) == 20
    assert block(Knn(n=1000, d=64), written(tmp_path / "t.json", entry(10))) == 10
    assert block(Knn(n=1000, d=64), tmp_path / "absent.json") == 20


@pytest.mark.parametrize(
    ("changes", "device"),
    [
        pytest.param({}, "NVIDIA A100", id="another-device"),
        pytest.param({"operator": "distance"}, H200, id="another-operator"),
        pytest.param({"backend": "numpy"}, H200, id="another-backend"),
        pytest.param({"block": {"ROWS": 2000}}, H200, id="invalid-for-the-problem"),
        pytest.param({"block": {"COLUMNS": 10}}, H200, id="another-axis"),
        pytest.param({"block": {"ROWS": 10, "COLUMNS": 10}}, H200, id="an-axis-too-many"),
        pytest.param({"block": {}}, H200, id="no-axis"),
    ],
)
def test_what_does_not_fit_is_ignored(tmp_path: Path, changes: dict[str, Any], device: str):
    table = written(tmp_path / "t.json", entry(10, **changes), device=device)
    assert block(Knn(n=1000, d=64), table) == SPACE.default["ROWS"]


def test_a_block_that_is_no_power_of_two_where_it_must_be_is_ignored(tmp_path: Path):
    space = Space(axes={"ROWS": (16,)}, default={"ROWS": 16}, powers_of_two=frozenset({"ROWS"}))
    table = written(tmp_path / "t.json", entry(100))
    assert tuned.lookup("knn", "torch", Knn(n=1000, d=64), H200, space, [table]) == {"ROWS": 16}


@pytest.mark.parametrize(
    ("device", "rows"),
    [
        pytest.param("NVIDIA H100 80GB HBM3", 20, id="of-its-architecture"),
        pytest.param("NVIDIA H200 MIG 1g.18gb", 20, id="a-slice-of-it"),
        pytest.param("NVIDIA A100-SXM4-80GB", 7, id="of-another-architecture"),
        pytest.param("NVIDIA Unheard-of", 7, id="unknown"),
        pytest.param("cpu", 7, id="cpu"),
    ],
)
def test_a_gpu_that_was_never_tuned_takes_what_was_found_on_its_architecture(shipped: Path, device: str, rows: int):
    written(shipped / tuned.file_name(H200), entry(20))
    assert tuned.lookup("knn", "torch", Knn(n=1000, d=64), device, SPACE)["ROWS"] == rows


def test_its_own_table_comes_before_another_gpus(shipped: Path):
    written(shipped / tuned.file_name(H200), entry(20))
    h100 = "NVIDIA H100 80GB HBM3"
    written(shipped / tuned.file_name(h100), entry(10, n=10), device=h100)
    assert tuned.lookup("knn", "torch", Knn(n=1000, d=64), h100, SPACE) == {"ROWS": 10}


def test_the_next_nearest_is_taken_where_the_nearest_is_invalid(tmp_path: Path):
    table = written(tmp_path / "t.json", entry(2000, n=1000), entry(20, n=10_000))
    assert block(Knn(n=1000, d=64), table) == 20


def test_the_table_is_not_changed_by_who_changes_the_block(tmp_path: Path):
    table = written(tmp_path / "t.json", entry(10))
    tuned.lookup("knn", "torch", Knn(n=1000, d=64), H200, SPACE, [table])["ROWS"] = 0
    assert block(Knn(n=1000, d=64), table) == 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("{", "not a tuned table", id="not-json"),
        pytest.param("[]", "not a tuned table", id="a-list"),
        pytest.param('{"schema": 1, "entries": []}', "not a tuned table", id="no-device"),
        pytest.param('{"schema": 2, "device": "x", "entries": []}', "schema 2, and this version reads 1", id="another-schema"),
        pytest.param(
            '{"schema": 1, "device": "x", "entries": [{}]}', "an entry lacks operator, backend, problem or block: {}", id="empty-entry"
        ),
    ],
)
def test_what_is_no_table_is_refused_in_one_line(tmp_path: Path, text: str, message: str):
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(BadInput) as refusal:
        block(Knn(n=1, d=1), path)
    assert str(refusal.value) == f"{path}: {message}; make it again with the tune stage, or remove it"


@pytest.mark.parametrize("rows", [0, -64, 1.5, True, "64", None], ids=repr)
def test_a_block_that_is_no_number_of_rows_is_refused_in_one_line(tmp_path: Path, rows: Any):
    path = written(tmp_path / "t.json", entry(rows))
    with pytest.raises(BadInput, match=rf"^{path}: knn torch: ROWS is {rows!r}, not a positive whole number; "):
        block(Knn(n=1000, d=64), path)


sizes = st.integers(0, 10**6)
problems = st.builds(Knn, n=sizes, q=sizes, d=st.integers(1, 10**5), metric=st.sampled_from(["l2", "dot"]))


@given(problems, problems)
def test_the_distance_of_problems_is_symmetric_and_zero_for_the_same(a: Knn, b: Knn):
    assert tuned.distance(a.fields(), b.fields()) == pytest.approx(tuned.distance(b.fields(), a.fields()))
    assert (tuned.distance(a.fields(), b.fields()) == 0) == (a == b)


@pytest.mark.parametrize(
    ("device", "name"), [(H200, "NVIDIA_H200.json"), ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA_A100_SXM4_40GB_MIG_1g.5gb.json")]
)
def test_a_devices_table_has_a_name_for_any_file_system(device: str, name: str):
    assert tuned.file_name(device) == name


@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
@pytest.mark.parametrize("rows", [1, 2, 7, 499, 500, 501, 4096, 10**9, 2**40])
def test_no_block_of_a_table_changes_an_answer(shipped: Path, library: Any, rows: int):
    rng = np.random.default_rng(3)
    collection = rng.integers(0, 4, (500, 6)).astype(np.float32)  # many rows at equal distance
    queries = rng.integers(0, 4, (9, 6)).astype(np.float32)
    _, expected = knn(library(queries), library(collection), 20)
    entries = [entry(rows, n=500, backend=backend) for backend in ("numpy", "torch")]
    written(shipped / "cpu.json", *entries, device="cpu")
    tuned.read.cache_clear()
    looked_up = tuned.lookup("knn", "torch", Knn(q=9, n=500, d=6, k=20), "cpu", Space(axes={"ROWS": ()}, default={"ROWS": 5}))
    assert looked_up == {"ROWS": rows}  # the table is used
    _, ids = knn(library(queries), library(collection), 20)
    assert np.array_equal(ids, expected)
