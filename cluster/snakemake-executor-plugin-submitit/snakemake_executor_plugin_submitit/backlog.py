"""Tasks that Slurm has not taken yet: arrays in pieces that it takes, and patience where it takes none now."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from snakemake_executor_plugin_submitit.task import Task

_LIMIT = ("MaxSubmitJob", "MaxJobPerUser", "MaxArraySize", "Invalid job array specification")
_GENERIC_LIMIT = "job submit limit"  # Slurm's line behind any refusal for a QOS or an association, wall time and size included
_REASON = re.compile(r"\b(QOS|Assoc)(Max|Min|Grp)\w+")
_AWAY = (
    "Unable to contact slurm controller", "Connection refused", "Connection timed out", "temporarily unable to accept job",
    "Resource temporarily unavailable", "Zero Bytes were transmitted", "slurmdbd", "Transport endpoint is not connected",
)  # fmt: skip
_AMBIGUOUS = ("timed out", "Socket", "Zero Bytes", "Unable to contact")
_FIRST_S, _LONGEST_S = 5.0, 60.0


class Refusal(Exception):
    """sbatch did not take a submission. `reason` is its line that says why; there is none where sbatch was killed."""

    def __init__(self, text: str):
        errors = [line.strip() for line in text.splitlines() if "error" in line.lower()] or text.strip().splitlines()
        self.reason = errors[0] if errors else "sbatch gave no answer"
        super().__init__(self.reason)
        self.limit = any(part in text for part in _LIMIT) or (_GENERIC_LIMIT in text and not _REASON.search(text))
        self.ambiguous = not errors or any(part in text for part in _AMBIGUOUS)
        """Slurm may have taken it and failed to say so."""
        self.away = self.ambiguous or any(part in text for part in _AWAY)


@dataclass
class Group:
    """Tasks of equal requests, and when to try them next."""

    tasks: list[Task]
    size: int
    pause_s: float = _FIRST_S
    not_before: float = float("-inf")

    def postpone(self) -> float:
        """How many seconds from now to the next try, longer each time."""
        seconds, self.pause_s = self.pause_s, min(2 * self.pause_s, _LONGEST_S)
        self.not_before = time.monotonic() + seconds
        return seconds


class Backlog:
    """Submits by `submit`, at most `most` tasks of equal requests at a time; it raises Refusal."""

    def __init__(self, submit: Callable[[list[Task]], None], most: int, say: Callable[[str], None]):
        self._submit, self._most, self._say = submit, most, say
        self._groups: list[Group] = []

    def add(self, tasks: list[Task]) -> None:
        self._groups.append(Group(list(tasks), self._most))

    def clear(self) -> None:
        self._groups.clear()

    def drain(self) -> None:
        """Submit what waits, as far as Slurm takes it now; a task that it will never take gets its `refused`."""
        for group in list(self._groups):
            while group.tasks and time.monotonic() >= group.not_before:
                if not self._try(group):
                    return
            if not group.tasks:
                self._groups.remove(group)

    def _try(self, group: Group) -> bool:
        """Submit a piece of a group. False where Slurm is away, for other groups too."""
        piece = group.tasks[: group.size]
        try:
            self._submit(piece)
        except Refusal as refusal:
            if refusal.limit and len(piece) > 1:
                group.size = len(piece) // 2
                return True
            if refusal.limit or refusal.away:
                seconds = max(each.postpone() for each in (self._groups if refusal.away else [group]))
                self._say(
                    f"{sum(len(each.tasks) for each in self._groups)} job(s) wait to be submitted, next try in {seconds:.0f} s: {refusal}"
                )
                return not refusal.away
            for task in piece:
                task.refused = f"sbatch refused it: {refusal}"
        else:
            if len(piece) == group.size:
                group.size = min(2 * group.size, self._most)
            group.pause_s = _FIRST_S
        del group.tasks[: len(piece)]
        return True
