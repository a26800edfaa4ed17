"""The command of one task: how it ends, what it leaves, and when it is run again."""

import contextlib
import signal
import subprocess
import sys
import time

import pytest
import submitit
from snakemake_executor_plugin_submitit import messages
from snakemake_executor_plugin_submitit.command import Command, CommandFailed
from snakemake_executor_plugin_submitit.process import Process
from snakemake_executor_plugin_submitit.request import Request
from snakemake_executor_plugin_submitit.task import Task


@pytest.fixture(autouse=True)
def signals():
    """The command sets its task's signal handlers; here the task is the test."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("line", "told"), [("exit 3", "exit status 3"), ("kill -KILL $$", "killed by SIGKILL")])
def test_a_failure_says_how(line, told):
    with pytest.raises(CommandFailed, match=told):
        Command(line, {})()


def test_the_command_sees_its_environment(tmp_path):
    Command(f'echo "$CUDA_VISIBLE_DEVICES" > {tmp_path}/seen', {"CUDA_VISIBLE_DEVICES": "1,3"})()
    assert (tmp_path / "seen").read_text() == "1,3\n"


def test_the_command_knows_when_it_was_submitted_and_when_it_began(tmp_path, tasks):
    (task,) = tasks(1)
    before = time.time()
    Command(f'echo "$SNAKEMAKE_JOB_SUBMITTED $SNAKEMAKE_JOB_STARTED" > {tmp_path}/seen', task.told)()
    submitted, started = map(float, (tmp_path / "seen").read_text().split())
    assert submitted == pytest.approx(task.submitted, abs=0.001)
    assert before - 0.001 <= started <= time.time()


def test_the_command_does_not_die_of_the_signal_meant_for_its_task():
    Command("kill -USR2 $$", {})()


def test_a_command_that_has_ended_is_not_run_again():
    command = Command("true", {})
    again = command.checkpoint()
    assert isinstance(again, submitit.helpers.DelayedSubmission)
    command()
    assert command.checkpoint() is None


LATE = """
import os, signal
import submitit
from snakemake_executor_plugin_submitit.command import Command

command = Command("kill -USR2 $PPID; sleep 0.2", {})

def handler(*_):
    os.waitid(os.P_PID, command.child.pid, os.WEXITED | os.WNOWAIT)
    assert command.checkpoint() is None
    raise submitit.core.utils.UncompletedJobError("not requeued")

signal.signal(signal.SIGUSR2, handler)
command()
"""


def test_the_signal_that_arrives_as_the_command_ends_changes_nothing():
    """submitit's handler, told that there is nothing to checkpoint, raises in the middle of the wait.

    In a process of its own, as a task has it: of the tests' threads any could get the signal while the command starts.
    """
    subprocess.run([sys.executable, "-c", LATE], check=True, timeout=60)


ENDED = """
import sys
from snakemake_executor_plugin_submitit.command import Command
Command(sys.argv[1], {})()
"""


def test_a_second_signal_does_not_break_off_the_clearing_up(tmp_path):
    line = f"(trap '' TERM; sleep 300 & echo $! > {tmp_path}/deaf; wait; sleep 300)"
    task = subprocess.Popen([sys.executable, "-c", ENDED, line])
    while not (tmp_path / "deaf").exists() or not (tmp_path / "deaf").read_text().strip():
        time.sleep(0.05)
    task.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    task.send_signal(signal.SIGTERM)
    assert task.wait(30) == 128 + signal.SIGTERM
    assert not alive(int((tmp_path / "deaf").read_text()))


def test_a_task_that_is_told_to_stop_ends_all_that_its_command_started(tmp_path):
    line = f"sleep 300 & echo $! > {tmp_path}/background; (trap '' TERM; sleep 300 & echo $! > {tmp_path}/deaf; wait); true"
    task = subprocess.Popen([sys.executable, "-c", ENDED, line])
    while not all((tmp_path / name).exists() and (tmp_path / name).read_text().strip() for name in ("background", "deaf")):
        time.sleep(0.05)
    task.send_signal(signal.SIGTERM)
    assert task.wait(30) == 128 + signal.SIGTERM
    for name in ("background", "deaf"):
        assert not alive(int((tmp_path / name).read_text()))


def test_a_task_that_is_killed_takes_its_command_along(tmp_path):
    task = subprocess.Popen([sys.executable, "-c", ENDED, f"sleep 300 & echo $! > {tmp_path}/background; wait"])
    while not (tmp_path / "background").exists() or not (tmp_path / "background").read_text().strip():
        time.sleep(0.05)
    sleeper = int((tmp_path / "background").read_text())
    task.kill()
    deadline = time.monotonic() + 20
    while alive(sleeper) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(sleeper)


def alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        return Process.of(pid).alive()
    return False


LOG = """submitit INFO (2026-11-23 19:00:00,000) - Starting with JobEnvironment(job_id=1)
an older attempt
submitit INFO (2026-11-23 19:01:00,000) - Starting with JobEnvironment(job_id=1)
Building DAG of jobs...
Shell command: python -m kernels.sweep
measuring
{said}
Error in rule sweep_knn:
    jobid: 0
submitit ERROR (2026-11-23 19:01:09,000) - Submitted job triggered an exception
"""


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Command 'set -e; x' returned non-zero exit status 3.", "exit status 3"),
        ("Command 'set -e; x' died with <Signals.SIGKILL: 9>.", "killed by SIGKILL (often by the kernel, out of memory"),
    ],
)
def test_the_log_tells_how_the_command_in_the_job_ended_and_its_last_lines(tmp_path, said, reason):
    log = tmp_path / "log"
    log.write_text(LOG.format(said=said))
    assert messages.in_job(log).startswith(reason)
    assert messages.last_lines(log) == ["measuring", said]


@pytest.mark.parametrize(("state", "named"), [("OUT_OF_MEMORY", "mem_mb"), ("TIMEOUT", "runtime"), ("CANCELLED", "scancel")])
def test_what_slurm_knows_is_one_line_with_what_to_do(state, named):
    ending = messages.by_state(state, Task(None, "", Request("r", 60, 1, memory_mb=8000)))
    assert not ending.ok and named in ending.reason and "\n" not in ending.reason


def test_what_slurm_does_not_explain_is_left_to_the_command():
    assert messages.by_state("FAILED", Task(None, "", Request("r", 60, 1))) is None
