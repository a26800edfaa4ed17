"""The main job through a real Slurm, sent by either executor from the same rules; nothing is faked but the GPUs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from analysis.measured import mapping
from analysis.records import read_parquet
from tests.workflow.project import TINY, Project

SMOKE = ("--configfile", "config/smoke.yaml")
STAGES = {"compile": 8, "validate": 6, "sweep": 2, "bench": 2, "rag": 1}
"""The stages whose jobs are no local rules, and how many record files, one a job, config/smoke.yaml asks of each."""
RULES = {stage: "sweep_shard" if stage == "sweep" else stage for stage in STAGES}
"""The rule, so the job's name, that measures for each stage; each sweep is one shard, which a local rule makes into its record file."""
GPU = """
rule gpu:
    output: "seen"
    threads: 2
    resources: gpu=1, gpu_model="a100", slurm_partition="", slurm_account="", constraint=""
    shell: "echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES > {output}"
rule cpu:
    output: "none"
    resources: gpu=0, gpu_model="", slurm_partition="", slurm_account="", constraint=""
    shell: "touch {output}"
"""
"""Resources as the rules give them: an empty text where a device asks for nothing."""


@dataclass(frozen=True)
class Job:
    """A row of Slurm's accounting. `id` is Slurm's number of this job, `array` that of its array."""

    name: str
    array: str
    id: str
    state: str
    cores: int


def jobs_of(project: Project, slurm: dict[str, str]) -> list[Job]:
    """What Slurm's accounting has of the jobs that were sent from the project's folder."""
    listing = ["sacct", "--allocations", "--noheader", "--parsable2", "--format=WorkDir,JobName,JobID,JobIDRaw,State,AllocCPUS"]
    told = subprocess.run(listing, env=os.environ | slurm, capture_output=True, text=True, check=True).stdout
    rows = [line.split("|") for line in told.splitlines()]
    return [
        Job(name, id.split("_")[0], raw, state, int(cores)) for folder, name, id, raw, state, cores in rows if folder == str(project.root)
    ]


def records(run: Path) -> dict[str, list[Path]]:
    return {stage: sorted(run.glob(f"{stage}/*.parquet")) for stage in STAGES}


def measured_by(file: Path) -> set[str]:
    """The Slurm jobs that a file's records name."""
    return {str(mapping(text).get("slurm_job_id")) for text in read_parquet(file).provenance}


def with_srun(slurm: dict[str, str], folder: Path) -> dict[str, str]:
    """The jobs of snakemake-executor-plugin-slurm-jobstep 0.6.1 lose SLURM_CONF: an srun that knows where this Slurm is."""
    srun = folder / "srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={slurm["SLURM_CONF"]} exec {shutil.which("srun")} "$@"\n')
    srun.chmod(0o755)
    return slurm | {"PATH": f"{folder}:{os.environ['PATH']}"}


