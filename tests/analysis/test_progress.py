"""How far a run is, from journals that grow while they are read."""

from __future__ import annotations

import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from analysis import progress
from analysis.cli import BadInput, run
from analysis.config import load
from analysis.progress import Target, expected, outlook, state, targets
from analysis.records import read_journal
from kernels import plan
from tests.kernels.tiny import CONFIG, Stage, write_config

NOON = "2026-11-28T12:00:{:02}+00:00"
NOON_S = 1795867200.0


def record(rows: int, second: int = 0, **more: Any) -> dict[str, Any]:
    its = {"backend": "numpy", "problem": {"n": 1}, "block": {"ROWS": rows}, "role": "candidate", "point": f"old{rows}", "attempt": 1}
    return {**its, "status": "measured", "started": NOON.format(second), **more}


def append(target: Target, *records: dict[str, Any], name: str = "1", torn: str = "") -> None:
    target.journal.mkdir(parents=True, exist_ok=True)
    with (target.journal / f"{name}.jsonl").open("a") as file:
        file.write("".join(json.dumps(one) + "\n" for one in records) + torn)
    target.look()


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target(tmp_path / "journal", tmp_path / "knn.cpu.parquet", wanted=8)


def test_what_is_appended_is_counted_once(target: Target):
    append(target, record(1), record(2))
    append(target, record(3))
    append(target, record(1, role="aa"))
    assert (len(target.points), target.left) == (4, 4)


def test_only_what_was_appended_is_read_again(target: Target):
    append(target, record(1))
    file = target.journal / "1.jsonl"
    file.write_bytes(b"?" * (file.stat().st_size - 1) + b"\n")
    append(target, record(2))
    assert target.left == 6


def test_a_line_that_is_not_whole_waits_and_a_torn_one_is_left_out(target: Target):
    text = json.dumps(record(2))
    append(target, record(1), torn=text[:20])
    assert target.left == 7
    append(target, torn=text[20:] + "\n")
    assert target.left == 6
    append(target, torn=text[:20] + "\n")
    append(target, record(3))
    assert target.left == 5


def test_points_of_an_earlier_attempt_are_wanted_again(target: Target):
    target.attempt = 2
    append(target, record(1), record(2, attempt=2))
    assert target.left == 7


def test_what_other_code_measured_is_wanted_again_as_soon_as_a_point_of_its_backend_is(target: Target):
    append(target, record(1), record(2), record(3), record(1, backend="torch"))
    append(target, record(2, 30, point="new2"), name="2")
    assert {(its["backend"], its["point"]) for its in target.points.values()} == {("torch", "old1"), ("numpy", "new2")}
    append(target, record(1, 31, point="new1"), name="3")
    append(target, record(3, 32, point="new3"), name="2")
    assert target.left == 4


def test_an_experiment_is_over_when_its_record_file_is_newer_than_its_journal(target: Target):
    append(target, record(1))
    target.records.touch()
    os.utime(target.journal / "1.jsonl", (NOON_S, NOON_S))
    os.utime(target.records, (NOON_S, NOON_S))
    assert (target.over, target.left) == (True, 0)
    os.utime(target.records, (NOON_S - 1, NOON_S - 1))
    assert (target.over, target.left) == (False, 7)


def test_a_record_file_of_an_earlier_attempt_ends_nothing(target: Target):
    target.attempt = 2
    append(target, record(1))
    finish([target])
    assert (target.over, target.left) == (False, 8)


def test_a_record_file_without_a_journal_is_all_there_is(target: Target):
    finish([target])
    assert (target.over, target.left) == (True, 0)


def test_the_state_counts_points_failures_and_experiments(target: Target, tmp_path: Path):
    append(target, record(1), record(2, status="failed"), record(3), record(4))
    other = Target(tmp_path / "other", tmp_path / "gone.parquet", wanted=6)
    assert state([target, other]) == "4 of 14 points (28 %), 1 failed; 0 of 2 experiments done, 1 begun"


def test_the_outlook_is_at_the_latest_rate(target: Target):
    append(target, record(1, 0), record(2, 20), record(3, 40), record(4, 0, started="2026-11-28T10:00:00+00:00"))
    assert outlook([target], NOON_S + 60) == "; about 80 s left at the rate of the last 60 s"
    assert outlook([target], NOON_S + 86_400) == ""


@pytest.mark.parametrize(("stage", "experiment"), [("sweep", "softmax"), ("bench", "softmax_bench")])
def test_as_many_points_are_expected_as_a_job_records(stage: str, experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = load(write_config(tmp_path))
    its = Stage(monkeypatch, tmp_path, stage, experiment)
    its.run()
    assert expected(plan.experiment(config, stage, experiment), "cpu") == len(read_journal(its.journal))


def test_a_run_has_a_target_for_each_experiment_and_device(tmp_path: Path):
    write_config(tmp_path, devices=["cpu", "h200"])
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "sweep_softmax").write_text("2\n")
    found = {target.journal.relative_to(tmp_path).as_posix(): target.attempt for target in targets(tmp_path)}
    assert found == {
        **{"sweep/journal/softmax.cpu": 3, "sweep/journal/softmax.h200": 3},
        **{"bench/journal/softmax_bench.cpu": 1, "bench/journal/softmax_bench.h200": 1},
    }


