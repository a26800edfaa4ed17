"""The Snakemake that submits and watches jobs: its folder, the sign that it lives, and what a dead one left locked.

Each driver has a folder of its own below `submitit-folder`, with its jobs' scripts, logs and results, so that a job id that
is given out twice (by a Slurm that was set up anew, or a pid) never meets the results of another job. As long as the driver
lives the folder holds `driver.json`, touched every few seconds.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from snakemake_executor_plugin_submitit.process import Process, machine_id

BEAT_S = 10.0
PATIENCE_S = 3.5 * BEAT_S
"""How long the sign of a driver on another machine is watched before its silence means that it is gone."""
FILE = "driver.json"


class Driver:
    """This process, from `start` to `end`."""

    def __init__(self, folder: Path):
        self.name = f"{time.strftime('%Y%m%d-%H%M%S')}-{socket.gethostname().partition('.')[0]}-{os.getpid()}"
        self.folder = folder / self.name
        self.lost = False
        self._over = threading.Event()

    def start(self, locks: Iterable[str]) -> None:
        """Give the sign of life, naming the files of Snakemake's lock, which go with this process."""
        me, stamps = Process.of(os.getpid()), []
        for lock in locks:
            with contextlib.suppress(FileNotFoundError):  # another Snakemake, at its end, removed the locks of all
                stamps.append([str(Path(lock).absolute()), os.stat(lock).st_mtime_ns])
        content = {"host": socket.gethostname(), "machine": machine_id(), "pid": me.pid, "born": me.born, "locks": stamps}
        write(self.folder / FILE, content)
        threading.Thread(target=self._beat, daemon=True).start()
        atexit.register(self.end)  # with nothing to do Snakemake leaves without a word

    def end(self) -> None:
        self._over.set()
        (self.folder / FILE).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it holds the jobs' logs
            self.folder.rmdir()

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            try:
                os.utime(self.folder / FILE)
            except FileNotFoundError:
                self.lost = not self._over.is_set()  # another took this one, suspended for long, for dead
                return
            except OSError:
                continue  # a file system that is away for a while


def write(file: Path, content: Any) -> None:
    """Write JSON as a whole or not at all. The folder is made where it is missing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content))
    os.replace(temporary, file)


def lives(folder: Path) -> bool:
    """Whether the driver of a folder is at work. One on another machine is watched for PATIENCE_S."""
    content = _read(folder)
    if content is None:
        return False
    if content["machine"] == machine_id():
        return Process(content["pid"], content["born"]).alive()
    return _beats(folder / FILE, content)


def describe(folder: Path) -> str:
    content = _read(folder)
    return f"process {content['pid']} on {content['host']}" if content else folder.name


def clear(folder: Path) -> None:
    """Remove what drivers that died left behind: their sign of life and the files of Snakemake's lock that were theirs."""
    for file in sorted(folder.glob(f"*/{FILE}")):
        content = _read(file.parent)
        if content is None:
            continue
        who = describe(file.parent)
        if lives(file.parent):
            continue
        for lock, stamp in content["locks"]:
            with contextlib.suppress(FileNotFoundError):
                if os.stat(lock).st_mtime_ns == stamp:  # not somebody else's who was given the same name since
                    os.unlink(lock)
        file.unlink(missing_ok=True)
        say(f"{who} is gone: its lock is cleared, and jobs that it left in the queue or running are taken over")


def say(text: str) -> None:
    """Before Snakemake has its logger."""
    print(f"submitit: {text}", file=sys.stderr)


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        return json.loads((folder / FILE).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _beats(file: Path, content: dict[str, Any]) -> bool:
    """Opening the file makes a network file system ask its server for the time of the last beat."""

    def beat() -> int | None:
        try:
            with file.open() as opened:
                return os.fstat(opened.fileno()).st_mtime_ns
        except FileNotFoundError:
            return None

    first, deadline = beat(), time.monotonic() + PATIENCE_S
    say(f"a driver is or was at work here: process {content['pid']} on {content['host']}; up to {PATIENCE_S:.0f} s to see whether it lives")
    while first is not None and time.monotonic() < deadline:
        time.sleep(1)
        if (now := beat()) != first:
            return now is not None
    return False
