"""Problems cut into shards, and shards joined again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.cli import BadInput
from analysis.records import read_notes, read_parquet, write_parquet
from kernels import join
from kernels.planning import shards
from tests.commands import one_line, run_module
from tests.kernels.tiny import CONFIG, Stage, write_config

SECONDS = st.lists(st.floats(0, 1000), max_size=40)
ROOM = st.floats(-100, 1000)


def problems(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [{"n": number} for number in range(first, first + count)]


def held(cut: shards.Cut) -> list[dict[str, Any]]:
    return [each["problem"] for shard in cut["shards"].values() for each in shard]


@given(SECONDS, ROOM)
def test_every_problem_is_in_one_shard_that_has_room_for_it(seconds: list[float], room: float):
    found = shards.packed(seconds, room)
    assert sorted(position for shard in found for position in shard) == list(range(len(seconds)))
    assert all(len(shard) == 1 or sum(seconds[each] for each in shard) <= room * (1 + 1e-9) for shard in found)
    assert found == sorted(sorted(shard) for shard in found)


@given(SECONDS, st.floats(1, 1000))
def test_no_two_shards_would_fit_into_one(seconds: list[float], room: float):
    loads = sorted(sum(seconds[each] for each in shard) for shard in shards.packed(seconds, room))
    assert len(loads) < 2 or loads[0] + loads[1] > room * (1 - 1e-9)


@given(SECONDS, ROOM, st.data())
def test_a_cut_holds_whatever_estimates_say_later(seconds: list[float], room: float, data: st.DataObject):
    its = problems(len(seconds))
    first = shards.cut(its, seconds, room, "spec", None)
    later = data.draw(st.lists(st.floats(0, 1000), min_size=len(seconds), max_size=len(seconds)))
    assert shards.holds(first, its, "spec")
    assert shards.holds(first, list(reversed(its)), "spec")
    assert shards.cut(its, later, room, "spec", first) == first


@given(SECONDS, SECONDS, ROOM, st.data())
def test_other_problems_leave_the_shards_of_those_that_stay(old: list[float], new: list[float], room: float, data: st.DataObject):
    first = shards.cut(problems(len(old)), old, room, "spec", None)
    stay = [problem for problem in problems(len(old)) if data.draw(st.booleans())]
    both = [*stay, *problems(len(new), first=100)]
    second = shards.cut(both, [*(old[problem["n"]] for problem in stay), *new], room, "spec", first)
    assert shards.holds(second, both, "spec")
    assert sorted(held(second), key=str) == sorted(both, key=str)
    for number, shard in second["shards"].items():
        before = first["shards"].get(number)
        assert (before is not None) == all(each in stay for each in (one["problem"] for one in shard))
        assert before is None or [each for each in before if each["problem"] in stay] == shard


def test_what_is_asked_otherwise_is_cut_anew():
    first = shards.cut(problems(4), [1, 1, 1, 1], 2, "spec", None)
    assert not shards.holds(first, problems(4), "another")
    assert len(shards.cut(problems(4), [1, 1, 1, 1], 4, "another", first)["shards"]) == 1


def test_requests_have_a_margin_a_floor_and_steps():
    assert [shards.minutes([{"seconds": each * 60}]) for each in (0, 8, 10, 11, 40)] == [30, 30, 30, 40, 120]
    assert [shards.memory_mb(each) for each in ([], [1], [10**9, 5 * 10**9])] == [6000, 8000, 12000]


def test_the_plan_of_a_run_is_kept_beside_that_of_other_experiments(tmp_path: Path):
    path = tmp_path / "plan.json"
    one, two = (shards.cut(problems(count), [1.0] * count, 1, "spec", None) for count in (1, 2))
    shards.write(path, {"sweep/a.cpu": one})
    shards.write(path, {"sweep/b.cpu": two})
    assert shards.read(path) == {"sweep/a.cpu": one, "sweep/b.cpu": two}
    before = path.stat().st_ino
    shards.write(path, {"sweep/b.cpu": two})
    assert path.stat().st_ino == before
    for damaged in ("{", '{"schema": 0, "cuts": {}}', "[]"):
        path.write_text(damaged)
        with pytest.raises(BadInput, match=r"plan\.json: not a plan of schema 1; remove it"):
            shards.read(path)


def planned(folder: Path) -> tuple[Path, list[dict[str, Any]]]:
    """A plan of the tiny config's sweep: a problem a shard."""
    its = [{"rows": 200, "columns": columns, "dtype": "float32"} for columns in (30, 40)]
    shards.write(folder / "plan.json", {"sweep/softmax.cpu": shards.cut(its, [1.0, 1.0], 0, "spec", None)})
    return folder / "plan.json", its


