"""The executor that Snakemake calls: groups ready jobs by what they ask for, submits, and reports how each ended.

Snakemake imports every plugin in every job; what runs jobs is imported where it is needed.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import AbstractExecutor, SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface

from snakemake_executor_plugin_submitit import driver, ledger
from snakemake_executor_plugin_submitit.ledger import Entry
from snakemake_executor_plugin_submitit.messages import failure
from snakemake_executor_plugin_submitit.request import Request, read, undecided
from snakemake_executor_plugin_submitit.task import Cluster, Ending, Task


class Executor(RemoteExecutor):
    def __post_init__(self) -> None:
        # Snakemake's own list of active jobs is empty while it checks them, and a Ctrl-C at that moment must reach them all
        self.unfinished: dict[Task, None] = {}
        self.folder = Path(self.executor_settings.folder).expanduser().absolute()
        self.driver = driver.Driver(self.folder)
        self.ledger = ledger.Ledger(self.folder, self.driver.name)
        try:
            self._writable()
            self.cluster = self._cluster()
            self._refuse_what_can_never_run()
        except WorkflowError as error:
            self.logger.error(str(error))  # Snakemake would print it with a traceback
            sys.exit(1)
        self.driver.start(getattr(self.workflow.persistence, "_lockfile", {}).values())
        self._look_at_what_is_left()
        self._say(f"{self.cluster.describe()}; logs in {os.path.relpath(self.driver.folder)}")

    def _say(self, text: str) -> None:
        self.logger.info(f"submitit: {text}")

    def _cluster(self) -> Cluster:
        """The cluster that the settings name."""
        from snakemake_executor_plugin_submitit import debug, local, machine, slurm

        settings, folder = self.executor_settings, self.driver.folder
        name = settings.cluster
        if name == "auto":
            name = "slurm" if slurm.available() else "local"
        if name == "slurm":
            return slurm.Slurm(folder, settings, self.ledger, self._say)
        if name == "debug":
            return debug.Debug(folder)
        return local.Local(folder, machine.this_machine(settings.cores, settings.gpus), settings, self.ledger, self._say)

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
        left = self.ledger.keys()
        for job in self.dag.needrun_jobs():
            if job.is_local:
                continue
            objection = None if job.is_group() or undecided(job) else self.cluster.objection(read(job))
            if objection is None and (key := ledger.key(job)) in left:
                objection = self._conflict(self.ledger.find(key))
            if objection:
                objections[f"rule {job.name}: {objection}"] = None
        if objections:
            raise WorkflowError("\n".join(objections))

    def _at_work(self, entry: Entry) -> bool:
        """Whether the entry's driver lives: the signs of life of dead ones were removed as this one started."""
        return (self.folder / entry.driver / driver.FILE).exists()

    def _conflict(self, entry: Entry | None) -> str | None:
        """Why a job that another driver submitted can be neither gone on with nor run anew, in one line."""
        if entry is None or entry.driver == self.driver.name:
            return None
        if self._at_work(entry):
            who = driver.describe(self.folder / entry.driver)
            return f"job {entry.id} of another Snakemake ({who}) makes this already; wait for it, or end it"
        over = f"or remove {self.ledger.file(entry.key)} where it is over"
        if entry.where != self.cluster.name:
            left = f"job {entry.id}, left by a driver that is gone, was sent to {entry.where}, not to {self.cluster.name}"
            return f"{left}; use --submitit-cluster {entry.where}, {over}"
        if entry.where == "local" and entry.host != socket.gethostname():
            return f"process {entry.id} on {entry.host}, started by a driver that is gone, may still run; give the command there, {over}"
        return None

    def _look_at_what_is_left(self) -> None:
        """Of the jobs of dead drivers: those that Snakemake has no wish to run are done; of the others, which outputs are incomplete."""
        left, wanted = self.ledger.keys(), set(self.dag.needrun_jobs())
        self.incomplete: dict[str, set[str]] = {}
        for job in self.dag.jobs if left else ():
            key = ledger.key(job)
            entry = self.ledger.find(key) if key in left else None
            if entry is None or self._at_work(entry):
                continue
            if job in wanted:
                self.incomplete[key] = self._incomplete(job)
                continue
            if ledger.members(job, self.format_job_exec(job))[0].definition == entry.definition:
                self.workflow.async_run(self.workflow.persistence.finished(job))  # the driver that was to write it down is gone
            else:
                made = ", ".join(map(str, job.output))
                self._say(f"{made}: made before rule {job.name} or its inputs changed; --forcerun {job.name} makes it anew")
            self.ledger.drop(entry)

    def _incomplete(self, job: JobExecutorInterface) -> set[str]:
        return set(map(str, self.workflow.async_run(self.workflow.persistence.incomplete(job))))

    def _made(self, job: JobExecutorInterface) -> bool:
        """Whether a job of an earlier driver has made, since Snakemake looked, what was missing or incomplete then."""
        if job.is_group():
            return False
        before = self.incomplete.get(ledger.key(job), set()) | set(map(str, self.dag.reason(job).missing_output))
        return bool(before) and all(Path(file).exists() for file in job.output) and not self._incomplete(job)

    def run_job(self, job: JobExecutorInterface) -> None:
        self.run_jobs([job])

    def run_jobs(self, jobs: list[JobExecutorInterface]) -> None:
        tasks = []
        for job in jobs:
            self.run_job_pre(job)
            line = self.format_job_exec(job)
            task = Task(job, line, Request(job.name, 1, 1), ledger.members(job, line))
            try:
                task.request = read(job)
            except WorkflowError as error:
                task.refused = str(error)
            if self.driver.lost:
                task.refused = "another driver took this one for dead"
            tasks.append(task)
        adopted = self._adopted([task for task in tasks if not task.refused])
        self._submitted([task for task in tasks if task.refused or task in adopted])
        groups: dict[Request, list[Task]] = {}
        for task in tasks:
            if not task.refused and task not in adopted:
                groups.setdefault(task.request, []).append(task)
        for equal in groups.values():
            self.unfinished |= dict.fromkeys(equal)
            self.cluster.submit(equal)
            self._submitted(equal)
            self._say(f"{equal[0].request.name}: {', '.join(task.id for task in equal)}")

    def _adopted(self, tasks: Iterable[Task]) -> set[Task]:
        """The tasks that go on with jobs that dead drivers left. One that a living driver has, or that cannot be reached, is refused."""
        found = {task: [entry for entry in self.ledger.of(task.members) if entry.driver != self.driver.name] for task in tasks}
        whole = {entry.key: entry for entry in self.ledger.completed(entry for entries in found.values() for entry in entries)}
        left: dict[Task, list[Entry]] = {}
        for task, entries in found.items():
            task.refused = next(filter(None, map(self._conflict, entries)), "")
            if entries and not task.refused:
                task.made = self._made(task.job)
                left[task] = [whole[entry.key] for entry in entries]
        try:
            adopted = self.cluster.adopt(left) if left else set()
        except WorkflowError as error:
            for task in left:
                task.refused = str(error)
            return set()
        for task in adopted:
            self.ledger.adopt(left[task])
            self.unfinished[task] = None
            self._say(f"{task.request.name}: {task.id} goes on, submitted by an earlier driver")
        return adopted

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
                self._say(f"{task.request.name}: {task.id} {ending.reason}; submitted again")
                task.requeues, task.handle = task.requeues + ending.timed_out, None
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
        self.ledger.close(ledger.keys(job))

    def handle_job_error(self, job: JobExecutorInterface) -> None:
        super().handle_job_error(job)
        self.ledger.close(ledger.keys(job))

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        tasks = list(self.unfinished)  # those that end meanwhile are taken out by the thread that watches them
        if self.cluster.cancel(tasks):
            for task in tasks:
                self.ledger.close(member.key for member in task.members)
                self.unfinished.pop(task, None)

    def shutdown(self) -> None:
        if self.unfinished:  # jobs that run on wait for a folder of this driver's at their start: it must stay
            self._tmpdir = None
        super().shutdown()
        self.driver.end()

    def print_job_error(self, job_info: SubmittedJobInfo, msg: str | None = None, **more: object) -> None:
        """Without the general advice that the base class puts behind `msg`: ours names the log."""
        AbstractExecutor.print_job_error(self, job_info, msg, **more)
