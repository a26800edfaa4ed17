"""Drivers that live, drivers that are gone, and what those leave behind."""

import os
import subprocess
import sys
import threading
import time

import pytest
from snakemake_executor_plugin_submitit import driver
from snakemake_executor_plugin_submitit.driver import Driver, clear, lives
from snakemake_executor_plugin_submitit.settings import ExecutorSettings

DIES = """
import os, sys
from pathlib import Path
from snakemake_executor_plugin_submitit.driver import Driver
driver = Driver(Path(sys.argv[1]))
driver.start(sys.argv[2:])
print(driver.name, flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def locks(tmp_path):
    files = [tmp_path / "locks" / name for name in ("0.input.lock", "0.output.lock")]
    files[0].parent.mkdir()
    for file in files:
        file.write_text("out.txt\n")
    return files


@pytest.fixture
def dead(tmp_path, locks):
    """The folder of a driver that was killed."""
    done = subprocess.run([sys.executable, "-c", DIES, str(tmp_path / "drivers"), *map(str, locks)], capture_output=True, text=True)
    return tmp_path / "drivers" / done.stdout.strip()


def test_a_living_driver_keeps_its_lock(tmp_path, locks):
    one = Driver(tmp_path)
    one.start(map(str, locks))
    assert lives(one.folder)
    clear(tmp_path)
    assert all(lock.exists() for lock in locks)
    one.end()
    assert not lives(one.folder) and not one.folder.exists()


def test_a_killed_driver_is_gone_and_so_is_its_lock(dead, locks, capsys):
    assert (dead / driver.FILE).exists() and not lives(dead)
    clear(dead.parent)
    assert not any(lock.exists() for lock in locks)
    assert "is gone: its lock is cleared" in capsys.readouterr().err


def test_a_lock_that_another_took_since_stays(dead, locks):
    locks[0].unlink()
    locks[0].write_text("other.txt\n")
    os.utime(locks[0], ns=(1, 1))
    clear(dead.parent)
    assert locks[0].exists() and not locks[1].exists()


def test_a_process_that_was_given_the_number_since_is_not_the_driver(tmp_path):
    one = Driver(tmp_path)
    one.start([])
    content = driver._read(one.folder)
    driver.write(one.folder / driver.FILE, content | {"born": content["born"] - 1})
    assert not lives(one.folder)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A driver of another machine, as far as its file tells."""
    monkeypatch.setattr(driver, "BEAT_S", 0.2)
    monkeypatch.setattr(driver, "PATIENCE_S", 3)
    one = Driver(tmp_path)
    one.start([])
    driver.write(one.folder / driver.FILE, driver._read(one.folder) | {"machine": "another", "host": "login2"})
    yield one
    one.end()


def test_on_another_machine_a_beat_is_life(elsewhere, capsys):
    assert lives(elsewhere.folder)
    assert "on login2" in capsys.readouterr().err


def test_on_another_machine_silence_is_death(elsewhere):
    elsewhere._over.set()
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and thread.daemon:
            thread.join(2)
    assert not lives(elsewhere.folder)


def test_a_driver_that_was_taken_for_dead_notices(elsewhere):
    (elsewhere.folder / driver.FILE).unlink()
    deadline = time.monotonic() + 10
    while not elsewhere.lost and time.monotonic() < deadline:
        time.sleep(0.05)
    assert elsewhere.lost


def test_the_settings_clear_a_dead_lock_where_snakemake_will_work(dead, locks, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["snakemake", "--directory", str(dead.parent.parent), "-j", "3", "all"])
    ExecutorSettings(folder="drivers")
    assert not any(lock.exists() for lock in locks)
