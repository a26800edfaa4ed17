"""Jobs as processes of this machine: submitit's local executor behind a queue, so that cores and GPUs are never shared."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit

from snakemake_executor_plugin_submitit.command import GRACE_S, Command
from snakemake_executor_plugin_submitit.ledger import Entry, Ledger, token
from snakemake_executor_plugin_submitit.machine import Machine, Share
from snakemake_executor_plugin_submitit.messages import by_folder
from snakemake_executor_plugin_submitit.process import Process, machine_id, with_variable
from snakemake_executor_plugin_submitit.request import Request
from snakemake_executor_plugin_submitit.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.task import Ending, Task

TOKEN = "SNAKEMAKE_SUBMITIT_TOKEN"
MOST_TIMEOUTS = 5  # submitit's local controller starts a job six times at the most


class SessionExecutor(submitit.LocalExecutor):
    """submitit's local executor with each job in a session of its own, out of reach of the terminal's Ctrl-C.

    submitit starts the job's controller in Snakemake's process group: Ctrl-C then kills controller and task at once and
    leaves what the task started. Here only `Local.cancel` ends a job, from the inside out. `inherited` are open files that
    stay open as long as the controller lives: the locks of its GPUs.
    """

    def __init__(self, folder: Path, max_num_timeout: int, variables: dict[str, str], inherited: tuple[int, ...]):
        super().__init__(folder, max_num_timeout=max_num_timeout)
        self.process: subprocess.Popen[bytes] | None = None
        self.variables, self.inherited = variables, inherited

    def _submit_command(self, command: str) -> submitit.LocalJob[Any]:
        environment = {
            "SUBMITIT_EXECUTOR": "local",
            "SUBMITIT_LOCAL_COMMAND": command,
            "SUBMITIT_LOCAL_NTASKS": "1",
            "SUBMITIT_LOCAL_NODEID": "0",
            "SUBMITIT_LOCAL_JOB_NUM_NODES": "1",
            "SUBMITIT_LOCAL_TIMEOUT_S": str(60 * self.parameters["timeout_min"]),
            "SUBMITIT_LOCAL_SIGNAL_DELAY_S": str(self.parameters["signal_delay_s"]),
            "SUBMITIT_LOCAL_WITH_SHELL": "",
            "SUBMITIT_STDERR_TO_STDOUT": "1",
        }
        controller = [sys.executable, "-m", "submitit.local._local", str(self.folder)]
        process = subprocess.Popen(
            controller,
            env=os.environ | environment | self.variables,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=self.inherited,
        )
        self.process = process
        job: submitit.LocalJob[Any] = submitit.LocalJob(folder=self.folder, job_id=str(process.pid), process=process)
        job.paths.result_pickle.unlink(missing_ok=True)  # of an earlier job of this driver with the same number
        return job


@dataclass(frozen=True)
class Running:
    share: Share
    process: Process
    child: subprocess.Popen[bytes] | None = None


class Local:
    """A queue in front of the machine: a task starts as soon as its cores and GPUs are free, a small one may pass a big one."""

    name = "local"

    def __init__(self, folder: Path, machine: Machine, settings: ExecutorSettings, book: Ledger, say: Callable[[str], None]):
        self.folder, self.machine, self.settings, self.ledger, self.say = folder, machine, settings, book, say
        self._waiting: list[Task] = []
        self._running: dict[Task, Running] = {}
        self._token = ""  # of the job that is being started
        self._closed = False
        self._lock = threading.Lock()  # Snakemake submits in one thread and asks for endings in another

    def describe(self) -> str:
        return f"local, {self.machine.cores} core(s), GPUs: {', '.join(self.machine.gpus) or 'none'}"

    def objection(self, request: Request) -> str | None:
        if request.gpus > len(self.machine.gpus):
            return f"gpu is {request.gpus}; this machine has {len(self.machine.gpus)} to hand out"
        if request.nodes > 1:
            return f"nodes is {request.nodes}; there is no Slurm, only this machine"
        return None

    def submit(self, tasks: list[Task]) -> None:
        for task in tasks:
            task.refused = self.objection(task.request) or ""
        with self._lock:
            self._waiting += [task for task in tasks if not task.refused]
        self._start()

    def _start(self) -> None:
        with self._lock:
            for task in [] if self._closed else list(self._waiting):
                share = self.machine.take(task.request.cpus, task.request.gpus)
                if share is not None:
                    self._waiting.remove(task)
                    self._start_one(task, share)

    def _start_one(self, task: Task, share: Share) -> None:
        self._token = token()
        entries = self.ledger.open(task.members, self.name, self._token)
        executor = SessionExecutor(self.folder, min(self.settings.max_num_timeout, MOST_TIMEOUTS), {TOKEN: self._token}, share.locks)
        delay = task.request.signal_delay(self.settings.signal_delay_s)
        executor.update_parameters(timeout_min=task.request.minutes, signal_delay_s=delay)
        # indices are nvidia-smi's; CUDA's own order puts the fastest GPU first
        variables = {"CUDA_VISIBLE_DEVICES": ",".join(share.gpus), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        task.handle = executor.submit(Command(task.line, variables | task.told))
        self._running[task] = Running(share, Process.of(int(task.id)), executor.process)
        self.ledger.fill(entries, task.id, self.folder, self._running[task].process, share.gpus)
        self._token = ""

    def adopt(self, left: Mapping[Task, list[Entry]]) -> set[Task]:
        return {task for task, entries in left.items() if self._adopt(task, entries)}

    def _adopt(self, task: Task, entries: list[Entry]) -> bool:
        """Follow the process that a dead driver left of the task. Where it does something else than the task, it is ended."""
        here = [entry for entry in entries if entry.machine == machine_id()]
        for process in (process for entry in here if entry.process is None for process in with_variable(TOKEN, entry.token)):
            process.end(GRACE_S + 3)  # its driver did not live to write the process down
        alive = {entry.process for entry in here if entry.process and entry.process.alive()}
        first = entries[0]
        if first.process and first.id and task.same(entries):
            job: submitit.LocalJob[None] = submitit.LocalJob(Path(first.folder), first.id)
            task.handle = job
            result = task.result()
            if alive or (result and result.ok and task.made):
                with self._lock:
                    cores = min(task.request.cpus, self.machine.cores) if alive else 0
                    share = self.machine.keep(cores, first.gpus if alive else ())
                    self._running[task] = Running(share, first.process)
                return True
            task.handle = None
        for process in alive:
            self.say(f"{task.request.name}: process {process.pid} of an earlier driver does something else; ended, and run anew")
            process.end(GRACE_S + 3)
        return False

    def poll(self, task: Task) -> Ending | None:
        with self._lock:
            running = self._running.get(task)
            waits = running is None
            if running and running.process.alive():
                return None
            if running:
                running.process.end_group()  # where the controller was killed its task goes on, and its GPUs are not free yet
                if running.child:
                    running.child.wait()
                self.machine.give_back(self._running.pop(task).share)
        self._start()
        if waits:
            return None
        return task.result() or by_folder(task) or Ending(False, "killed from outside, before it could report")

    def cancel(self, tasks: list[Task]) -> bool:
        """Each controller passes TERM to its task, which ends its command and leaves; what has not left by then is killed."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
            processes = [running.process for running in self._running.values()]
            processes += with_variable(TOKEN, self._token) if self._token else []  # Ctrl-C came while it was being started
        threads = [threading.Thread(target=process.end, args=(GRACE_S + 3,)) for process in processes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return True
