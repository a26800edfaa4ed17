"""Accounts of time, held against ones made by hand and against a job that wrote one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analysis.accounts import CAUSES, accounts, minutes_of, spent, together, wall_s
from analysis.cli import BadInput
from analysis.environment import environment
from analysis.records import read_journal, read_notes, write_parquet
from tests.analysis.synthetic import BEGAN, account
from tests.kernels.tiny import Stage, write_config


def stored(folder: Path, *jobs: dict[str, Any], name: str = "knn.cpu") -> Path:
    write_parquet(folder / f"{name}.parquet", [{"point": "a"}], {"jobs": jobs})
    return folder / f"{name}.parquet"


def test_every_second_that_a_job_held_its_node_has_a_cause(tmp_path: Path):
    (job,) = accounts([stored(tmp_path, account())])
    assert (job.queued, job.held, job.ended) == (BEGAN + 30, BEGAN + 55, BEGAN + 115)
    assert job.seconds() == pytest.approx(
        {
            "start-up": 5 + 3 + 1,  # of the job, then of Python, and planning
            "loading": 2 + 4,  # the caches, and a tenth of measuring for first calls
            "ceilings": 4,
            "inputs": 5,
            "kernels": 24,
            "checking": 2,
            "recording": 4,
            "other": 40 - 24 - 4 - 2 - 4,
        }
    )
    assert sum(job.seconds().values()) == pytest.approx(job.held_s) == 60


def test_a_phase_of_no_known_name_is_other(tmp_path: Path):
    (job,) = accounts([stored(tmp_path, account(phases={"start-up": 1.0, "pondering": 3.0, "measuring": 10.0}))])
    assert job.seconds()["other"] == pytest.approx(3 + 1.5)
    assert set(job.seconds()) == set(CAUSES)


def test_a_job_by_hand_has_not_waited(tmp_path: Path):
    (job,) = accounts([stored(tmp_path, account(queued=None))])
    assert job.queued is None
    assert (job.queued_s, job.since, job.held) == (0, BEGAN + 60, BEGAN + 60)


def test_a_requeued_job_waits_from_the_end_of_its_first_process(tmp_path: Path):
    first = account(after=60, queued=60)
    again = account(after=300, queued=300)
    again["provenance"]["job_started"] = again["started"] - 5
    one, two = accounts([stored(tmp_path, first, again)])
    assert (one.queued, two.queued, two.held) == (BEGAN, one.ended, BEGAN + 295)


def test_two_processes_of_one_job_hold_its_node_once(tmp_path: Path):
    first, second = account(after=60), account(after=130, queued=100)
    second["provenance"] = dict(first["provenance"])
    one, two = accounts([stored(tmp_path, first, second)])
    assert two.held == one.ended
    assert two.queued_s == 0


def test_clocks_that_disagree_make_no_negative_times(tmp_path: Path):
    ahead = account()
    ahead["provenance"] |= {"job_submitted": ahead["started"] + 100, "job_started": ahead["started"] + 50}
    (job,) = accounts([stored(tmp_path, ahead)])
    assert job.queued_s == 0
    assert job.held == ahead["started"]


def test_a_process_in_several_files_counts_once_and_processes_stand_by_start(tmp_path: Path):
    late, early = account(after=500), account(after=100)
    found = accounts([stored(tmp_path, late, early, name="one"), stored(tmp_path, late, name="two")])
    assert [job.held for job in found] == [BEGAN + 95, BEGAN + 495]


def test_records_without_accounts_give_none(tmp_path: Path):
    old = account()
    del old["kernels_s"]  # of jobs that did not yet say how long kernels took
    write_parquet(tmp_path / "old.parquet", [{"point": "a"}])
    assert accounts([tmp_path / "old.parquet", stored(tmp_path, old)]) == []


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(BadInput, match=r"gone.parquet: no such record file"):
        accounts([tmp_path / "gone.parquet"])


def test_spans_that_touch_or_overlap_are_one():
    assert together([(5, 6), (0, 2), (1, 3), (3, 4)]) == [(0, 4), (5, 6)]


def test_jobs_beside_each_other_take_their_wall_time_once(tmp_path: Path):
    beside = accounts([stored(tmp_path, account(after=60), account(after=90, device="NVIDIA Test 80GB"))])
    assert wall_s(beside) == pytest.approx(115 + 30 - 30)
    assert spent(beside)["kernels"] == pytest.approx(48)
    assert [minutes_of(some) for some in (beside, beside[:1], beside[1:])] == ["minutes", "CPU minutes", "GPU minutes"]


@pytest.mark.parametrize(("stage", "experiment"), [("sweep", "softmax"), ("bench", "softmax_bench")])
def test_a_job_accounts_for_its_own_calls(stage: str, experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_config(tmp_path)
    its = Stage(monkeypatch, tmp_path, stage, experiment)
    its.run()
    records = read_journal(its.journal)
    (job,) = read_notes(its.out)["jobs"]
    called = [one for one in records if one["first_call_ms"]]
    loading_s = sum(max(0, one["first_call_ms"] - min(one["samples_ms"])) for one in called) / 1e3
    calls_s = sum(one.get("spent_s") or (one["first_call_ms"] + sum(one["samples_ms"])) / 1e3 for one in called)
    assert job["loading_s"] == pytest.approx(loading_s, abs=2e-4)
    assert job["kernels_s"] == pytest.approx(calls_s - loading_s, abs=2e-4)


def test_a_job_does_not_count_what_another_measured_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_config(tmp_path)
    its = Stage(monkeypatch, tmp_path)
    its.run()
    file = next(its.journal.glob("*.jsonl"))
    _, *others = file.read_text().splitlines()  # the point of the first line is to be measured again
    elsewhere = [line.replace('"started": "2', '"started": "3').replace('"host": "', '"host": "another-') for line in others]
    file.write_text("\n".join([*elsewhere, ""]))  # of a host whose clock is far ahead
    its.run()
    *_, job = read_notes(its.out)["jobs"]
    (mine,) = (one for one in read_journal(its.journal) if not one["provenance"]["host"].startswith("another-"))
    assert job["kernels_s"] == pytest.approx(mine["spent_s"] - mine["first_call_ms"] / 1e3, abs=2e-4)


def test_provenance_has_the_times_that_the_executor_gives(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SNAKEMAKE_JOB_SUBMITTED", "1795000000.125")
    monkeypatch.setenv("SNAKEMAKE_JOB_STARTED", "1795000030.500")
    assert environment()["job_submitted"] == 1795000000.125
    assert environment()["job_started"] == 1795000030.5
    monkeypatch.delenv("SNAKEMAKE_JOB_SUBMITTED")
    assert "job_submitted" not in environment()
