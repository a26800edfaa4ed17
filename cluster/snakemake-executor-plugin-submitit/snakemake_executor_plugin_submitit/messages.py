"""What a user reads when a job failed: one line that says why and where the log is, then the log's last lines."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from snakemake_executor_plugin_submitit.task import Ending, Task

TAIL = 10
_READ = 1 << 20  # bytes of a log, which may have gigabytes
# Where the command's own output ends: Snakemake's report in the job, submitit's report of its own exception, Slurm's of a kill
_REPORTS = re.compile(r"^(Error in rule |RuleException|WorkflowError|submitit (ERROR|WARNING)|srun: |slurmstepd: )")
_NOISE = re.compile(r"^(\[\w{3} \w{3} .*\]|submitit INFO.*|)$")


def by_state(state: str, task: Task) -> Ending | None:
    """The ending that Slurm's accounting tells better than the command can; None for one that it does not explain."""
    request = task.request
    reasons = {
        "CANCELLED": "cancelled from outside (scancel, or an administrator)",
        "TIMEOUT": f"out of time ({request.minutes} min): ask for more with the resource runtime",
        "OUT_OF_MEMORY": f"out of memory ({request.memory_mb or 'the default'} MB): ask for more with the resource mem_mb",
        "NODE_FAIL": "its node failed and Slurm did not requeue it",
        "BOOT_FAIL": "its node did not boot",
        "DEADLINE": "it could not end before its deadline",
    }
    return Ending(False, reasons[state]) if state in reasons else None


_NO_MEMORY = re.compile(r"^(slurmstepd|srun).*(oom[-_ ]kill|out[- ]of[- ]memory|exceeded (job )?memory limit)", re.IGNORECASE)


def by_log(task: Task) -> Ending | None:
    """The ending that Slurm's own lines in the log tell: some versions call a job that was out of memory only FAILED."""
    if task.log and any(_NO_MEMORY.match(line) for line in _last_attempt(task.log)):
        return by_state("OUT_OF_MEMORY", task)
    return None


def by_folder(task: Task) -> Ending | None:
    """The ending of a job that had no room to report its own, where there is none now: a full disk, or a quota used up."""
    assert task.handle is not None
    folder = task.handle.paths.folder
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            file.write(bytes(4096))
            os.fsync(file.fileno())  # a network file system refuses no sooner
    except OSError as error:
        return Ending(False, f"nothing can be written to {folder} ({error.strerror}): make room, then the same command again")
    return None


def failure(task: Task, reason: str) -> str:
    """The text reported for `task`."""
    if "timed-out too many times" in reason:
        reason = f"out of time ({task.request.minutes} min) after its last requeue: ask for more with the resource runtime"
    if task.log is None or not task.log.is_file():
        return f"{task.request.name}, job {task.id}: {reason}" if task.handle else f"{task.request.name}: {reason}"
    if reason == "exit status 1":  # of the Snakemake in the job, which ends with 1 whatever its command ended with
        reason = in_job(task.log) or reason
    first = f"{task.request.name}, job {task.id}: {reason}"
    log = next((Path(log) for log in task.job.log if Path(log).is_file() and Path(log).stat().st_size), task.log)
    lines = last_lines(log)
    return "\n".join([f"{first}; log: {task.log}", *(f"    | {line}" for line in lines)])


def in_job(log: Path) -> str | None:
    """How the job's command ended, as the last attempt's Snakemake tells it; None where it does not."""
    text = "\n".join(_last_attempt(log))
    if killed := re.search(r"died with <Signals\.(SIG\w+)", text):
        hint = " (often by the kernel, out of memory: ask for more with the resource mem_mb)" if killed[1] == "SIGKILL" else ""
        return f"killed by {killed[1]}{hint}"
    status = re.search(r"returned non-zero exit status (\d+)", text)
    return f"exit status {status[1]}" if status else None


def last_lines(log: Path, count: int = TAIL) -> list[str]:
    """The last lines that the command itself wrote in its last attempt, without the reports that others put around them."""
    lines = _last_attempt(log)
    begin = next((n for n, line in enumerate(lines, 1) if line.startswith("Shell command:")), 0)
    end = next((n for n, line in enumerate(lines) if _REPORTS.match(line)), len(lines))
    return [line for line in lines[begin:end] if not _NOISE.match(line)][-count:]


def _last_attempt(log: Path) -> list[str]:
    """The log's lines since the job last started; none where it never wrote any."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _READ))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    starts = [n for n, line in enumerate(lines) if line.startswith("submitit INFO") and "Starting with" in line]
    return lines[starts[-1] if starts else 0 :]
