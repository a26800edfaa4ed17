"""Jobs one after another inside Snakemake's own process, for a debugger."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import submitit

from snakemake_executor_plugin_submitit.command import run_here
from snakemake_executor_plugin_submitit.ledger import Entry
from snakemake_executor_plugin_submitit.request import Request
from snakemake_executor_plugin_submitit.task import Ending, Task


class Debug:
    name = "debug"

    def __init__(self, folder: Path):
        self.folder, self._closed = folder, False

    def describe(self) -> str:
        return "one after another in this process"

    def objection(self, request: Request) -> None:
        """Everything runs here."""

    def adopt(self, left: Mapping[Task, list[Entry]]) -> set[Task]:
        return set()

    def submit(self, tasks: list[Task]) -> None:
        executor = submitit.DebugExecutor(self.folder)
        for task in tasks:
            task.handle = executor.submit(run_here, task.line, {})

    def poll(self, task: Task) -> Ending | None:
        assert task.handle is not None
        if self._closed:
            return None
        error = task.handle.exception()  # runs it
        return Ending(error is None, str(error or ""))

    def cancel(self, tasks: list[Task]) -> bool:
        """Whoever cancels has interrupted the one that ran."""
        self._closed = True
        return True
