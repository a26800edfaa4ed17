"""What goes wrong around jobs on a real Slurm: nodes, daemons, the driver itself, and requests that make no sense."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from cluster.testbed import daemons
from tests.cluster.drive import command, drive, message, project, start, until

SNAKEFILE = """
rule part:
    output: "out/part{n}.txt"
    shell: "echo $SLURM_ARRAY_TASK_ID >> runs{wildcards.n}; sleep $((2 + 6 * {wildcards.n})); touch {output}"
rule after:
    input: "out/part0.txt"
    output: "out/after.txt"
    shell: "touch {output}"
rule on_node:
    output: "out/on_node.txt"
    resources: constraint="ampere"
    shell: "echo $SLURM_JOB_ID >> tries; if [ $(wc -l < tries) = 1 ]; then sleep 300; fi; touch {output}"
rule on_node_for_good:
    output: "out/on_node_for_good.txt"
    resources: constraint="ampere", slurm_extra="--no-requeue"
    shell: "touch here; sleep 300"
rule cancelled:
    output: "out/cancelled.txt"
    shell: "scancel $SLURM_JOB_ID; sleep 300"
rule next_one:
    output: "out/next{n}.txt"
    shell: "echo x >> runs{wildcards.n}; sleep 5; touch {output}"
"""
PATIENCE = ("--submitit-result-s", "3", "--submitit-poll-s", "2")
PARTS = tuple(f"out/part{n}.txt" for n in range(4))


@pytest.fixture
def folder(tmp_path):
    return project(tmp_path, SNAKEFILE)


def said(folder: Path) -> str:
    return (folder / "driver.log").read_text()


def ask(slurm: dict[str, str], *words: str) -> str:
    return subprocess.run(words, env=os.environ | slurm, capture_output=True, text=True, check=True).stdout


def test_a_node_that_fails_costs_its_jobs_a_requeue_or_their_life(folder, slurm):
    driver = start(folder, *PATIENCE, "on_node", "on_node_for_good", **slurm)
    until(lambda: (folder / "tries").exists() and (folder / "here").exists(), driver)
    ask(slurm, "scontrol", "update", "nodename=new1", "state=down", "reason=test")
    try:
        until(lambda: "its node failed and Slurm did not requeue it" in said(folder), driver)
    finally:  # it may be back already, by itself
        subprocess.run(["scontrol", "update", "nodename=new1", "state=resume"], env=os.environ | slurm, check=False)
    assert driver.wait(120) == 1
    assert message(said(folder), "on_node_for_good")[0].startswith("on_node_for_good, job ")
    assert (folder / "out/on_node.txt").exists()
    assert len(set((folder / "tries").read_text().split())) == 1


def test_a_minute_without_slurmctld_and_slurmdbd_is_survived(folder, slurm):
    """Jobs end, and others become ready, while nobody can be asked or told."""
    state = Path(slurm["SLURM_CONF"]).parent
    driver = start(folder, *PATIENCE, *PARTS, "after", **slurm)
    until(lambda: all((folder / f"runs{n}").exists() for n in range(4)), driver)
    daemons.stop(state, "slurmctld")
    daemons.stop(state, "slurmdbd")
    begun = time.monotonic()
    try:
        until(lambda: time.monotonic() - begun > 60, driver)
    finally:
        daemons.start(state, "slurmdbd")
        daemons.start(state, "slurmctld")
    assert driver.wait(150) == 0, said(folder)
    assert all((folder / name).exists() for name in (*PARTS, "out/after.txt"))
    assert all(len((folder / f"runs{n}").read_text().split()) == 1 for n in range(4))
    assert "wait to be submitted" in said(folder)


def test_without_accounting_a_cancelled_job_is_told_as_what_it_is(folder, slurm):
    state = Path(slurm["SLURM_CONF"]).parent
    daemons.stop(state, "slurmdbd")
    try:
        result = drive(folder, *PATIENCE, "cancelled", **slurm)
    finally:
        daemons.start(state, "slurmdbd")
    assert "cancelled from outside (scancel, or an administrator); log: " in message(result.stdout, "cancelled")[0]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGHUP], ids=["killed", "lost its terminal"])
def test_after_a_driver_that_died_the_same_command_goes_on_and_nothing_runs_twice(folder, slurm, how):
    driver = start(folder, *PATIENCE, *PARTS, **slurm)
    until(lambda: all((folder / f"runs{n}").exists() for n in range(4)), driver)
    driver.send_signal(how)
    driver.wait(30)
    until(lambda: (folder / "out/part0.txt").exists())
    again = drive(folder, *PARTS, **slurm)
    assert again.returncode == 0, again.stdout
    assert "is gone: its lock is cleared" in again.stdout and "goes on, submitted by an earlier driver" in again.stdout
    assert all(len((folder / f"runs{n}").read_text().split()) == 1 for n in range(4))
    assert list((folder / ".snakemake/submitit/jobs").iterdir()) == []
    assert "Nothing to be done" in drive(folder, *PARTS, **slurm).stdout


def test_a_job_left_by_a_dead_driver_is_ended_where_the_rule_changed_since(folder, slurm):
    driver = start(folder, *PATIENCE, "out/next0.txt", **slurm)
    until(lambda: (folder / "runs0").exists(), driver)
    driver.kill()
    driver.wait(30)
    text = (folder / "Snakefile").read_text()
    (folder / "Snakefile").write_text(text.replace("sleep 5; touch", "echo edited; touch"))
    again = drive(folder, "out/next0.txt", **slurm)
    assert again.returncode == 0 and "do something else than is wanted now; cancelled, and run anew" in again.stdout, again.stdout
    assert len((folder / "runs0").read_text().split()) == 2


def test_the_driver_may_be_a_job_itself(folder, slurm):
    line = " ".join(command("out/next0.txt"))
    ask(slurm, "sbatch", f"--chdir={folder}", f"--output={folder}/driver.log", "--mem=2000", "--cpus-per-task=2", "--wrap", line)
    until(lambda: (folder / "driver.log").exists() and "(100%) done" in said(folder))
    assert (folder / "out/next0.txt").exists()
    assert "submitit: slurm" in said(folder)


@pytest.fixture
def without_gpus(slurm):
    """A partition `cpu` that has no GPUs, nor anything else."""
    ask(slurm, "scontrol", "create", "partitionname=cpu")
    yield
    ask(slurm, "scontrol", "delete", "partitionname=cpu")


@pytest.mark.parametrize(
    ("resources", "told"),
    [
        ("slurm_partition='mars'", "slurm_partition is 'mars'; this cluster has gpu, spare, cpu"),
        ("runtime=2000", "runtime is 2000 minutes; partition gpu allows 1440; it would run in cpu (resource slurm_partition)"),
        ("gpu=1 gpu_model='h300'", "gpu_model is 'h300'; partition gpu has a100, rtx2080ti"),
        ("gpu=1 slurm_partition='cpu'", "gpu is 1; partition cpu has no GPUs; it would run in gpu, spare (resource slurm_partition)"),
    ],
    ids=["unknown partition", "over the time limit", "unknown GPU model", "a partition without GPUs"],
)
def test_what_can_never_run_is_one_line_before_anything_is_submitted(folder, slurm, without_gpus, resources, told):
    before = ask(slurm, "sacct", "-X", "--noheader", "--parsable2", "--format=JobID")
    result = drive(folder, "out/next0.txt", "--default-resources", *resources.split(), **slurm)
    assert result.returncode == 1
    assert result.stdout.strip().splitlines()[-1] == f"rule next_one: {told}"
    assert ask(slurm, "sacct", "-X", "--noheader", "--parsable2", "--format=JobID") == before


def test_a_shared_folder_that_cannot_be_written_is_one_line(folder, slurm):
    (folder / "file").touch()
    result = drive(folder, "out/next0.txt", "--submitit-folder", "file/submitit", **slurm)
    assert result.returncode == 1
    assert (
        result.stdout.strip().splitlines()[-1].startswith(f"submitit-folder {folder}/file/submitit: cannot be written to (Not a directory)")
    )


def test_a_misspelt_key_of_the_profile_is_named_in_the_last_line(folder, slurm):
    profile = folder / "cluster/profile.v9+.yaml"
    profile.write_text(profile.read_text() + "\nsubmitit-foldr: elsewhere\n")
    result = drive(folder, "out/next0.txt", **slurm)
    assert result.returncode == 2
    assert result.stdout.strip().splitlines()[-1].endswith("error: unrecognized arguments: --submitit-foldr=elsewhere")
