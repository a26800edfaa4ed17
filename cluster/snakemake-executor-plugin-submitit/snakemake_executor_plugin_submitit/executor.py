"""The executor that Snakemake calls: groups ready jobs by what they ask for, submits, and reports how each ended."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import AbstractExecutor, SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface

from snakemake_executor_plugin_submitit import driver, ledger, slurm
from snakemake_executor_plugin_submitit.debug import Debug
from snakemake_executor_plugin_submitit.local import Local
from snakemake_executor_plugin_submitit.machine import this_machine
from snakemake_executor_plugin_submitit.messages import failure
from snakemake_executor_plugin_submitit.request import Request, read, undecided
from snakemake_executor_plugin_submitit.task import Cluster, Ending, Task


class Executor(RemoteExecutor):
    def __post_init__(self) -> None:
        # Snakemake's own list of active jobs is empty while it checks them, and a Ctrl-C at that moment must reach them all
        self.unfinished: dict[Task, None] = {}
        self.folder = Path(self.executor_settings.folder).absolute()
        self.driver = driver.Driver(self.folder)
        self.ledger = ledger.Ledger(self.folder, self.driver.name)
        try:
            self._writable()
            self.cluster = self._cluster()
            self._refuse_what_can_never_run()
        except WorkflowError as error:
            self.logger.error(str(error))  # Snakemake would print it with a traceback
            sys.exit(1)
        self._forget_what_is_done()
        self.driver.start(getattr(self.workflow.persistence, "_lockfile", {}).values())
        where = self.cluster.name
        if isinstance(self.cluster, Local):
            machine = self.cluster.machine
            where += f", {machine.cores} core(s), GPUs: {', '.join(machine.gpus) or 'none'}"
        self.logger.info(f"submitit: {where}; logs in {os.path.relpath(self.driver.folder)}")

    def _cluster(self) -> Cluster:
        """The cluster that the settings name."""
        settings, say = self.executor_settings, lambda text: self.logger.info(f"submitit: {text}")
        name = settings.cluster
        if name == "auto":
            name = "slurm" if slurm.available() else "local"
        if name == "slurm":
            return slurm.Slurm(self.driver.folder, settings, self.ledger, say)
        if name == "debug":
            return Debug(self.driver.folder)
        return Local(self.driver.folder, this_machine(settings.cores, settings.gpus), settings, self.ledger, say)

    def _writable(self) -> None:
        try:
            self.driver.folder.mkdir(parents=True, exist_ok=True)
            (self.driver.folder / "writable").touch()
            (self.driver.folder / "writable").unlink()
        except OSError as error:
            raise WorkflowError(
                f"submitit-folder {self.folder}: cannot be written to ({error.strerror}); "
                "name one on a file system that every node sees, by --submitit-folder or in the profile"
            ) from None

    def _refuse_what_can_never_run(self) -> None:
        """Before anything is submitted, look at every job that is known by now. Raises WorkflowError, a line for each rule."""
        objections: dict[str, None] = {}
        for job in self.dag.needrun_jobs():
            if job.is_local or job.is_group() or undecided(job):
                continue
            if objection := self.cluster.objection(read(job)):
                objections[f"rule {job.name}: {objection}"] = None
        if objections:
            raise WorkflowError("\n".join(objections))

    def _forget_what_is_done(self) -> None:
        """Jobs of dead drivers that ended well and that Snakemake has no wish to run."""
        wanted = set(self.dag.needrun_jobs())
        for job in self.dag.jobs:
            if job not in wanted:
                self.ledger.close(ledger.key(job))

    def _made(self, job: JobExecutorInterface) -> bool:
        """Whether a job of an earlier driver has made what was missing when Snakemake looked."""
        if job.is_group():
            return False
        missing = self.dag.reason(job).missing_output
        return bool(missing) and all(Path(file).exists() for file in missing)

    def run_job(self, job: JobExecutorInterface) -> None:
        self.run_jobs([job])

    def run_jobs(self, jobs: list[JobExecutorInterface]) -> None:
        groups: dict[Request, list[Task]] = {}
        for job in jobs:
            self.run_job_pre(job)
            line = self.format_job_exec(job)
            task = Task(job, line, read(job), ledger.key(job), ledger.definition(job, line), made=self._made(job))
            try:
                adopted = self._adopted(task)
            except WorkflowError as error:
                task.refused = str(error)
            if task.refused or adopted:
                self._submitted([task])
            else:
                groups.setdefault(task.request, []).append(task)
        for tasks in groups.values():
            self.unfinished |= dict.fromkeys(tasks)
            self.cluster.submit(tasks)
            self._submitted(tasks)
            self.logger.info(f"submitit: {tasks[0].request.name}: {', '.join(task.id for task in tasks)}")

    def _adopted(self, task: Task) -> bool:
        """Whether the task goes on with a job that a dead driver left. Raises WorkflowError where a living one has it."""
        entry = self.ledger.find(task.key)
        if entry is None:
            return False
        if entry.driver != self.driver.name and driver.lives(self.folder / entry.driver):
            who = driver.describe(self.folder / entry.driver)
            raise WorkflowError(f"job {entry.id} of another Snakemake ({who}) makes this already; wait for it, or end it")
        if entry.where != self.cluster.name:
            raise WorkflowError(
                f"job {entry.id}, left by a driver that is gone, was sent to {entry.where}, not to {self.cluster.name}; "
                f"use --submitit-cluster {entry.where}, or remove {self.ledger.file(entry.key)} where it is over"
            )
        if not self.cluster.adopt(task, entry):
            return False
        self.ledger.adopt(entry)
        self.unfinished[task] = None
        self.logger.info(f"submitit: {task.request.name}: {task.id} goes on, submitted by an earlier driver")
        return True

    def _submitted(self, tasks: list[Task]) -> None:
        for task in tasks:
            self.report_job_submission(SubmittedJobInfo(task.job, external_jobid=task.id, aux={"task": task}))

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncGenerator[SubmittedJobInfo, None]:
        if self.driver.lost:
            raise WorkflowError("another driver took this one for dead and goes on with its jobs; this one ends and leaves them to it")
        for info in active_jobs:
            task: Task = info.aux["task"]
            ending = Ending(False, task.refused) if task.refused else await asyncio.to_thread(self.cluster.poll, task)
            if ending and ending.again:
                self.logger.info(f"submitit: {task.request.name}: {task.id} {ending.reason}; submitted again")
                task.requeues, task.handle = task.requeues + 1, None
                await asyncio.to_thread(self.cluster.submit, [task])
                ending = None
            if ending is None:
                yield info
                continue
            self.unfinished.pop(task, None)
            if ending.ok:
                self.report_job_success(info)
            else:
                self.report_job_error(info, msg=failure(task, ending.reason))

    def handle_job_success(self, job: JobExecutorInterface) -> None:
        """Snakemake has recorded that the job is done: only now nobody needs to know of it any more."""
        super().handle_job_success(job)
        self.ledger.close(ledger.key(job))

    def handle_job_error(self, job: JobExecutorInterface) -> None:
        super().handle_job_error(job)
        self.ledger.close(ledger.key(job))

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        tasks = list(self.unfinished)
        self.cluster.cancel(tasks)
        for task in tasks:
            self.ledger.close(task.key)

    def shutdown(self) -> None:
        super().shutdown()
        self.driver.end()

    def print_job_error(self, job_info: SubmittedJobInfo, msg: str | None = None, **more: object) -> None:
        """Without the general advice that the base class puts behind `msg`: ours names the log."""
        AbstractExecutor.print_job_error(self, job_info, msg, **more)
