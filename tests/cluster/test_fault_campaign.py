"""What a fault campaign concludes from the records; that faults hit is its own affair (docs/benchmarks/faults.py, some minutes)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.cli import BadInput
from analysis.records import Journal, write_parquet
from tests.commands import ROOT

sys.path.append(str(ROOT / "docs" / "benchmarks"))

import fault_check as check
from fault_kinds import Hit
from faults import Pending

CONFIG = check.config(points=70, samples=2, seed=1)
Rows = list[dict[str, Any]]


def rows() -> Rows:
    """As a sweep leaves them: each point once, with an A/A twin where its block is the default one."""
    provenance = json.dumps({"slurm_job_id": "7"})
    made = []
    for number, (experiment, backend, problem, block) in enumerate(check.expected(CONFIG)):
        one = {"point": f"{number:016x}", "attempt": 1, "experiment": experiment, "backend": backend, "problem": problem, "block": block}
        one |= {"status": "measured", "device_kind": "cpu", "provenance": provenance, "samples_ms": [1.0 + number, 2.0]}
        twin = backend == "torch" or json.loads(block)["ROWS"] == check.ROWS[-1]
        made.append(one | {"aa_samples_ms": [1.5, 2.5] if twin else []})
    return made


def found(run: Path, given: Rows, written: Rows) -> dict[str, Any]:
    """The verdict on a run with the records `given` in its Parquet and `written` in its journals."""
    with Journal(run / "sweep/journal/s.cpu") as journal:
        for row in written:
            journal.append({**row, "role": "candidate"})
    write_parquet(run / "sweep/s.cpu.parquet", given)
    return check.verdict(run, CONFIG)


def test_a_run_in_which_each_point_stands_once_is_sound(tmp_path):
    verdict = found(tmp_path, rows(), rows())
    assert verdict["points"] == verdict["rows"] == len({row["point"] for row in rows()}) == 70
    assert verdict["duplicates"] == 0 and check.complaints(verdict) == []


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda given: given.pop(3), "lost: 1 points"),
        (lambda given: given.append(given[3]), "twice: 1 points"),
        (lambda given: given.append(given[3] | {"backend": "cupy"}), "unasked: 1 points"),
        (lambda given: given[3].update(samples_ms=[1.0]), "wrong: 1 points"),
        (lambda given: given[3].update(samples_ms=[9.0, 9.0]), "wrong: 1 points"),
        (lambda given: given[3].update(status="failed"), "wrong: 1 points"),
        (lambda given: given[5].update(aa_samples_ms=[]), "1 A/A measurements are lost"),
    ],
    ids=["lost", "twice", "unasked", "cut short", "not what the journal holds", "failed", "twin lost"],
)
def test_what_is_not_as_it_should_be_is_told(tmp_path: Path, spoil: Callable[[Rows], object], told: str):
    given = rows()
    spoil(given)
    (line,) = check.complaints(found(tmp_path, given, rows()))
    assert line.startswith(told)


def test_what_the_journals_hold_twice_is_counted_and_no_fault(tmp_path):
    verdict = found(tmp_path, rows(), [*rows(), *rows()[:5]])
    assert verdict["duplicates"] == 5 and check.complaints(verdict) == []


def test_a_fault_is_undone_when_its_time_has_come_and_again_where_slurm_did_not_listen(monkeypatch):
    answers = [BadInput("slurmctld is away"), None]

    def undo() -> None:
        if answer := answers.pop(0):
            raise answer

    clock = [0.0]
    monkeypatch.setattr("faults.time.monotonic", lambda: clock[0])
    pending = Pending({"effect": False}, Hit("a node", lambda: True, undo=undo, hold_s=10), since=0.0)
    assert not pending.tick() and pending.row["effect"] and len(answers) == 2
    clock[0] = 10.0
    assert not pending.tick() and pending.tick() and pending.row["undone_after_s"] == 10


def test_a_fault_without_effect_is_waited_for_no_longer_than_it_may_take(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("faults.time.monotonic", lambda: clock[0])
    pending = Pending({"effect": False}, Hit("a job", lambda: False, patience_s=30), since=0.0)
    assert not pending.tick()
    clock[0] = 30.0
    assert pending.tick() and not pending.row["effect"]
