"""One Snakemake job on its way through submitit, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from snakemake_executor_plugin_submitit.ledger import Entry, Member
from snakemake_executor_plugin_submitit.request import Request

if TYPE_CHECKING:
    import submitit


SUBMITTED = "SNAKEMAKE_JOB_SUBMITTED"


@dataclass(frozen=True)
class Ending:
    """`reason` is one line and says why a job that is not `ok` ended; `again`: it is to be submitted once more.

    `timed_out`: which then counts as one of the requeues that it may have.
    """

    ok: bool
    reason: str = ""
    again: bool = False
    timed_out: bool = False


@dataclass(eq=False)
class Task:
    """`handle` is submitit's job, None until it is submitted; `refused` says why it never will be.

    `members` are what the ledger knows it by; `requeues` counts its time-outs that ended in a new submission.
    `made`: its outputs appeared after Snakemake had found them missing. `submitted`: when Snakemake gave it out, in Unix time.
    """

    job: Any
    line: str
    request: Request
    members: tuple[Member, ...] = ()
    handle: submitit.Job[None] | None = None
    refused: str = ""
    requeues: int = 0
    made: bool = False
    submitted: float = field(default_factory=time.time)

    @property
    def id(self) -> str:
        return self.handle.job_id if self.handle else "waiting"

    @property
    def told(self) -> dict[str, str]:
        """What its job finds in its environment."""
        return {SUBMITTED: f"{self.submitted:.3f}"}

    @property
    def log(self) -> Path | None:
        return self.handle.paths.stdout if self.handle else None

    def result(self) -> Ending | None:
        """How the command ended, from submitit's result file; None where there is none."""
        from submitit.core.utils import pickle_load

        assert self.handle is not None
        file = self.handle.paths.result_pickle
        if not file.exists():
            return None
        outcome, value = pickle_load(file)
        if outcome == "success":
            return Ending(True)
        kind, _, reason = str(value).strip().splitlines()[-1].partition(": ")
        refused = kind.endswith(".RequeueRefused")
        return Ending(False, reason, again=refused, timed_out=refused)

    def same(self, entries: list[Entry]) -> bool:
        """Whether one submission of an earlier driver does what this task is to do."""
        definitions = {entry.key: entry.definition for entry in entries}
        one = len({(entry.token, entry.index) for entry in entries}) == 1
        return one and definitions == {member.key: member.definition for member in self.members}


class Cluster(Protocol):
    """Where tasks run: Slurm, this machine, or Snakemake's own process."""

    name: str

    def describe(self) -> str:
        """Where that is, in a few words."""

    def objection(self, request: Request) -> str | None:
        """Why the request can never run here, in one line; None where it may."""

    def submit(self, tasks: list[Task]) -> None:
        """Submit tasks of equal requests; sets each one's `handle` (perhaps later) or `refused`."""

    def adopt(self, left: Mapping[Task, list[Entry]]) -> set[Task]:
        """Follow the jobs that dead drivers submitted, those that it returns; the others are over and to be submitted anew."""

    def poll(self, task: Task) -> Ending | None:
        """How `task` ended; None while it waits or runs."""

    def cancel(self, tasks: list[Task]) -> bool:
        """End the tasks, and start none from now on; False where Slurm could not be told, and they may go on."""
