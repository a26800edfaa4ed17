"""Jobs on Slurm: one array for equal requests, and endings told apart by what Slurm's accounting says."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import time
from pathlib import Path

import submitit
from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit.command import Command
from snakemake_executor_plugin_submitit.messages import by_state
from snakemake_executor_plugin_submitit.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.task import Ending, Task

_UNFINISHED = {"PENDING", "RUNNING", "REQUEUED", "COMPLETING", "CONFIGURING", "SUSPENDED", "RESIZING", "PREEMPTED", "UNKNOWN"}


def available() -> bool:
    """Whether this machine is configured for Slurm.

    Raises WorkflowError where it is but Slurm does not answer: falling back to this machine would then put a cluster's
    work on its login node.
    """
    if not shutil.which("srun") or not shutil.which("sinfo"):
        return False
    asked = subprocess.run(["sinfo", "--noheader", "--format=%P"], capture_output=True, text=True, check=False)
    if asked.returncode == 0:
        return True
    reason = (asked.stderr.strip() or "no reason given").splitlines()[-1]
    if "configuration source" in reason or "slurm.conf" in reason:  # the commands are installed, no cluster is set up
        return False
    raise WorkflowError(f"Slurm is configured here but does not answer ({reason}); try later, or run here with --submitit-cluster local")


class Slurm:
    name = "slurm"

    def __init__(self, folder: Path, settings: ExecutorSettings):
        self.folder, self.settings = folder, settings
        self._ended: dict[Task, float] = {}  # when Slurm was first seen to say that a task without a result is over
        submitit.SlurmJob.watcher._delay_s = settings.sacct_s  # submitit lets it grow to ten minutes
        logging.getLogger("submitit").setLevel(logging.ERROR)
        _leave_own_job()

    def submit(self, tasks: list[Task]) -> None:
        for start in range(0, len(tasks), self.settings.max_array):
            self._submit_array(tasks[start : start + self.settings.max_array])

    def _submit_array(self, tasks: list[Task]) -> None:
        request = tasks[0].request
        executor = submitit.SlurmExecutor(self.folder, max_num_timeout=self.settings.max_num_timeout)
        executor.update_parameters(**request.slurm(self.settings.signal_delay_s, self.settings.wckey), array_parallelism=len(tasks))
        environment = {} if request.gpus else {"CUDA_VISIBLE_DEVICES": ""}
        try:
            with executor.batch():  # several become one array, one a plain job
                jobs = [executor.submit(Command(task.line, environment)) for task in tasks]
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError, OSError) as error:
            reason = next((line for line in str(error).splitlines() if "error" in line.lower()), str(error))
            for task in tasks:
                task.refused = f"sbatch refused it: {reason.strip()}"
            return
        for task, job in zip(tasks, jobs, strict=True):
            task.handle = job

    def poll(self, task: Task) -> Ending | None:
        assert task.handle is not None
        ending = task.result()
        if ending and ending.ok:
            return ending
        state = task.handle.watcher.get_state(task.handle.job_id).split()[0]
        if ending and (state not in _UNFINISHED or self._overdue(task)):
            return by_state(state, task) or ending
        if ending or state in _UNFINISHED:
            return None
        os.utime(task.handle.paths.folder)  # makes a network file system look again
        return (
            (by_state(state, task) or Ending(False, f"killed from outside, before it could report (Slurm: {state})"))
            if self._overdue(task)
            else None
        )

    def _overdue(self, task: Task) -> bool:
        """Whether the file system and the accounting have had their time to agree."""
        return time.monotonic() - self._ended.setdefault(task, time.monotonic()) > self.settings.result_s

    def cancel(self, tasks: list[Task]) -> None:
        ids = [task.id for task in tasks if task.handle]
        if ids:
            subprocess.run(["scancel", *ids], check=False)


def _leave_own_job() -> None:
    """Where Snakemake itself runs in a Slurm job, forget that job's variables: sbatch and srun would take them for the new jobs'."""
    if "SLURM_JOB_ID" in os.environ:
        for name in [name for name in os.environ if name.startswith("SLURM_") and name != "SLURM_CONF"]:
            del os.environ[name]
