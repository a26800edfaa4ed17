"""`snakemake --profile cluster` on a machine without Slurm."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.cluster.drive import alive, drive, message, project, start, until

SNAKEFILE = """
rule all:
    input: "out/joined.txt"
rule first:
    output: "out/first.txt"
    shell: "echo {config[word]} > {output}"
rule part:
    input: "out/first.txt"
    output: "out/part{n}.json"
    resources: gpu=1
    shell:
        "S=$(date +%s.%N); sleep 1; "
        "echo '{{\\"gpu\\": \\"'$CUDA_VISIBLE_DEVICES'\\", \\"start\\": '$S', \\"end\\": '$(date +%s.%N)'}}' > {output}"
rule joined:
    input: expand("out/part{n}.json", n=range(3))
    output: "out/joined.txt"
    shell: "echo \\"[$CUDA_VISIBLE_DEVICES]\\" > {output}; cat {input} >> {output}"
rule broken:
    output: "out/broken.txt"
    shell: "echo all was well; echo then it was not >&2; exit 3"
rule logged:
    output: "out/logged.txt"
    log: "logs/logged.txt"
    shell: "echo written to the log >{log}; exit 4"
rule greedy:
    output: "out/greedy.txt"
    resources: gpu=3
    shell: "touch {output}"
rule slow:
    output: "out/slow{n}.txt"
    resources: gpu=1
    shell:
        "S=$(date +%s.%N); echo {wildcards.n} >> out/starts; until [ -e go ]; do sleep 0.1; done; sleep 2; "
        "echo $S $(date +%s.%N) > {output}"
rule link:
    output: "out/link{n}.txt"
    group: "chain"
    shell: "echo link{wildcards.n} >> out/starts; until [ -e go ]; do sleep 0.1; done; touch {output}"
rule end:
    input: "out/link{n}.txt"
    output: "out/end{n}.txt"
    group: "chain"
    shell: "echo end{wildcards.n} >> out/starts; touch {output}"
rule endless:
    output: "out/endless.txt"
    shell: "sleep 300 & echo $! > out/pids; wait"
"""
GPUS = [f"fake{os.getpid()}{letter}" for letter in "ab"]  # locks are the machine's: names that no other tests have
LOCAL = ("--submitit-cluster", "local", "--submitit-cores", "3")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run of everything that ends, failures too."""
    folder = project(tmp_path_factory.mktemp("local"), SNAKEFILE)
    targets = ("all", "broken", "logged")
    return folder, drive(folder, *LOCAL, "--submitit-gpus", ",".join(GPUS), *targets)


def test_the_profile_brings_the_papers_config(finished):
    folder, _ = finished
    assert (folder / "out/first.txt").read_text() == "paper\n"


def test_no_gpu_is_given_to_two_jobs_at_a_time(finished):
    folder, _ = finished
    parts = [json.loads((folder / f"out/part{n}.json").read_text()) for n in range(3)]
    assert {part["gpu"] for part in parts} == set(GPUS)
    for one in parts:
        for other in parts:
            assert one is other or one["gpu"] != other["gpu"] or one["end"] < other["start"] or other["end"] < one["start"]


def test_a_job_that_asks_for_no_gpu_sees_none(finished):
    folder, _ = finished
    assert (folder / "out/joined.txt").read_text().startswith("[]\n")


def test_a_failure_says_why_names_the_log_and_shows_its_last_lines(finished):
    folder, result = finished
    first, *lines = message(result.stdout, "broken")
    assert result.returncode == 1
    assert "exit status 3" in first
    assert Path(first.partition("log: ")[2]).is_relative_to(folder / ".snakemake/submitit")
    assert lines[:2] == ["all was well", "then it was not"]


def test_the_last_lines_are_those_of_the_rules_own_log_where_it_has_one(finished):
    _, result = finished
    assert message(result.stdout, "logged")[1:] == ["written to the log"]


def test_more_gpus_than_the_machine_has_is_refused_before_anything_runs(tmp_path):
    folder = project(tmp_path, SNAKEFILE)
    result = drive(folder, *LOCAL, "--submitit-gpus", ",".join(GPUS), "all", "greedy")
    assert result.returncode == 1 and not (folder / "out/first.txt").exists()
    assert result.stdout.strip().splitlines()[-1] == "rule greedy: gpu is 3; this machine has 2 to hand out"


def test_a_config_on_the_command_line_wins(tmp_path):
    folder = project(tmp_path, SNAKEFILE)
    result = drive(folder, "--configfile", "config/smoke.yaml", "--submitit-cluster", "debug", "first", "broken")
    assert (folder / "out/first.txt").read_text() == "smoke\n"
    assert "then it was not" in result.stdout and result.returncode == 1


def test_ctrl_c_leaves_no_process(tmp_path):
    folder = project(tmp_path, SNAKEFILE)
    driver = start(folder, *LOCAL, "endless")
    until(lambda: written(folder / "out/pids"), driver)
    sleeper = int(written(folder / "out/pids"))
    assert alive(sleeper)
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: to the whole foreground group
    assert driver.wait(60) != 0
    assert not alive(sleeper)
    assert not running_in(folder)
    assert list((folder / ".snakemake/submitit/jobs").iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGHUP], ids=["killed", "lost its terminal"])
def test_after_a_driver_that_died_the_same_command_goes_on_and_nothing_runs_twice(tmp_path, how):
    folder = project(tmp_path, SNAKEFILE)
    targets = (*LOCAL, "--submitit-gpus", ",".join(GPUS), "out/slow0.txt", "out/slow1.txt", "out/slow2.txt")
    driver = start(folder, *targets)
    until(lambda: len(starts(folder)) == 2, driver)
    os.killpg(driver.pid, how)
    driver.wait(30)
    (folder / "go").touch()
    again = drive(folder, *targets)
    assert again.returncode == 0, again.stdout
    assert "is gone: its lock is cleared" in again.stdout
    assert sorted(starts(folder)) == ["0", "1", "2"]
    assert not running_in(folder)


def test_a_group_of_jobs_outlives_its_driver_too(tmp_path):
    folder = project(tmp_path, SNAKEFILE)
    targets = (*LOCAL, "out/end0.txt", "out/end1.txt")
    driver = start(folder, *targets)
    until(lambda: len(starts(folder)) == 2, driver)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait(30)
    (folder / "go").touch()
    again = drive(folder, *targets)
    assert again.returncode == 0, again.stdout
    assert sorted(starts(folder)) == ["end0", "end1", "link0", "link1"]


def test_two_drivers_do_not_hand_out_one_gpu(tmp_path):
    folder = project(tmp_path, SNAKEFILE)
    options = (*LOCAL, "--submitit-gpus", GPUS[0])
    drivers = [start(folder, *options, f"out/slow{n}.txt") for n in range(2)]
    until(lambda: starts(folder))
    (folder / "go").touch()
    assert [driver.wait(120) for driver in drivers] == [0, 0]
    (first, end), (second, _) = sorted(tuple(map(float, (folder / f"out/slow{n}.txt").read_text().split())) for n in range(2))
    assert first < end <= second


def written(file: Path) -> str:
    return file.read_text().strip() if file.exists() else ""


def starts(folder: Path) -> list[str]:
    """The jobs that began, one word a beginning."""
    return written(folder / "out/starts").split()


def running_in(folder: Path) -> list[str]:
    """The command lines of living processes that work in `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder:
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found
