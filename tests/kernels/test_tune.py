"""Winners, from made-up records: only what is surely faster than the default wins."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.cli import BadInput
from analysis.records import read_parquet, write_parquet
from kernels.tune import promote, table, winners
from kernels.tuned import read
from tests.commands import one_line, run_module
from tests.kernels.tiny import Stage, write_config

STEADY = [1.0, 1.01, 1.02, 1.0, 1.01, 1.02, 1.0, 1.01]


def row(rows: int, samples: Sequence[float], aa: Sequence[float] = (), **changes: Any) -> dict[str, Any]:
    """A record of the block ROWS = `rows`; the default block's has the A/A samples."""
    base = {"operator": "knn", "backend": "torch", "problem": {"n": 1000}, "status": "measured", "attempt": 1, "noise": 0.02}
    device = {"device": "NVIDIA H200", "device_kind": "gpu"}
    samples_ms = {"samples_ms": list(samples), "aa_samples_ms": list(aa)}
    return {**base, **device, **samples_ms, "block": {"ROWS": rows}, "point": f"p{rows}", **changes}


def frame(*rows: dict[str, Any]) -> pd.DataFrame:
    text = [
        {name: json.dumps(value, sort_keys=True) if isinstance(value, dict) else value for name, value in each.items()} for each in rows
    ]
    return pd.DataFrame(text)


def times(factor: float) -> list[float]:
    return [factor * each for each in STEADY]


@pytest.mark.parametrize(
    ("others", "noise", "winner"),
    [
        pytest.param([row(2, times(0.5))], 0.02, 2, id="twice-as-fast"),
        pytest.param([row(2, times(0.5)), row(3, times(0.4))], 0.02, 3, id="the-fastest-of-two"),
        pytest.param([row(2, times(0.95))], 0.10, 1, id="inside-the-noise"),
        pytest.param([row(2, times(0.95))], 0.02, 2, id="the-same-outside-the-noise"),
        pytest.param([row(2, [0.5, 0.6, 3.0, 3.1, 0.55, 2.9, 0.6, 3.0, 0.5])], 0.02, 1, id="intervals-overlap"),
        pytest.param([row(2, times(2.0))], 0.02, 1, id="slower"),
        pytest.param([], 0.02, 1, id="the-default-alone"),
        pytest.param([row(2, [], status="failed")], 0.02, 1, id="failed"),
    ],
)
def test_a_block_wins_only_if_it_surely_beats_the_default(others: list[dict[str, Any]], noise: float, winner: int):
    rows = [row(1, STEADY, STEADY), *others]
    (entry,) = winners(frame(*({**each, "noise": noise} for each in rows)))
    assert entry["block"] == {"ROWS": winner}
    assert entry["default_block"] == {"ROWS": 1}
    assert entry["points"] == [f"p{winner}", "p1"]
    assert entry["median_ms"] <= entry["default_ms"]


def test_each_backend_and_problem_has_a_winner_of_its_own():
    rows = []
    for backend in ("numpy", "torch"):
        for n, factor in ((1000, 0.5), (2000, 2.0)):
            problem = {"problem": {"n": n}, "backend": backend}
            rows += [row(1, STEADY, STEADY, **problem, point=f"{backend}{n}a"), row(2, times(factor), **problem, point=f"{backend}{n}b")]
    found = {(entry["backend"], entry["problem"]["n"]): entry["block"]["ROWS"] for entry in winners(frame(*rows))}
    assert found == {("numpy", 1000): 2, ("numpy", 2000): 1, ("torch", 1000): 2, ("torch", 2000): 1}


def test_the_last_attempt_counts():
    rows = [row(1, STEADY, STEADY), row(2, times(0.5)), row(1, STEADY, STEADY, attempt=2), row(2, times(2.0), attempt=2)]
    (entry,) = winners(frame(*rows))
    assert entry["block"] == {"ROWS": 1}
    assert entry["candidates"] == 2


def test_without_a_noise_floor_there_is_no_entry():
    assert winners(frame(row(1, STEADY), row(2, times(0.5)))) == []


def test_a_table_is_of_one_device():
    with pytest.raises(BadInput, match=r"^x: rows of 2 devices \(A, B\); a tuned table is of one$"):
        table(frame(row(1, STEADY, STEADY, device="A"), row(2, STEADY, device="B")), "x")


def test_the_command_makes_a_table_of_a_sweep_that_can_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    write_config(tmp_path)
    stage = Stage(monkeypatch, tmp_path)
    rows = stage.run()
    done = run_module("kernels.tune", stage.out, "--out", tmp_path / "t.json")
    assert done.returncode == 0, done
    made = read(tmp_path / "t.json")
    assert made["device"] == rows.device.iloc[0]
    assert [(entry["backend"], entry["problem"]["columns"]) for entry in made["entries"]] == [
        ("numpy", 30),
        ("numpy", 40),
        ("torch", 30),
        ("torch", 40),
    ]
    assert all(set(entry["points"]) <= set(rows.point) for entry in made["entries"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(["absent.parquet", "--out", "t.json"], "error: absent.parquet: no such record file", id="no-record-file"),
        pytest.param(["absent.parquet"], "error: tune: give one record file and --out", id="no-out"),
        pytest.param(["--promote", "absent.json"], "error: absent.json: no such tuned table", id="nothing-to-promote"),
    ],
)
def test_the_command_refuses_in_one_line(words: list[str], message: str):
    assert one_line(run_module("kernels.tune", *words)).startswith(message)


def test_records_of_another_stage_are_refused(tmp_path: Path):
    write_parquet(tmp_path / "r.parquet", [{"point": "p", "arm": "course"}])
    with pytest.raises(BadInput, match="no column attempt"):
        from kernels.tune import COLUMNS

        read_parquet(tmp_path / "r.parquet", COLUMNS)


def tuned(path: Path, kind: str, *entries: tuple[str, int, int]) -> Path:
    """A tuned table of H200s with entries (backend, n, rows)."""
    made = [{"operator": "knn", "backend": backend, "problem": {"n": n}, "block": {"ROWS": rows}} for backend, n, rows in entries]
    path.write_text(json.dumps({"schema": 1, "device": "NVIDIA H200", "device_kind": kind, "entries": made}))
    return path


def test_promoting_merges_tables_of_a_gpu_and_replaces_what_was_tuned_anew(tmp_path: Path):
    shipped = tmp_path / "tuned"
    shipped.mkdir()
    tuned(shipped / "NVIDIA_H200.json", "gpu", ("torch", 1, 10), ("torch", 2, 20))
    new = [
        tuned(tmp_path / "a.json", "gpu", ("torch", 2, 99)),
        tuned(tmp_path / "b.json", "gpu", ("triton", 2, 30)),
        tuned(tmp_path / "c.json", "cpu", ("numpy", 1, 5)),
    ]
    assert promote(new, shipped) == [shipped / "NVIDIA_H200.json"]
    merged = json.loads((shipped / "NVIDIA_H200.json").read_text())
    found = {(entry["backend"], entry["problem"]["n"]): entry["block"]["ROWS"] for entry in merged["entries"]}
    assert found == {("torch", 1): 10, ("torch", 2): 99, ("triton", 2): 30}
    assert (merged["schema"], merged["device"]) == (1, "NVIDIA H200")


def test_tables_of_cpus_are_not_promoted(tmp_path: Path):
    assert promote([tuned(tmp_path / "c.json", "cpu", ("numpy", 1, 5))], tmp_path / "shipped") == []
    assert not (tmp_path / "shipped").exists()
