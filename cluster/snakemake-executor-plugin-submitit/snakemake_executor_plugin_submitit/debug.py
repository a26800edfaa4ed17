"""Jobs one after another inside Snakemake's own process, for a debugger."""

from __future__ import annotations

from pathlib import Path

import submitit

from snakemake_executor_plugin_submitit.command import run_here
from snakemake_executor_plugin_submitit.ledger import Entry
from snakemake_executor_plugin_submitit.request import Request
from snakemake_executor_plugin_submitit.task import Ending, Task


class Debug:
    name = "debug"

    def __init__(self, folder: Path):
        self.folder = folder / "%j"

    def objection(self, request: Request) -> None:
        """Everything runs here."""

    def adopt(self, task: Task, entry: Entry) -> bool:
        return False

    def submit(self, tasks: list[Task]) -> None:
        executor = submitit.DebugExecutor(self.folder)
        for task in tasks:
            task.handle = executor.submit(run_here, task.line, {})

    def poll(self, task: Task) -> Ending:
        assert task.handle is not None
        error = task.handle.exception()  # runs it
        return Ending(error is None, str(error or ""))

    def cancel(self, tasks: list[Task]) -> None:
        """Nothing to do: whoever cancels has interrupted the one that ran."""
