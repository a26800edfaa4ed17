"""Runs: again, from, sealed; and what a change of code or config runs again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from analysis.records import read_parquet
from tests.workflow.project import TINY, Project

CONFIG = ("--configfile", "config/tiny.yaml")


@pytest.fixture
def copied(project: Project, tmp_path: Path) -> Project:
    """The project with its run, to be changed."""
    shutil.copytree(project.root, tmp_path / "copy")
    return Project(tmp_path / "copy")


def test_again_measures_beside_the_old_records_and_once(copied: Project):
    path = copied.root / "results/tiny/sweep/softmax.cpu.parquet"
    before = read_parquet(path)
    done = copied.snakemake("sweep_softmax", *CONFIG, "--config", "again=true")
    assert done.returncode == 0, done.stdout
    after = read_parquet(path)
    assert after.groupby("attempt").size().to_dict() == {1: len(before), 2: len(before)}
    assert list(after[after.attempt == 1].samples_ms.map(list)) == list(before.samples_ms.map(list))
    assert "Nothing to be done" in copied.snakemake("sweep_softmax", *CONFIG).stdout


def test_again_wants_an_experiment(copied: Project):
    done = copied.snakemake(*CONFIG, "--config", "again=true")
    assert done.returncode != 0
    assert "--config again=true: name an experiment as the target, such as" in done.stdout


def test_a_run_from_another_copies_what_is_unchanged(copied: Project):
    changed = {**TINY, "sweep": {"softmax": {**TINY["sweep"]["softmax"], "problems": [{"rows": 256, "columns": [64, 96]}]}}}
    copied.config(changed, "week2.yaml")
    done = copied.snakemake("sweep_softmax", "--configfile", "config/week2.yaml", "--config", "run=week2", "from=tiny")
    assert done.returncode == 0, done.stdout
    old = read_parquet(copied.root / "results/tiny/sweep/softmax.cpu.parquet").set_index("point")
    new = read_parquet(copied.root / "results/week2/sweep/softmax.cpu.parquet").set_index("point")
    shared = old.index.intersection(new.index)
    assert len(shared) == len(old) // 2
    assert all(list(old.samples_ms[point]) == list(new.samples_ms[point]) for point in shared)
    assert (new.provenance[shared].str.contains('"copied": true')).all()
    assert not (new.provenance[new.index.difference(shared)].str.contains('"copied": true')).any()


def test_a_sealed_run_is_a_source_and_refuses_to_be_measured(copied: Project):
    sealed = copied.snakemake("seal", *CONFIG)
    assert sealed.returncode == 0, sealed.stdout
    folder = copied.root / "results/tiny"
    for made in ("figures", "tables"):
        shutil.rmtree(folder / made)
    for source in folder.glob("*/*.parquet"):
        source.touch()  # a clone gives files any time
    rules = copied.planned("paper", "--config", "run=tiny")
    assert {"figure_blocks", "table_bench", "report_pdf"} <= rules
    assert not rules & {"compile", "validate", "sweep", "tune", "bench", "rag"}
    assert copied.snakemake("tables", "--config", "run=tiny").returncode == 0
    refused = copied.snakemake("sweep_softmax", "--config", "run=tiny")
    assert refused.returncode != 0
    assert "run tiny is sealed and never changes" in refused.stdout
    assert "snakemake sweep_softmax --config run=NAME from=tiny" in refused.stdout
    record = folder / "sweep/softmax.cpu.parquet"
    flipped = bytearray(record.read_bytes())
    flipped[100] ^= 1
    record.write_bytes(flipped)
    stopped = copied.snakemake("paper", "--config", "run=tiny")
    assert stopped.returncode == 2
    assert "not as sealed: sweep/softmax.cpu.parquet has changed" in stopped.stdout


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_editing_a_figure_redraws_that_figure_alone(copied: Project):
    edit(copied.root / "analysis/figures/scaling.py", '"""', '"""Edited. ')
    assert copied.planned(*CONFIG) == {"figure_scaling", "report_pdf", "all"}


def test_editing_one_experiment_of_the_config_runs_that_one(copied: Project):
    changed = {**TINY, "bench": {"scaling": {**TINY["bench"]["scaling"], "samples": 6}}}
    copied.config(changed)
    rules = copied.planned(*CONFIG)
    assert "bench" in rules
    assert "sweep" not in rules


def test_editing_a_kernel_measures_its_operator_again(copied: Project):
    edit(copied.root / "tests/operators/softmax/torch_impl.py", '"""', '"""Edited. ')
    assert {"compile", "validate", "sweep"} <= copied.planned(*CONFIG)


def test_the_cluster_profile_runs_the_same_here(copied: Project):
    done = copied.snakemake("sweep_softmax", "--profile", "cluster", *CONFIG, "--config", "run=clustered")
    assert done.returncode == 0, done.stdout
    swept = read_parquet(copied.root / "results/clustered/sweep/softmax.cpu.parquet")
    assert set(swept[swept.status == "measured"].backend) == {"numpy", "torch"}


def test_what_every_job_is_given_reaches_the_measuring_ones_too(copied: Project):
    words = ("-n", "--forceall", "sweep_softmax", *CONFIG, "--default-resources", "slurm_account=lab", "slurm_partition=big", "runtime=7")
    shown = [line for line in copied.snakemake(*words).stdout.splitlines() if line.strip().startswith("resources:")]
    measuring = [line for line in shown if "gpu=0" in line]
    assert measuring and all("slurm_account=lab" in line and "slurm_partition=big" in line for line in measuring), shown


def test_every_experiment_is_a_target_with_a_sentence(project: Project):
    listed = project.snakemake(*CONFIG, "--list-target-rules").stdout
    for name in ("all", "paper", "figures", "tables", "sweep_softmax", "bench_scaling", "fetch_models"):
        assert any(line.startswith(f"{name} (") for line in listed.splitlines()), listed


def test_a_config_without_models_has_none_to_fetch(project: Project):
    done = project.snakemake("fetch_models", *CONFIG)
    assert done.returncode == 0 and "names no model of the hub; nothing to fetch" in done.stdout
