"""An operator of another kind, added as one folder and one block of config, passes through every stage."""

from __future__ import annotations

import json
from pathlib import Path

from analysis.records import read_parquet
from tests.needs import FEATURES
from tests.workflow.project import Project


def test_it_is_compiled_and_validated(run: Path):
    compiled = read_parquet(run / "compile/softmax.sm_90.parquet")
    assert set(compiled[compiled.verdict == "ok"].backend) == {"triton"}
    for backend, mode in (("numpy", "native"), ("torch", "native"), ("triton", "interpreter")):
        checked = read_parquet(run / f"validate/softmax.{backend}.cpu.parquet")
        assert checked.ok.all()
        assert set(checked["mode"]) == {mode}


def test_it_is_swept_tuned_and_measured_against_its_peer(run: Path):
    swept = read_parquet(run / "sweep/softmax.cpu.parquet")
    assert set(swept[swept.status == "measured"].backend) == {"numpy", "torch"}
    assert {len(samples) for samples in swept.samples_ms} == {5}
    tuned = json.loads((run / "tune/softmax.cpu.json").read_text())["entries"]
    assert {(entry["backend"], entry["problem"]["columns"]) for entry in tuned} == {(b, c) for b in ("numpy", "torch") for c in (40, 64)}
    assert "scipy softmax" in set(read_parquet(run / "bench/scaling.cpu.parquet").backend)


def test_it_reaches_the_heat_map_the_tables_and_the_numbers(run: Path):
    for name in (
        "figures/sweep_softmax.cpu.png",
        "figures/bench_scaling.cpu.pdf",
        "tables/sweep_softmax.cpu.tex",
        "tables/bench_scaling.cpu.md",
    ):
        assert (run / name).stat().st_size > 500, name
    assert "Softmax" in (run / "numbers.tex").read_text()
    assert (run / "report.pdf").is_file() == (FEATURES["tex"]() is None)


def test_nothing_is_to_be_done_again(project: Project):
    done = project.snakemake("--configfile", "config/tiny.yaml")
    assert "Nothing to be done" in done.stdout, done.stdout
