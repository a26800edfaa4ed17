"""Before anything is submitted: the bill, shards, and what is left out."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from analysis.records import read_notes, read_parquet
from tests.workflow.project import TINY, Project

CONFIG = ("--configfile", "config/tiny.yaml")
COUNTS = ("jobs", "points", "recorded", "pruned")


@pytest.fixture
def copied(project: Project, tmp_path: Path) -> Project:
    shutil.copytree(project.root, tmp_path / "copy")
    return Project(tmp_path / "copy")


def changed(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(TINY), **changes}


def bill(told: str) -> dict[str, dict[str, int]]:
    """The counts of each line of a bill by its experiment and device. Fails where the bill is not before Snakemake's list of jobs."""
    lines = told.splitlines()
    head = next((number for number, line in enumerate(lines) if line.startswith("experiment ")), None)
    if head is None:
        return {}
    assert not any(line.startswith(("Job stats:", "rule ")) for line in lines[:head]), told
    rows = [line.split() for line in lines[head + 1 : lines.index("", head)]]
    return {f"{row[0]} {row[1]}": dict(zip(COUNTS, map(int, row[3:7]), strict=True)) for row in rows}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        pytest.param((), {"sweep.softmax cpu", "bench.scaling cpu", "total cpu"}, id="all"),
        pytest.param(("sweep_softmax",), {"sweep.softmax cpu", "total cpu"}, id="sweep"),
        pytest.param(("bench_scaling",), {"sweep.softmax cpu", "bench.scaling cpu", "total cpu"}, id="bench-with-its-sweep"),
        pytest.param(("results/new/figures/sweep_softmax.cpu.pdf",), {"sweep.softmax cpu", "total cpu"}, id="figure"),
        pytest.param(("results/new/tune/softmax.cpu.json",), {"sweep.softmax cpu", "total cpu"}, id="tuned"),
        pytest.param(("results/new/compile/softmax.sm_90.parquet",), set(), id="nothing-measured"),
    ],
)
def test_a_dry_run_says_what_its_targets_take(words: tuple[str, ...], named: set[str], project: Project):
    done = project.snakemake("-n", *words, *CONFIG, "--config", "run=new")
    assert done.returncode == 0, done.stdout
    assert set(bill(done.stdout)) == named


def test_the_bill_has_a_rag_experiment_with_all_the_points_that_it_may_take(project: Project):
    arms = {"arms": {"a": {"service": "echo"}}, "vary": {"instances": [1, 2]}, "repeats": 3}
    search = {"search": {"start": 4, "precision": 1.5, "most": 16}, "seconds": 10, "times": [2]}
    figures = {"figures": ["capacity", "overload"], "against": "instances"}
    project.config(
        changed(name="served", rag={"x": {**arms, "load": {"rates": [1, 2]}}, "y": {**arms, **figures, "load": search}}), "served.yaml"
    )
    done = project.snakemake("-n", "rag_x", "rag_y", "--configfile", "config/served.yaml")
    assert done.returncode == 0, done.stdout
    lines = bill(done.stdout)
    assert lines["rag.x cpu"] == {"jobs": 1, "points": 12, "recorded": 0, "pruned": 0}
    assert lines["rag.y cpu"]["points"] >= 2 * 3 * 5
    assert lines["total cpu"]["jobs"] == 2
    assert {"figure_capacity", "figure_overload", "table_capacity"} <= set(done.stdout.split())


def test_the_bill_of_a_run_that_is_done_is_empty_and_that_of_a_sealed_one_is_none(project: Project):
    assert bill(project.snakemake("-n", *CONFIG).stdout)["total cpu"] == {"jobs": 0, "points": 12, "recorded": 12, "pruned": 0}
    assert bill(project.snakemake("-n", "figures").stdout) == {}


def test_shards_are_measured_joined_and_kept(copied: Project):
    copied.config(changed(shard_minutes=0.01))
    words = ("sweep_softmax", *CONFIG, "--config", "run=cut", "from=tiny")
    done = copied.snakemake(*words)
    assert done.returncode == 0, done.stdout
    run = copied.root / "results/cut"
    shards = sorted((run / "sweep/shards").glob("*.parquet"))
    assert [path.name for path in shards] == ["softmax.cpu.1.parquet", "softmax.cpu.2.parquet"]
    joined = read_parquet(run / "sweep/softmax.cpu.parquet")
    old = read_parquet(copied.root / "results/tiny/sweep/softmax.cpu.parquet")
    assert set(joined.point) == set(old.point)
    assert [read_parquet(path).problem.nunique() for path in shards] == [1, 1]
    assert read_notes(run / "sweep/softmax.cpu.parquet")["duplicates"] == 0
    assert "Nothing to be done" in copied.snakemake(*words).stdout
    plan = json.loads((run / "plan.json").read_text())["cuts"]["sweep/softmax.cpu"]["shards"]
    softmax = {**TINY["sweep"]["softmax"], "problems": [{"rows": 256, "columns": [40, 64, 96]}]}
    copied.config(changed(shard_minutes=0.01, sweep={"softmax": softmax}))
    more = copied.snakemake("-n", *words).stdout
    assert bill(more)["sweep.softmax cpu"] == {"jobs": 1, "points": 9, "recorded": 6, "pruned": 0}
    assert sum("output: results/cut/sweep/shards/" in line for line in more.splitlines()) == 1
    assert json.loads((run / "plan.json").read_text())["cuts"]["sweep/softmax.cpu"]["shards"] == plan  # a dry run writes nothing


def test_what_cannot_be_measured_is_named_at_both_ends_and_the_rest_goes_on(copied: Project):
    gone = {"operator": "softmax", "problems": [{"rows": 1, "columns": 1}], "backends": ["triton"]}
    copied.config(changed(sweep={**TINY["sweep"], "gone": gone}))
    line = "left out: sweep.gone on cpu: none of its backends (triton) runs there"
    words = (*CONFIG, "--config", "run=rest", "from=tiny", "--", "sweep_softmax", "sweep_gone")
    assert copied.snakemake("-n", *words).stdout.count(line) == 1
    done = copied.snakemake(*words)
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    ends = [number for number, each in enumerate(lines) if each == line]
    steps = [number for number, each in enumerate(lines) if "steps (" in each]
    assert len(ends) == 2 and ends[0] < steps[0] <= steps[-1] < ends[1], done.stdout
    assert (copied.root / "results/rest/sweep/softmax.cpu.parquet").is_file()
    assert line not in copied.snakemake("-n", *CONFIG, "--config", "run=rest", "--", "sweep_softmax").stdout


def test_a_journal_of_an_older_format_is_one_line_of_the_bill(copied: Project):
    folder = copied.root / "results/tiny/sweep/journal/softmax.cpu"
    (folder / "20250101-old.jsonl").write_text('{"point": "p", "samples_ms": []}\n')
    told = copied.snakemake("-n", *CONFIG).stdout
    where = "results/tiny/sweep/journal/softmax.cpu/20250101-old.jsonl, line 1"
    assert sum(line.startswith(f"error: sweep.softmax on cpu: {where}: a record without role") for line in told.splitlines()) == 1
    assert "bench.scaling cpu" in bill(told)


def test_a_damaged_plan_is_refused_in_one_line(copied: Project):
    (copied.root / "results/tiny/plan.json").write_text("{")
    done = copied.snakemake(*CONFIG)
    assert done.returncode == 2
    assert "error: results/tiny/plan.json: not a plan of schema 1; remove it, and the problems are cut into shards anew" in done.stdout
