"""Tasks that Slurm has not taken yet: arrays in pieces that it takes, and patience where it takes none now."""

from __future__ import annotations

import time
from collections.abc import Callable

from snakemake_executor_plugin_submitit.task import Task

_LIMIT = ("MaxSubmitJob", "MaxJobPerUser", "job submit limit", "MaxArraySize", "Invalid job array specification")
_AWAY = (
    "Unable to contact slurm controller", "Connection refused", "Connection timed out", "temporarily unable to accept job",
    "Resource temporarily unavailable", "Zero Bytes were transmitted", "slurmdbd", "Transport endpoint is not connected",
)  # fmt: skip
_AMBIGUOUS = ("timed out", "Socket", "Zero Bytes", "Unable to contact")
_FIRST_S, _LONGEST_S = 5.0, 60.0


class Refusal(Exception):
    """sbatch did not take a submission. `reason` is its line that says why."""

    def __init__(self, text: str):
        errors = [line.strip() for line in text.splitlines() if "error" in line.lower()] or text.strip().splitlines() or ["no reason given"]
        super().__init__(errors[0])
        self.reason = errors[0]
        self.limit = any(part in text for part in _LIMIT)
        self.away = any(part in text for part in (*_AWAY, *_AMBIGUOUS))
        self.ambiguous = any(part in text for part in _AMBIGUOUS)
        """Slurm may have taken it and failed to say so."""


class Backlog:
    """Submits by `submit`, at most `most` tasks of equal requests at a time; it raises Refusal."""

    def __init__(self, submit: Callable[[list[Task]], None], most: int, say: Callable[[str], None]):
        self._submit, self._most, self._say = submit, most, say
        self._groups: list[list[Task]] = []
        self._size, self._pause_s, self._not_before = most, _FIRST_S, float("-inf")

    def add(self, tasks: list[Task]) -> None:
        self._groups.append(list(tasks))

    def clear(self) -> None:
        self._groups.clear()

    def drain(self) -> None:
        """Submit what waits, as far as Slurm takes it now; a task that it will never take gets its `refused`."""
        while self._groups and time.monotonic() >= self._not_before:
            piece = self._groups[0][: self._size]
            try:
                self._submit(piece)
            except Refusal as refusal:
                if refusal.limit and len(piece) > 1:
                    self._size = len(piece) // 2
                    continue
                if refusal.limit or refusal.away:
                    self._wait(refusal)
                    return
                for task in piece:
                    task.refused = f"sbatch refused it: {refusal.reason}"
            else:
                self._size, self._pause_s = min(2 * len(piece), self._most) if len(piece) == self._size else self._size, _FIRST_S
            del self._groups[0][: len(piece)]
            if not self._groups[0]:
                del self._groups[0]

    def _wait(self, refusal: Refusal) -> None:
        waiting = sum(map(len, self._groups))
        self._say(f"{waiting} job(s) wait to be submitted, next try in {self._pause_s:.0f} s: {refusal.reason}")
        self._not_before = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_S)
