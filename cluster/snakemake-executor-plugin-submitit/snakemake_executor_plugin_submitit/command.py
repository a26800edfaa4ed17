"""What one submitit task runs: the command line that Snakemake built, in a process group of its own.

Three signals reach a task. USR2 comes shortly before the time limit and is submitit's: it calls `checkpoint`, requeues the
job and leaves by SystemExit. TERM is Slurm's (scancel, preemption) or the local executor's: the command is ended and the
task leaves without a result, because only Slurm knows whether the job is over or requeued. HUP ends it likewise.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import time
import types

import submitit

STARTED = "SNAKEMAKE_JOB_STARTED"
GRACE_S = 4.0  # from TERM to KILL; below the KillWait of Slurm (default 30 s) and of the testbed (5 s)
_SIGNALS = {signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2}
_PEEK = os.WEXITED | os.WNOWAIT  # look whether a child has ended and leave it to be waited for
# Slurm sends USR2 to every process of the job, and its default action is death; only the task may act on it. The task holds
# the other end of the pipe: where it is killed, the read ends and the command's whole group with it.
_SCRIPT = """trap '' USR2
(read -r -u {pipe}; kill -KILL 0) & disown
exec {pipe}<&-
{line}"""


class CommandFailed(Exception):
    """The command ended with another exit status than 0. The text says which, or by which signal it was killed."""

    def __init__(self, code: int):
        super().__init__(f"exit status {code}" if code > 0 else f"killed by {signal.Signals(-code).name}")


class RequeueRefused(Exception):
    """The job was told to stop and Slurm would not requeue it: its driver submits it again."""


class Command:
    """Runs a shell line once; requeued as it is when its time runs out.

    `environment` is added to the task's own, with STARTED: when the line was run, in Unix time.
    """

    def __init__(self, line: str, environment: dict[str, str]):
        self.line, self.environment = line, environment
        self.child: subprocess.Popen[bytes] | None = None
        self._leaving = False

    def __call__(self) -> None:
        """Raises CommandFailed, SystemExit where the task was told to stop, or RequeueRefused where it could not be requeued."""
        signal.signal(signal.SIGTERM, self._leave)
        signal.signal(signal.SIGHUP, self._leave)
        try:
            os.waitid(os.P_PID, self._start().pid, _PEEK)  # a handler that raises here loses nothing: the status is not taken yet
        except submitit.core.utils.UncompletedJobError:
            if not self._ended():
                raise  # out of time for the last time
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:  # of scontrol, which submitit requeues by
            raise RequeueRefused(f"told to stop, and not requeued ({error})") from None
        finally:
            self._leaving = True
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # the command is over: nothing is left to requeue
            code = self._end()
        if code:
            raise CommandFailed(code)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission | None:
        """What to run after a requeue: the same line; None where the command has just ended, so that it is not run twice."""
        return None if self._ended() else submitit.helpers.DelayedSubmission(Command(self.line, self.environment))

    def _start(self) -> subprocess.Popen[bytes]:
        """Signals wait until the child is known: one that came while it starts would leave it without anybody to end it."""
        watched, self._lifeline = os.pipe()
        script = _SCRIPT.format(pipe=watched, line=self.line)
        unblock = functools.partial(signal.pthread_sigmask, signal.SIG_UNBLOCK, _SIGNALS)
        environment = os.environ | self.environment | {STARTED: f"{time.time():.3f}"}
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            self.child = subprocess.Popen(
                ["bash", "-c", script], env=environment, start_new_session=True, preexec_fn=unblock, pass_fds=[watched]
            )
        finally:
            os.close(watched)
            unblock()
        return self.child

    def _leave(self, number: int, frame: types.FrameType | None) -> None:
        """Once is enough: a second signal, as Slurm sends one with a requeue, must not break off the clearing up."""
        if not self._leaving:
            self._leaving = True
            raise SystemExit(128 + number)

    def _ended(self) -> bool:
        if self.child is None:
            return False
        return self.child.returncode is not None or os.waitid(os.P_PID, self.child.pid, _PEEK | os.WNOHANG) is not None

    def _end(self) -> int:
        """End what is left of the command's process group, background processes too: TERM, then KILL; its exit status."""
        if self.child is None:
            return 0
        with contextlib.suppress(ProcessLookupError):  # the group is gone
            if not self._ended():
                os.killpg(self.child.pid, signal.SIGTERM)
                deadline = time.monotonic() + GRACE_S
                while time.monotonic() < deadline:  # the shell dies at once, what it started may need its grace: wait for all
                    self.child.poll()
                    os.killpg(self.child.pid, 0)
                    time.sleep(0.05)
            os.killpg(self.child.pid, signal.SIGKILL)
        os.close(self._lifeline)
        return self.child.wait()


def run_here(line: str, environment: dict[str, str]) -> None:
    """The same for the debug executor: in this process, with no signals to mind. Raises CommandFailed."""
    code = subprocess.run(["bash", "-c", line], env=os.environ | environment, check=False).returncode
    if code:
        raise CommandFailed(code)
