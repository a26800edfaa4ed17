"""One Snakemake job on its way through submitit, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import submitit

from snakemake_executor_plugin_submitit.command import RequeueRefused
from snakemake_executor_plugin_submitit.ledger import Entry
from snakemake_executor_plugin_submitit.request import Request


@dataclass(frozen=True)
class Ending:
    """`reason` is one line and says why a job that is not `ok` ended; `again`: it is to be submitted once more."""

    ok: bool
    reason: str = ""
    again: bool = False


@dataclass(eq=False)
class Task:
    """`handle` is submitit's job, None until it is submitted; `refused` says why it never will be.

    `key` and `definition` are what the ledger knows it by; `requeues` counts its submissions after the first.
    `made`: its outputs appeared after Snakemake had found them missing.
    """

    job: Any
    line: str
    request: Request
    key: str = ""
    definition: str = ""
    handle: submitit.Job[None] | None = None
    refused: str = ""
    requeues: int = 0
    made: bool = False

    @property
    def id(self) -> str:
        return self.handle.job_id if self.handle else "waiting"

    @property
    def log(self) -> Path | None:
        return self.handle.paths.stdout if self.handle else None

    def result(self) -> Ending | None:
        """How the command ended, from submitit's result file; None where there is none."""
        assert self.handle is not None
        file = self.handle.paths.result_pickle
        if not file.exists():
            return None
        outcome, value = submitit.core.utils.pickle_load(file)
        if outcome == "success":
            return Ending(True)
        kind, _, reason = str(value).strip().splitlines()[-1].partition(": ")
        return Ending(False, reason, again=kind.endswith(RequeueRefused.__name__))


class Cluster(Protocol):
    """Where tasks run: Slurm, this machine, or Snakemake's own process."""

    name: str

    def objection(self, request: Request) -> str | None:
        """Why the request can never run here, in one line; None where it may."""

    def submit(self, tasks: list[Task]) -> None:
        """Submit tasks of equal requests; sets each one's `handle` (perhaps later) or `refused`."""

    def adopt(self, task: Task, entry: Entry) -> bool:
        """Follow the job that a dead driver submitted for `task`; False where it is to be submitted anew."""

    def poll(self, task: Task) -> Ending | None:
        """How `task` ended; None while it waits or runs."""

    def cancel(self, tasks: list[Task]) -> None:
        """End the tasks and wait until nothing of them is left, or until Slurm has been told."""
