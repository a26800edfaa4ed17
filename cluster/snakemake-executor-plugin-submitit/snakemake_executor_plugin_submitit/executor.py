"""The executor that Snakemake calls: groups ready jobs by what they ask for, submits, and reports how each ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

from snakemake_interface_executor_plugins.executors.base import AbstractExecutor, SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface

from snakemake_executor_plugin_submitit import slurm
from snakemake_executor_plugin_submitit.debug import Debug
from snakemake_executor_plugin_submitit.local import Local
from snakemake_executor_plugin_submitit.machine import this_machine
from snakemake_executor_plugin_submitit.messages import failure
from snakemake_executor_plugin_submitit.request import Request, read
from snakemake_executor_plugin_submitit.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.task import Cluster, Ending, Task


def cluster(settings: ExecutorSettings) -> Cluster:
    """The cluster that the settings name."""
    folder = Path(settings.folder).absolute() / "%j"
    name = settings.cluster
    if name == "auto":
        name = "slurm" if slurm.available() else "local"
    if name == "slurm":
        return slurm.Slurm(folder, settings)
    if name == "debug":
        return Debug(folder)
    return Local(folder, this_machine(settings.cores, settings.gpus), settings.max_num_timeout, settings.signal_delay_s)


class Executor(RemoteExecutor):
    def __post_init__(self) -> None:
        self.cluster = cluster(self.executor_settings)
        # Snakemake's own list of active jobs is empty while it checks them, and a Ctrl-C at that moment must reach them all
        self.unfinished: dict[Task, None] = {}
        where = self.cluster.name
        if isinstance(self.cluster, Local):
            machine = self.cluster.machine
            where += f", {machine.cores} core(s), GPUs: {', '.join(machine.gpus) or 'none'}"
        self.logger.info(f"submitit: {where}; logs under {self.executor_settings.folder}")

    def run_job(self, job: JobExecutorInterface) -> None:
        self.run_jobs([job])

    def run_jobs(self, jobs: list[JobExecutorInterface]) -> None:
        groups: dict[Request, list[Task]] = {}
        for job in jobs:
            self.run_job_pre(job)
            task = Task(job, self.format_job_exec(job), read(job))
            groups.setdefault(task.request, []).append(task)
        for tasks in groups.values():
            self.cluster.submit(tasks)
            for task in tasks:
                self.unfinished[task] = None
                self.report_job_submission(SubmittedJobInfo(task.job, external_jobid=task.id, aux={"task": task}))
            self.logger.info(f"submitit: {tasks[0].request.name}: {', '.join(task.id for task in tasks)}")

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncGenerator[SubmittedJobInfo, None]:
        for info in active_jobs:
            task: Task = info.aux["task"]
            ending = Ending(False, task.refused) if task.refused else await asyncio.to_thread(self.cluster.poll, task)
            if ending is None:
                yield info
                continue
            self.unfinished.pop(task, None)
            if ending.ok:
                self.report_job_success(info)
            else:
                self.report_job_error(info, msg=failure(task, ending.reason))

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        self.cluster.cancel(list(self.unfinished))

    def print_job_error(self, job_info: SubmittedJobInfo, msg: str | None = None, **more: object) -> None:
        """Without the general advice that the base class puts behind `msg`: ours names the log."""
        AbstractExecutor.print_job_error(self, job_info, msg, **more)
