"""Processes of this machine, told apart from strangers that were given the same number since."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from dataclasses import dataclass
from pathlib import Path


def machine_id() -> str:
    """This machine since its last start, and the process namespace: what a pid means something in."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}:{os.readlink('/proc/self/ns/pid')}"


@dataclass(frozen=True)
class Process:
    """`born` is the clock tick since boot at which the process started."""

    pid: int
    born: int

    @classmethod
    def of(cls, pid: int) -> Process:
        """The process that has the number `pid` now. Raises ProcessLookupError where none has."""
        found = _stat(pid)
        if found is None:
            raise ProcessLookupError(f"no process {pid}")
        return cls(pid, found[1])

    def alive(self) -> bool:
        """Whether it runs; one that has ended and that nobody has waited for yet is over."""
        return (found := _stat(self.pid)) is not None and found[0] != "Z" and found[1] == self.born

    def end(self, seconds: float) -> None:
        """TERM, and after `seconds` KILL to its whole group; waits until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            if self.alive():
                os.kill(self.pid, signal.SIGTERM)
                self.wait(seconds)
            self.end_group()
            self.wait(seconds)

    def end_group(self) -> None:
        """KILL to what is left of its group, also where it is over itself; nothing where its number went to a stranger."""
        now = _stat(self.pid)
        if now is None or now[1] == self.born:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def wait(self, seconds: float) -> None:
        """Wait until it is over, `seconds` at most."""
        try:
            handle = os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # gone, or a kernel before 5.3
            deadline = time.monotonic() + seconds
            while self.alive() and time.monotonic() < deadline:
                time.sleep(0.05)
            return
        try:
            if self.alive():
                select.select([handle], [], [], seconds)
        finally:
            os.close(handle)


def with_variable(name: str, value: str) -> list[Process]:
    """The processes of this user that have `name=value` in their environment."""
    found, wanted = [], f"{name}={value}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(Process.of(int(folder.name)))
    return found


def _stat(pid: int) -> tuple[str, int] | None:
    """State letter and start time, from /proc/PID/stat behind the command's name (which may hold anything)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0], int(fields[19])
