"""Runs Snakemake with the cluster profile on a small Snakefile in a folder of its own."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from snakemake_executor_plugin_submitit.process import Process

ROOT = Path(__file__).parents[2]
PROFILE = ROOT / "cluster" / "profile.v9+.yaml"


def project(folder: Path, snakefile: str) -> Path:
    """A repository in small: the real profile, two configs and `snakefile`."""
    (folder / "cluster").mkdir()
    shutil.copy(PROFILE, folder / "cluster")
    (folder / "config").mkdir()
    for name in ("paper", "smoke"):
        (folder / "config" / f"{name}.yaml").write_text(f"word: {name}\n")
    (folder / "Snakefile").write_text(snakefile)
    return folder


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "snakemake", "--profile", "cluster", "--seconds-between-status-checks", "1", *arguments]


def drive(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Snakemake's exit status and all it said, in `stdout`."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(command(*arguments), cwd=folder, env=os.environ | variables, text=True, check=False, timeout=300, **streams)


def start(folder: Path, *arguments: str, **variables: str) -> subprocess.Popen[bytes]:
    """Snakemake in the background as a shell with a terminal starts it, in a group of its own; what it says is in `driver.log`.

    Where the tests run without a terminal, by nohup or in the background, they have inherited that signals are ignored.
    """
    with (folder / "driver.log").open("a") as log:
        return subprocess.Popen(
            command(*arguments), cwd=folder, env=os.environ | variables, start_new_session=True, stdout=log, stderr=log, preexec_fn=_heed
        )


def _heed() -> None:
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def message(output: str, rule: str) -> list[str]:
    """The message of `rule`'s error: its first line, then the log's last lines."""
    lines = output.partition(f"Error in rule {rule}:\n")[2].splitlines()
    assert lines, f"no error of rule {rule} in:\n{output}"
    first = lines[0].strip().removeprefix("message: ")
    tail = itertools.takewhile(lambda line: line.startswith("    | "), lines[1:])
    return [first, *(line.strip().removeprefix("| ") for line in tail)]


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet is over all the same."""
    with contextlib.suppress(ProcessLookupError):
        return Process.of(pid).alive()
    return False


def until(met: Callable[[], Any], driver: subprocess.Popen[Any] | None = None, seconds: float = 120) -> None:
    """Wait until `met()`, or fail: after `seconds`, or as soon as the driver that was to bring it about has ended."""
    deadline = time.monotonic() + seconds
    while not met():
        assert driver is None or driver.poll() is None, "the driver has ended"
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
