"""Where a job's wall time goes: from its process's start on, every moment belongs to one phase."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

START_UP = "start-up"


def process_age_s() -> float:
    """Seconds since this process was started, by the system's own record; 0 where that is not to be had."""
    try:
        started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, float(Path("/proc/uptime").read_text().split()[0]) - started)
    except (OSError, ValueError, IndexError):
        return 0.0


class Phases:
    """The phases of this process so far. It begins in START_UP: the interpreter and its imports."""

    def __init__(self) -> None:
        self.begun = time.time() - process_age_s()
        self._segments: list[tuple[str, float]] = [(START_UP, self.begun)]
        self._inner: dict[str, float] = {}
        self._at = START_UP

    def enter(self, name: str) -> None:
        """End the phase that was and begin `name`."""
        if name != self._at:
            self._segments.append((name, time.time()))
            self._at = name

    @contextlib.contextmanager
    def within(self, name: str) -> Iterator[None]:
        """A short phase that recurs inside another: it counts by itself, and is no segment of its own."""
        start = time.time()
        try:
            yield
        finally:
            spent = time.time() - start
            self._inner[name] = self._inner.get(name, 0.0) + spent
            self._inner[self._at] = self._inner.get(self._at, 0.0) - spent

    def record(self) -> dict[str, Any]:
        """`started` and `ended` in Unix time, `segments` as [phase, start, end] in seconds from `started`, and `seconds` by phase."""
        now = time.time()
        ends = [*(start for _, start in self._segments[1:]), now]
        segments = [(name, start, end) for (name, start), end in zip(self._segments, ends, strict=True)]
        seconds = dict(self._inner)
        for name, start, end in segments:
            seconds[name] = seconds.get(name, 0.0) + end - start
        return {
            "started": self.begun,
            "ended": now,
            "segments": [[name, round(start - self.begun, 3), round(end - self.begun, 3)] for name, start, end in segments],
            "seconds": {name: round(value, 4) for name, value in seconds.items()},
        }
