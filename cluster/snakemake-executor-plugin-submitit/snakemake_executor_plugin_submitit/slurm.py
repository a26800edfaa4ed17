"""Jobs on Slurm: arrays for equal requests, and endings told apart by what Slurm says of a job without a result."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import submitit
from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit import ledger, partitions, queue
from snakemake_executor_plugin_submitit.backlog import Backlog, Refusal
from snakemake_executor_plugin_submitit.command import Command
from snakemake_executor_plugin_submitit.ledger import Entry, Ledger
from snakemake_executor_plugin_submitit.messages import by_folder, by_log, by_state
from snakemake_executor_plugin_submitit.request import Request
from snakemake_executor_plugin_submitit.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.task import Ending, Task

COMPLETED_S = 60
"""Seconds that a result may take to appear of a job that Slurm calls completed, whatever result_s says: what network file systems cache."""


def available() -> bool:
    """Whether this machine is configured for Slurm.

    Raises WorkflowError where it is but Slurm does not answer: falling back to this machine would then put a cluster's
    work on its login node.
    """
    if not shutil.which("srun") or not shutil.which("sinfo"):
        return False
    asked = queue.ask("sinfo", "--noheader", "--format=%P")
    if asked.returncode == 0:
        return True
    reason = (asked.stderr.strip() or "no reason given").splitlines()[-1]
    if "configuration source" in reason or "slurm.conf" in reason:  # the commands are installed, no cluster is set up
        return False
    raise WorkflowError(f"Slurm is configured here but does not answer ({reason}); try later, or run here with --submitit-cluster local")


class Slurm:
    name = "slurm"

    def __init__(self, folder: Path, settings: ExecutorSettings, book: Ledger, say: Callable[[str], None]):
        if settings.max_array < 0:
            raise WorkflowError(
                f"submitit-max-array is {settings.max_array}; it must be the most jobs of an array, or 0 for the site's limit"
            )
        self.folder, self.settings, self.ledger, self.say = folder, settings, book, say
        self.partitions = partitions.ask()
        self.queue = queue.Queue(settings.poll_s)
        self.backlog = Backlog(self._submit_array, settings.max_array or queue.max_array(), say)
        self._lock = threading.RLock()  # Snakemake submits in one thread and asks for endings in another
        self._ended: dict[Task, float] = {}  # when Slurm was first seen to say that a task without a result is over
        self._told: set[str] = set()  # jobs of which it was said that they wait in vain
        self._tokens: set[str] = set()  # of submissions that may have left a job behind although they failed
        self._closed = False
        logging.getLogger("submitit").setLevel(logging.ERROR)
        _leave_own_job()

    def describe(self) -> str:
        return "slurm"

    def objection(self, request: Request) -> str | None:
        return self.partitions.objection(request)

    def submit(self, tasks: list[Task]) -> None:
        objection = self.objection(tasks[0].request)
        with self._lock:
            if objection:
                for task in tasks:
                    task.refused = objection
            elif not self._closed:
                self.backlog.add(tasks)
                self.backlog.drain()

    def _submit_array(self, tasks: list[Task]) -> None:
        """One call of sbatch: several tasks become an array, one a plain job. Raises Refusal with sbatch's reason."""
        self._withdraw()
        token, count = ledger.token(), len(tasks)
        entries = [self.ledger.open(task.members, self.name, token, index, count) for index, task in enumerate(tasks)]
        self._tokens.add(token)
        request = tasks[0].request
        executor = submitit.SlurmExecutor(self.folder, max_num_timeout=max(0, self.settings.max_num_timeout - tasks[0].requeues))
        executor.update_parameters(**request.slurm(self.settings.signal_delay_s, self.settings.wckey, token), array_parallelism=count)
        environment = {} if request.gpus else {"CUDA_VISIBLE_DEVICES": ""}
        try:
            with _without(request.overruling()), executor.batch():
                jobs = [executor.submit(Command(task.line, environment | task.told)) for task in tasks]
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError, OSError) as error:
            for left in (*self.folder.glob("????????????????????????????????.pkl"), *self.folder.glob(".submission_file_*")):
                left.unlink(missing_ok=True)
            refusal = Refusal(str(error))
            if not refusal.ambiguous:
                self._tokens.discard(token)
            raise refusal from None
        for task, its, job in zip(tasks, entries, jobs, strict=True):
            self._follow(task, job)
            self.ledger.fill(its, job.job_id, self.folder)
        self._tokens.discard(token)

    def _follow(self, task: Task, job: submitit.Job[None]) -> None:
        task.handle = job
        self._ended.pop(task, None)
        self.queue.watch(job.job_id)

    def _withdraw(self) -> None:
        """Cancel what submissions without an answer left behind. Raises Refusal where Slurm cannot be asked."""
        for token in list(self._tokens):
            left = queue.find(token)
            if left is None or (left and queue.cancel(left)):
                raise Refusal("Unable to contact slurm controller")
            self._tokens.discard(token)

    def adopt(self, left: Mapping[Task, list[Entry]]) -> set[Task]:
        followed, others = set(), set()
        with self._lock:
            for entry in (entry for entries in left.values() for entry in entries):
                if entry.id is None:
                    self._tokens.add(entry.token)
                else:
                    self.queue.watch(entry.id)
            self.queue.look()
            for task, entries in left.items():
                ids = {entry.id for entry in entries if entry.id}
                if len(ids) == 1 and task.same(entries) and self._goes_on(task, entries[0]):
                    followed.add(task)
                else:
                    others |= {id for id in ids if self._may_run(id)}
            if others:
                self.say(f"{', '.join(sorted(others))} of an earlier driver do something else than is wanted now; cancelled, and run anew")
                self._end(others)
        return followed

    def _goes_on(self, task: Task, entry: Entry) -> bool:
        """Follow the job of `entry` if it waits, runs, or has ended well since Snakemake looked; or if Slurm does not say."""
        assert entry.id is not None
        job: submitit.Job[None] = submitit.SlurmJob(Path(entry.folder), entry.id)
        task.handle = job
        result = task.result()
        goes_on = bool(result.ok and task.made) if result else self._may_run(entry.id) or self.queue.state(entry.id) == "COMPLETED"
        if not goes_on:
            task.handle = None
        return goes_on

    def _may_run(self, job: str) -> bool:
        return (self.queue.state(job) or "UNKNOWN") in queue.UNFINISHED

    def _end(self, jobs: set[str]) -> None:
        queue.cancel(jobs)
        deadline = time.monotonic() + 4 * self.settings.result_s + self.settings.poll_s
        while running := {job for job in jobs if self._may_run(job)}:
            if time.monotonic() > deadline:
                raise WorkflowError(
                    f"jobs of an earlier driver do not end; scancel {' '.join(sorted(running))}, then the same command again"
                )
            time.sleep(1)
            self.queue.look()

    def poll(self, task: Task) -> Ending | None:
        with self._lock:
            self.backlog.drain()
            if task.handle is None:
                return None
            try:
                ending = self._ending(task)
            except OSError:  # the file system is away for a while
                return None
            if ending:
                self.queue.forget(task.id)
                self._ended.pop(task, None)
            return ending

    def _ending(self, task: Task) -> Ending | None:
        assert task.handle is not None
        ending = task.result()
        if ending and ending.ok:
            return ending
        if ending and ending.again and task.requeues >= self.settings.max_num_timeout:
            return Ending(False, f"out of time ({task.request.minutes} min) after its last requeue: ask for more with the resource runtime")
        if ending and ending.again:
            return ending
        state = self.queue.state(task.id)
        if state is None or (state in queue.UNFINISHED and not ending):
            self._ended.pop(task, None)  # perhaps requeued meanwhile
            self._warn(task)
            return None
        if ending and state not in queue.UNFINISHED:
            return by_state(state, task) or by_log(task) or ending
        if ending is None:
            with contextlib.suppress(OSError):
                os.utime(task.handle.paths.folder)  # makes a network file system look again
        if not self._overdue(task, state):
            return None
        if ending:
            return by_log(task) or ending
        if state == "PREEMPTED":  # by a site that cancels and does not requeue
            return Ending(False, "preempted", again=True)
        told = by_state(state, task) or by_log(task) or by_folder(task)
        if state == queue.GONE:
            return told or Ending(False, "gone from Slurm's queue without a result, and no accounting tells why")
        return told or Ending(False, f"killed from outside, before it could report (Slurm: {state})")

    def _overdue(self, task: Task, state: str) -> bool:
        """Whether the file system and the accounting have had their time to agree."""
        seconds = max(self.settings.result_s, COMPLETED_S if state == "COMPLETED" else 0)
        return time.monotonic() - self._ended.setdefault(task, time.monotonic()) > seconds

    def _warn(self, task: Task) -> None:
        reason = self.queue.reasons.get(task.id, "")
        if task.id not in self._told and any(word in reason for word in queue.HOPELESS):
            self._told.add(task.id)
            self.say(
                f"{task.request.name}, job {task.id} waits and will not start by itself: {reason}; scancel it, or ask the administrators"
            )

    def cancel(self, tasks: list[Task]) -> bool:
        with self._lock:
            self._closed = True
            self.backlog.clear()
            jobs = {task.id.partition("_")[0] for task in tasks if task.handle}
            jobs |= {job for token in self._tokens for job in queue.find(token) or []}
            reason = queue.cancel(jobs) if jobs else ""
            if reason:
                end = f"scancel {' '.join(sorted(jobs))}"
                self.say(f"Slurm could not be told to cancel ({reason}); the same command goes on with the jobs, or end them: {end}")
            return not reason


def _leave_own_job() -> None:
    """Where Snakemake itself runs in a Slurm job, forget that job's variables: sbatch and srun would take them for the new jobs'."""
    if "SLURM_JOB_ID" in os.environ:
        for name in [name for name in os.environ if name.startswith("SLURM_") and name != "SLURM_CONF"]:
            del os.environ[name]


@contextlib.contextmanager
def _without(names: set[str]) -> Iterator[None]:
    """The environment less the variables by which a user's own sbatch is told what a request says: they would overrule it."""
    taken = {name: os.environ.pop(name) for name in names & set(os.environ)}
    try:
        yield
    finally:
        os.environ.update(taken)