def by_slurm(project: Project, variables: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """The cluster profile with the other executor, which looks at its jobs after 40 s unless told otherwise."""
    return project.snakemake(
        "--profile", "cluster", "--executor", "slurm", "--slurm-init-seconds-before-status-checks", "5", *words, **variables
    )


@pytest.fixture(scope="module")
def project(slurm: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy in which config/smoke.yaml ran through submitit, on the nodes' CPUs."""
    made = Project.copy(tmp_path_factory.mktemp("slurm"))
    done = made.snakemake("--profile", "cluster", *SMOKE, "--config", 'devices=["cpu"]', **slurm)
    assert done.returncode == 0, done.stdout
    return made


@pytest.fixture(scope="module")
def jobs(project: Project, slurm: dict[str, str]) -> list[Job]:
    return jobs_of(project, slurm)


@pytest.fixture(scope="module")
def others(project: Project, jobs: list[Job], slurm: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> list[Job]:
    """The jobs of a second run, by the other executor; it starts from the first, so that what was measured is copied."""
    variables = with_srun(slurm, tmp_path_factory.mktemp("bin"))
    done = by_slurm(project, variables, *SMOKE, "--config", 'devices=["cpu"]', "run=second", "from=smoke")
    assert done.returncode == 0, done.stdout
    known = {job.id for job in jobs}
    return [job for job in jobs_of(project, slurm) if job.id not in known]


@pytest.mark.parametrize("run", ["smoke", "second"])
def test_every_stage_has_its_records(project: Project, others: list[Job], run: str):
    found = records(project.root / "results" / run)
    assert {stage: len(files) for stage, files in found.items()} == STAGES
    assert all(len(read_parquet(file)) for files in found.values() for file in files)
    assert (project.root / "results" / run / "numbers.tex").read_text().count("\\newcommand") > 20


def test_every_job_but_the_local_ones_ran_on_slurm(jobs: list[Job]):
    assert Counter(job.name for job in jobs) == {RULES[stage]: count for stage, count in STAGES.items()}
    assert {job.state for job in jobs} == {"COMPLETED"}


@pytest.mark.parametrize("stage", STAGES)
def test_records_name_the_job_that_made_them(project: Project, jobs: list[Job], stage: str):
    ids = {job.id for job in jobs if job.name == RULES[stage]}
    named = [measured_by(file) for file in records(project.root / "results/smoke")[stage]]
    assert set().union(*named) == ids
    assert all(len(each) == 1 for each in named)


@pytest.mark.parametrize("stage", ["compile", "validate"])
def test_equal_requests_share_an_array(jobs: list[Job], stage: str):
    assert len({job.array for job in jobs if job.name == stage}) == 1


def test_the_shards_of_a_sweep_share_an_array(slurm: dict[str, str], tmp_path: Path):
    made = Project.copy(tmp_path)
    made.config({**TINY, "shard_minutes": 0.01})  # a problem a shard
    words = ("sweep_softmax", "--profile", "cluster", "--configfile", "config/tiny.yaml")
    done = made.snakemake(*words, **slurm)
    assert done.returncode == 0, done.stdout
    shards = [job for job in jobs_of(made, slurm) if job.name == "sweep_shard"]
    assert (len(shards), len({job.array for job in shards})) == (2, 1)
    assert measured_by(made.root / "results/tiny/sweep/softmax.cpu.parquet") == {job.id for job in shards}


def test_measuring_jobs_have_eight_cores_of_a_node_wherever_they_are_sent_from(jobs: list[Job]):
    assert {job.name: job.cores for job in jobs} == {"compile": 1, "validate": 1, "sweep_shard": 8, "bench": 8, "rag": 8}


def test_the_other_executor_runs_the_same_jobs(others: list[Job]):
    assert Counter(job.state for job in others) == {"COMPLETED": sum(STAGES.values())}
    assert Counter(job.cores for job in others) == {1: STAGES["compile"] + STAGES["validate"], 8: 5}


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_from_another_names_the_jobs_of_what_it_copied(project: Project, jobs: list[Job], others: list[Job], stage: str):
    made_anew = stage in ("compile", "validate")
    named = set().union(*(measured_by(file) for file in records(project.root / "results/second")[stage]))
    assert named <= {job.id for job in (others if made_anew else jobs)}


@pytest.mark.parametrize("run", [(), ("run=second", "from=smoke")], ids=["smoke", "second"])
def test_nothing_is_to_be_done_again(project: Project, slurm: dict[str, str], others: list[Job], run: tuple[str, ...]):
    done = project.snakemake("--profile", "cluster", *SMOKE, "--config", 'devices=["cpu"]', *run, **slurm)
    assert "Nothing to be done" in done.stdout, done.stdout


def test_the_other_executor_gets_the_gpu_model_that_a_rule_names(project: Project, slurm: dict[str, str], tmp_path: Path):
    shutil.copytree(project.root / "cluster", tmp_path / "cluster")
    (tmp_path / "config").mkdir()
    (tmp_path / "config/paper.yaml").write_text("{}")
    (tmp_path / "Snakefile").write_text(GPU)
    done = by_slurm(Project(tmp_path), with_srun(slurm, tmp_path), "seen", "none")
    assert done.returncode == 0, done.stdout
    node, gpu = (tmp_path / "seen").read_text().split()
    assert node == "new1" and gpu.isdigit()
