"""Jobs as processes of this machine: submitit's local executor behind a queue, so that cores and GPUs are never shared."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit
from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit.command import GRACE_S, Command
from snakemake_executor_plugin_submitit.ledger import Entry, Ledger, token
from snakemake_executor_plugin_submitit.machine import Machine, Share
from snakemake_executor_plugin_submitit.process import Process, machine_id, with_variable
from snakemake_executor_plugin_submitit.request import Request
from snakemake_executor_plugin_submitit.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.task import Ending, Task

TOKEN = "SNAKEMAKE_SUBMITIT_TOKEN"


class SessionExecutor(submitit.LocalExecutor):
    """submitit's local executor with each job in a session of its own, out of reach of the terminal's Ctrl-C.

    submitit starts the job's controller in Snakemake's process group: Ctrl-C then kills controller and task at once and
    leaves what the task started. Here only `Local.cancel` ends a job, from the inside out. `inherited` are open files that
    stay open as long as the controller lives: the locks of its GPUs.
    """

    def __init__(self, folder: Path, max_num_timeout: int, variables: dict[str, str], inherited: tuple[int, ...]):
        super().__init__(folder, max_num_timeout=max_num_timeout)
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
        return submitit.LocalJob(folder=self.folder, job_id=str(process.pid), process=process)


@dataclass(frozen=True)
class Running:
    share: Share
    process: Process


class Local:
    """A queue in front of the machine: a task starts as soon as its cores and GPUs are free, a small one may pass a big one."""

    name = "local"

    def __init__(self, folder: Path, machine: Machine, settings: ExecutorSettings, ledger: Ledger, say: Callable[[str], None]):
        self.folder, self.machine, self.settings, self.ledger, self.say = folder / "%j", machine, settings, ledger, say
        self._waiting: list[Task] = []
        self._running: dict[Task, Running] = {}
        self._lock = threading.Lock()  # Snakemake submits in one thread and asks for endings in another

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
            for task in list(self._waiting):
                share = self.machine.take(task.request.cpus, task.request.gpus)
                if share is None:
                    continue
                self._waiting.remove(task)
                entry = self.ledger.open(task.key, task.definition, self.name, token())
                gpus = ",".join(share.gpus)
                executor = SessionExecutor(self.folder, self.settings.max_num_timeout, {TOKEN: entry.token}, share.locks)
                delay = task.request.signal_delay(self.settings.signal_delay_s)
                executor.update_parameters(timeout_min=task.request.minutes, signal_delay_s=delay)
                task.handle = executor.submit(Command(task.line, {"CUDA_VISIBLE_DEVICES": gpus}))
                process = Process.of(int(task.id))
                self.ledger.fill(entry, task.id, self.folder, process, share.gpus)
                self._running[task] = Running(share, process)

    def adopt(self, task: Task, entry: Entry) -> bool:
        """Go on with the job of a driver that is gone. False where nothing is left of it that the task could follow."""
        here = entry.machine == machine_id()
        if entry.id is None or entry.process is None:
            for process in with_variable(TOKEN, entry.token) if here else []:
                process.end(GRACE_S + 3)
            return False
        job: submitit.LocalJob[None] = submitit.LocalJob(Path(entry.folder), entry.id)
        task.handle = job
        result = task.result()
        if result is None and entry.host != socket.gethostname():
            raise WorkflowError(
                f"process {entry.id} on {entry.host}, started by a driver that is gone, may still run; "
                f"give the command there, or remove {self.ledger.file(entry.key)} where it is over"
            )
        alive = here and entry.process.alive()
        same = entry.definition == task.definition
        if alive and not same:
            self.say(f"{task.request.name}: process {entry.id} of an earlier driver does something else; ended, and run anew")
            entry.process.end(GRACE_S + 3)
        if same and (alive or (result and result.ok and task.made)):
            with self._lock:
                cores = min(task.request.cpus, self.machine.cores) if alive else 0
                self._running[task] = Running(self.machine.keep(cores, entry.gpus if alive else ()), entry.process)
            return True
        task.handle = None
        return False

    def poll(self, task: Task) -> Ending | None:
        with self._lock:
            if task not in self._running:
                waits = task in self._waiting
            elif self._running[task].process.alive():
                return None
            else:
                waits = False
                self.machine.give_back(self._running.pop(task).share)
        self._start()
        if waits:
            return None
        return task.result() or Ending(False, "killed from outside, before it could report")

    def cancel(self, tasks: list[Task]) -> None:
        """Each controller passes TERM to its task, which ends its command and leaves; what has not left by then is killed."""
        with self._lock:
            self._waiting = [task for task in self._waiting if task not in tasks]
            processes = [self._running[task].process for task in tasks if task in self._running]
        threads = [threading.Thread(target=process.end, args=(GRACE_S + 3,)) for process in processes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
