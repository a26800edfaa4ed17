"""Processes, told apart from strangers with the same number."""

import os
import signal
import subprocess
import sys

import pytest
from snakemake_executor_plugin_submitit.process import Process, with_variable


@pytest.fixture
def sleeper():
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(300)"], env=os.environ | {"MARK": "here"}, start_new_session=True
    )
    yield child
    child.kill()
    child.wait()


def test_alive_until_it_ends_even_if_nobody_waits_for_it(sleeper):
    process = Process.of(sleeper.pid)
    assert process.alive()
    sleeper.send_signal(signal.SIGKILL)
    process.wait(20)
    assert not process.alive(), "it is a zombie now"


def test_a_stranger_with_its_number_is_not_it_and_is_left_alone(sleeper):
    stranger = Process(sleeper.pid, Process.of(sleeper.pid).born - 1)
    assert not stranger.alive()
    stranger.end(1)
    assert Process.of(sleeper.pid).alive()


def test_none_has_the_number():
    with pytest.raises(ProcessLookupError):
        Process.of(2**22 + 1)


def test_found_by_a_variable_of_its_environment(sleeper):
    assert with_variable("MARK", "here") == [Process.of(sleeper.pid)]


def test_end_kills_what_does_not_listen(tmp_path):
    code = (
        f"import signal, time, pathlib; signal.signal(15, signal.SIG_IGN); pathlib.Path({str(tmp_path / 'up')!r}).touch(); time.sleep(300)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    while not (tmp_path / "up").exists():
        assert child.poll() is None
    Process.of(child.pid).end(0.2)
    assert child.wait(20) == -signal.SIGKILL


def test_what_is_left_of_a_group_ends_with_its_dead_leader(tmp_path):
    leader = subprocess.Popen(["bash", "-c", f"sleep 300 & echo $! > {tmp_path}/member; wait"], start_new_session=True)
    process = Process.of(leader.pid)
    while not (tmp_path / "member").exists() or not (tmp_path / "member").read_text():
        assert leader.poll() is None
    member = Process.of(int((tmp_path / "member").read_text()))
    leader.kill()
    process.wait(20)
    assert member.alive()
    process.end_group()
    member.wait(20)
    assert not member.alive()
    leader.wait()
