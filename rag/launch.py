"""Starts a service in a process of its own and always ends it, with whatever it started."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import selectors
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path

from analysis.cli import BadInput
from analysis.environment import ROOT
from rag.service import READY

READY_S = 600.0
END_S = 10.0


@contextlib.contextmanager
def launched(arguments: Sequence[str], log: Path, ready_s: float = READY_S) -> Iterator[str]:
    """Run `python -m rag.service` with `arguments` on a free loopback port; yield its address once it answers.

    What it says on standard error is appended to `log`, whose last lines an error quotes. Its standard input is a pipe
    from this process, so that it ends even when this process is killed. Raises BadInput where the service's own input was bad, and
    RuntimeError where it ends, or is not ready within `ready_s` seconds.
    """
    command = [sys.executable, "-m", "rag.service", "--port", "0", "--until-eof", *arguments]
    log.parent.mkdir(parents=True, exist_ok=True)
    many_files()
    with log.open("ab") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment(), start_new_session=True
        )
    try:
        yield _address(process, log, ready_s)
    finally:
        _end(process)


def many_files() -> None:
    """Let this process, and those that it starts, have as many open files as they may: connections are not capped."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError):  # macOS knows a lower limit than it tells
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def environment() -> dict[str, str]:
    """This process's environment, with the project's root first on Python's path whatever the working directory, and no model hub."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}


def _address(process: subprocess.Popen[bytes], log: Path, ready_s: float) -> str:
    """The address in the line that says the service is ready; lines before it, such as a library's, say nothing."""
    assert process.stdout is not None
    said = b""
    until = time.monotonic() + ready_s
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not (ready := re.search(rb"^%s(.*)\n" % READY.encode(), said, re.MULTILINE)):
            if not selector.select(max(0.0, until - time.monotonic())):
                raise RuntimeError(f"the service was not ready within {ready_s:g} s; the end of {log}:\n{tail(log)}")
            piece = os.read(process.stdout.fileno(), 4096)
            if not piece:
                raise _ended(process, log)
            said += piece
    return ready[1].decode().strip()


def _ended(process: subprocess.Popen[bytes], log: Path) -> Exception:
    """Why a service ended before it was ready: its own one line for bad input, else the end of its log."""
    code = process.wait(END_S)
    end = tail(log)
    if code == 2 and (last := end.splitlines()[-1:]) and last[0].startswith("error: "):
        return BadInput(last[0].removeprefix("error: "))
    return RuntimeError(f"the service ended with code {code} before it was ready; the end of {log}:\n{end}")


def reachable(url: str) -> bool:
    """Whether anything listens at a service's address, however busy it is."""
    place = urllib.parse.urlsplit(url)
    try:
        with socket.create_connection((place.hostname or "", place.port or 0), timeout=END_S):
            return True
    except ConnectionRefusedError:
        return False
    except OSError:
        return True


def tail(log: Path, lines: int = 20) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process group: kindly, and after `END_S` seconds by force."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
            break
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()
