"""Jobs as processes of this machine: submitit's local executor behind a queue, so that cores and GPUs are never shared."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import submitit

from snakemake_executor_plugin_submitit.command import GRACE_S, Command
from snakemake_executor_plugin_submitit.machine import Machine, Share
from snakemake_executor_plugin_submitit.task import Ending, Task


class SessionExecutor(submitit.LocalExecutor):
    """submitit's local executor with each job in a session of its own, out of reach of the terminal's Ctrl-C.

    submitit starts the job's controller in Snakemake's process group: Ctrl-C then kills controller and task at once and
    leaves what the task started. Here only `Local.cancel` ends a job, from the inside out.
    """

    process: subprocess.Popen[bytes]

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
        self.process = subprocess.Popen(controller, env=os.environ | environment, stdin=subprocess.DEVNULL, start_new_session=True)
        return submitit.LocalJob(folder=self.folder, job_id=str(self.process.pid), process=self.process)


class Local:
    """A queue in front of the machine: a task starts as soon as its cores and GPUs are free, a small one may pass a big one."""

    name = "local"

    def __init__(self, folder: Path, machine: Machine, max_num_timeout: int, signal_delay_s: int):
        self.folder, self.machine = folder, machine
        self.max_num_timeout, self.signal_delay_s = max_num_timeout, signal_delay_s
        self._waiting: list[Task] = []
        self._running: dict[Task, tuple[Share, subprocess.Popen[bytes]]] = {}
        self._lock = threading.Lock()  # Snakemake submits in one thread and asks for endings in another

    def submit(self, tasks: list[Task]) -> None:
        for task in tasks:
            if task.request.gpus > len(self.machine.gpus):
                task.refused = f"it asks for {task.request.gpus} GPU(s) and this machine has {len(self.machine.gpus)} to hand out"
            elif task.request.nodes > 1:
                task.refused = f"it asks for {task.request.nodes} nodes and there is no Slurm, only this machine"
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
                executor = SessionExecutor(self.folder, max_num_timeout=self.max_num_timeout)
                delay = task.request.signal_delay(self.signal_delay_s)
                executor.update_parameters(timeout_min=task.request.minutes, signal_delay_s=delay)
                task.handle = executor.submit(Command(task.line, {"CUDA_VISIBLE_DEVICES": ",".join(share.gpus)}))
                self._running[task] = share, executor.process

    def poll(self, task: Task) -> Ending | None:
        with self._lock:
            if task not in self._running:
                return None
            share, process = self._running[task]
            if process.poll() is None:
                return None
            del self._running[task]
            self.machine.give_back(share)
        self._start()
        return task.result() or Ending(False, "killed from outside, before it could report")

    def cancel(self, tasks: list[Task]) -> None:
        """Each controller passes TERM to its task, which ends its command and leaves; what has not left by then is killed."""
        with self._lock:
            self._waiting = [task for task in self._waiting if task not in tasks]
            processes = [self._running[task][1] for task in tasks if task in self._running]
        for process in processes:
            process.terminate()
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S + 3)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
