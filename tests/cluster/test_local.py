"""`snakemake --profile cluster` on a machine without Slurm."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cluster.drive import alive, command, drive, message, project, until

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
rule endless:
    output: "out/endless.txt"
    shell: "sleep 300 & echo $! > out/pids; wait"
"""
LOCAL = ("--submitit-cluster", "local", "--submitit-cores", "3")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run of everything that ends, failures too."""
    folder = project(tmp_path_factory.mktemp("local"), SNAKEFILE)
    targets = ("all", "broken", "logged", "greedy")
    return folder, drive(folder, *LOCAL, "--submitit-gpus", "4,7", *targets)


def test_the_profile_brings_the_papers_config(finished):
    folder, _ = finished
    assert (folder / "out/first.txt").read_text() == "paper\n"


def test_no_gpu_is_given_to_two_jobs_at_a_time(finished):
    folder, _ = finished
    parts = [json.loads((folder / f"out/part{n}.json").read_text()) for n in range(3)]
    assert {part["gpu"] for part in parts} == {"4", "7"}
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


def test_more_gpus_than_the_machine_has_is_refused_in_one_line(finished):
    _, result = finished
    assert message(result.stdout, "greedy") == ["greedy: it asks for 3 GPU(s) and this machine has 2 to hand out"]


def test_a_config_on_the_command_line_wins(tmp_path):
    folder = project(tmp_path, SNAKEFILE)
    result = drive(folder, "--configfile", "config/smoke.yaml", "--submitit-cluster", "debug", "first", "broken")
    assert (folder / "out/first.txt").read_text() == "smoke\n"
    assert "then it was not" in result.stdout and result.returncode == 1


def test_ctrl_c_leaves_no_process(tmp_path):
    folder = project(tmp_path, SNAKEFILE)
    driver = subprocess.Popen(command(*LOCAL, "endless"), cwd=folder, start_new_session=True, stderr=subprocess.DEVNULL)
    while not (folder / "out/pids").exists() or not (folder / "out/pids").read_text().strip():
        assert driver.poll() is None
        time.sleep(0.1)
    sleeper = int((folder / "out/pids").read_text())
    assert alive(sleeper)
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: to the whole foreground group
    assert driver.wait(60) != 0
    assert not alive(sleeper)
    assert not running_in(folder)


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
