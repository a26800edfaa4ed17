"""One Snakemake job on its way through submitit, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import submitit

from snakemake_executor_plugin_submitit.request import Request


@dataclass(frozen=True)
class Ending:
    """`reason` is one line and says why a job that is not `ok` ended."""

    ok: bool
    reason: str = ""


@dataclass(eq=False)
class Task:
    """`handle` is submitit's job, None until it is submitted; `refused` says why it never will be."""

    job: Any
    line: str
    request: Request
    handle: submitit.Job[None] | None = None
    refused: str = ""

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
        return Ending(True) if outcome == "success" else Ending(False, str(value).strip().splitlines()[-1].partition(": ")[2])


class Cluster(Protocol):
    """Where tasks run: Slurm, this machine, or Snakemake's own process."""

    name: str

    def submit(self, tasks: list[Task]) -> None:
        """Submit tasks of equal requests; sets each one's `handle` (perhaps later) or `refused`."""

    def poll(self, task: Task) -> Ending | None:
        """How `task` ended; None while it waits or runs."""

    def cancel(self, tasks: list[Task]) -> None:
        """End the tasks and wait until nothing of them is left, or until Slurm has been told."""