RATES = {"arms": {"a": {"service": "batched"}}, "vary": {"max_batch": [1, 8]}, "load": {"rates": [2, 4]}, "repeats": 2}


def offered(arm: str, rate: float, load: dict[str, Any], trial: int = 1, valid: bool = True, point: str = "old") -> dict[str, Any]:
    its = {"arm": arm, "load_settings": load, "rate": rate, "repeat": 1, "point": point, "attempt": 1, "trial": trial}
    return {**its, "valid": valid, "started": NOON.format(trial)}


def test_a_rag_experiment_has_its_arms_at_every_rate_of_every_load(tmp_path: Path):
    write_config(tmp_path, rag={"x": RATES})
    (target,) = targets(tmp_path, [("rag", "x", "")])
    assert target.journal.relative_to(tmp_path).as_posix() == "rag/journal/x"
    load = {"rates": [2, 4]}
    append(target, offered("a max_batch=1", 2, load), offered("a max_batch=8", 2, load, valid=False))
    assert state([target]) == "2 of 8 points (25 %), 1 failed; 0 of 1 experiments done, 1 begun"
    append(target, offered("a max_batch=8", 2, load, trial=2))
    assert state([target]).startswith("2 of 8 points (25 %), 0 failed")
    append(target, offered("a max_batch=8", 2, load, trial=3, point="new"), name="2")
    assert state([target]).startswith("2 of 8 points")


def test_points_of_a_search_are_counted_when_they_are_recorded(tmp_path: Path):
    search = {"search": {"start": 2}}
    write_config(tmp_path, rag={"x": RATES | {"load": search, "loads": {"steady": {}, "bursts": {"arrivals": "gamma", "burstiness": 4}}}})
    (target,) = targets(tmp_path, [("rag", "x", "")])
    append(target, offered("a max_batch=1", 2, search), offered("a max_batch=1", 4, search))
    assert state([target]) == (
        "2 of 2 points (100 %), 0 failed; 0 of 1 experiments done, 1 begun; 1 with searches, whose points are not known beforehand"
    )
    finish([target])
    assert state([target]) == "2 of 2 points (100 %), 0 failed; 1 of 1 experiments done, 0 begun"


def test_problems_that_a_gpu_has_no_memory_for_are_not_waited_for(tmp_path: Path):
    problems = [{"rows": rows, "columns": 40} for rows in (200, 10**10)]
    write_config(tmp_path, devices=["h200"], sweep={"softmax": {**CONFIG["sweep"]["softmax"], "problems": problems}})
    both, small = (target.wanted for target in targets(tmp_path))
    write_config(tmp_path, devices=["h200"], sweep={"softmax": {**CONFIG["sweep"]["softmax"], "problems": problems[:1]}})
    assert [target.wanted for target in targets(tmp_path)] == [both, small]


def test_only_what_is_asked_for_is_followed(tmp_path: Path):
    write_config(tmp_path, devices=["cpu", "h200"])
    (one,) = targets(tmp_path, [("sweep", "softmax", "h200")])
    assert one.records == tmp_path / "sweep" / "softmax.h200.parquet"


def finish(every: list[Target]) -> None:
    for each in every:
        each.records.parent.mkdir(parents=True, exist_ok=True)
        each.records.touch()
        os.utime(each.records, (NOON_S * 2, NOON_S * 2))


def test_following_says_each_state_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_config(tmp_path)
    every = targets(tmp_path)
    minutes = iter([lambda: None, lambda: append(every[0], record(1)), lambda: None, lambda: finish(every)])
    monkeypatch.setattr("time.sleep", lambda seconds: next(minutes)())
    said = list(itertools.islice(progress.follow(every), 3))
    assert [text.partition(" ")[0] for text in said] == ["0", "1", "1"]
    assert "2 of 2 experiments done" in said[-1]
    assert list(minutes) == []


def test_a_driver_says_what_changes_in_a_thread_that_does_not_keep_it_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def unreadable() -> None:
        raise OSError("the disk is gone")

    write_config(tmp_path)
    one = targets(tmp_path)[0]
    minutes = iter([lambda: append(one, record(1)), unreadable])
    monkeypatch.setattr("time.sleep", lambda seconds: next(minutes)())
    thread = progress.follow_beside(tmp_path, [("sweep", "softmax", "cpu")])
    assert thread.daemon
    thread.join(60)
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("progress: 1 of ")
    assert last.startswith("progress: not followed any more (the disk is gone); python -m analysis.progress ")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(BadInput, match=r"no config.yaml; name the folder of a run"):
        targets(tmp_path)
    write_config(tmp_path)
    monkeypatch.setattr(sys, "argv", ["progress", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        run(progress.main)
    assert not stopped.value.code