def test_shards_measure_their_problems_and_their_files_are_joined(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    whole = tmp_path / "whole"
    for folder in (tmp_path, whole):
        folder.mkdir(exist_ok=True)
        write_config(folder)
    plan, its = planned(tmp_path)
    stage, made = Stage(monkeypatch, tmp_path), []
    for number, problem in enumerate(its, 1):
        rows = stage.run("--plan", plan, "--shard", number)
        assert [json.loads(each) for each in rows.problem.unique()] == [problem]
        made.append(stage.out.rename(tmp_path / f"{number}.parquet"))
    join.join(made, stage.out)
    joined, at_once = read_parquet(stage.out), Stage(monkeypatch, whole).run()
    assert set(joined.point) == set(at_once.point)
    assert joined.dtypes.to_dict() == at_once.dtypes.to_dict()
    assert list(joined.columns) == list(at_once.columns)
    assert len(read_notes(stage.out)["jobs"]) == 2
    pd.testing.assert_frame_equal(joined, pd.concat([read_parquet(path) for path in made], ignore_index=True))
    before = stage.bytes_of_journal()
    assert set(stage.run().point) == set(joined.point)
    assert stage.bytes_of_journal() == before  # shards and the whole share what is recorded


def test_a_shard_that_the_plan_or_the_config_lacks_is_refused_in_one_line(tmp_path: Path):
    plan, _ = planned(tmp_path)
    softmax = {**CONFIG["sweep"]["softmax"], "problems": [{"rows": 200, "columns": 40}]}
    write_config(tmp_path, sweep={"softmax": softmax})
    words = (
        "--config",
        tmp_path / "config.yaml",
        "--experiment",
        "softmax",
        "--device",
        "cpu",
        "--journal",
        tmp_path,
        "--out",
        tmp_path / "o",
    )
    for more, said in (
        (("--plan", plan, "--shard", 3), f"error: {plan}: shard 3 of sweep/softmax.cpu: there is none; give the snakemake command again"),
        (("--plan", plan, "--shard", 1), f"error: {plan}: shard 1 of sweep/softmax.cpu: a problem that the config no longer has"),
        (("--shard", 1), "error: --plan and --shard: give both, or neither"),
    ):
        assert one_line(run_module("kernels.sweep", *words, *more)).startswith(said)


def test_joined_notes_have_each_jobs_last_account_and_all_duplicates():
    def account(job: str, ended: float) -> dict[str, Any]:
        return {"job": job, "ended": ended}

    notes = [
        {"experiment": "e", "duplicates": 1, "jobs": [account("a", 5), account("b", 3)]},
        {"experiment": "e", "duplicates": 2, "jobs": [account("b", 9), account("a", 5)]},
    ]
    assert join.joined_notes(notes) == {"experiment": "e", "duplicates": 3, "jobs": [account("a", 5), account("b", 9)]}


def test_a_column_that_a_shard_does_not_fill_takes_the_others_type(tmp_path: Path):
    rows = [{"reason": None, "samples_ms": [], "noise": None}, {"reason": "r", "samples_ms": [1.0], "noise": 0.5, "more": 1}]
    for order in ([0, 1], [1, 0]):
        for number in order:
            write_parquet(tmp_path / f"{number}.parquet", [rows[number]])
        join.join([tmp_path / f"{number}.parquet" for number in order], tmp_path / "out.parquet")
        frame = read_parquet(tmp_path / "out.parquet")
        assert [list(each) for each in frame.samples_ms] == [rows[number]["samples_ms"] for number in order]
        assert frame.noise.dropna().tolist() == [0.5]
    (tmp_path / "0.parquet").write_text("no Parquet")
    with pytest.raises(BadInput, match="not a Parquet record file"):
        join.join([tmp_path / "0.parquet"], tmp_path / "out.parquet")
