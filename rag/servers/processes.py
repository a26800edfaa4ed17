"""The processes below this one: found in /proc, adopted when their parent leaves them, and ended to the last. Linux alone."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_LIBC = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """From now on a descendant whose parent ends becomes this process's child, and not init's, whatever session it made itself."""
    if _LIBC.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def end_with_parent() -> None:
    """In a child before it becomes another program: TERM when its parent is killed."""
    _LIBC.prctl(_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def below(pid: int) -> list[int]:
    """The living descendants of `pid`, children before their own."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            if state not in "ZX":
                children.setdefault(int(parent), []).append(int(folder.name))
    found = list(children.get(pid, []))
    for each in found:  # grows while it is walked
        found += children.get(each, [])
    return found


def title(pid: int) -> str:
    """Its command line, or what it calls itself instead; "" where it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def end_all(first: list[int], grace_s: float, reap: Callable[[], object]) -> None:
    """End every descendant: TERM to `first`; once those are gone, or after `grace_s` seconds, KILL to all. `reap` waits for the dead."""
    _send(first, signal.SIGTERM)
    until = time.monotonic() + grace_s
    while left := below(os.getpid()):
        if time.monotonic() > until or not set(first) & set(left):
            _send(left, signal.SIGKILL)
        reap()
        time.sleep(0.02)  # grandchildren whose parents died: only some of them are ours to wait for
    reap()


def _send(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
