"""What Slurm says of jobs: squeue for those that it still has in memory, sacct for older ones, each for all jobs at once.

Either may be away for a while (slurmctld restarts, slurmdbd is down, a site has no accounting): then nothing is concluded.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterable, Iterator

GONE = "GONE"
"""Slurm knows nothing of the job any more, and accounting neither."""
UNFINISHED = {
    "PENDING", "RUNNING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "COMPLETING", "CONFIGURING", "SUSPENDED", "RESIZING", "SIGNALING",
    "STAGE_OUT", "STOPPED", "SPECIAL_EXIT", "RESV_DEL_HOLD", "UNKNOWN",
}  # fmt: skip
HOPELESS = (
    "Held", "held", "PartitionTimeLimit", "PartitionNodeLimit", "BadConstraints", "DependencyNeverSatisfied", "InvalidAccount",
    "InvalidQOS", "MaxWallDurationPerJob", "MaxCpuPerJob", "MaxGRESPerJob", "MaxMemPerJob", "MaxNodePerJob",
)  # fmt: skip
"""Parts of the reasons for which a job waits until somebody does something about it."""
_FILTERS = ("SQUEUE_", "SACCT_", "SCANCEL_")  # variables by which a user's own listings are narrowed


class Queue:
    """Asks at most once in `every_s` seconds, unless told to ask now."""

    def __init__(self, every_s: float):
        self.every_s = every_s
        self.reasons: dict[str, str] = {}
        self._states: dict[str, str] = {}
        self._watched: dict[str, float] = {}
        self._asked = self._answered = float("-inf")

    def watch(self, job: str) -> None:
        """From now on `state` tells of the job `job`."""
        self._watched[job] = time.monotonic()

    def forget(self, job: str) -> None:
        self._watched.pop(job, None)
        self._states.pop(job, None)

    def state(self, job: str) -> str | None:
        """Slurm's word for the state of a watched job, or GONE; None where it has not answered since the job is watched."""
        if time.monotonic() - self._asked >= self.every_s:
            self.look()
        if self._answered < self._watched[job]:
            return None
        return self._states.get(job, GONE)

    def look(self) -> None:
        """Ask now."""
        self._asked = time.monotonic()
        listed = _rows(3, "squeue", f"--user={os.getuid()}", "--noheader", "--array", "--states=all", "--format=%i|%T|%r")
        if listed is None:
            return
        known = {row[0]: row[1] for row in listed}
        self.reasons = {row[0]: row[2] for row in listed}
        rest = [job for job in self._watched if job not in known]
        if rest:
            ended = _history(rest)
            if ended is None:  # slurmdbd is away or there is none: what was known stands, and squeue's silence means GONE
                ended = {job: self._states[job] for job in rest if self._states.get(job, "UNKNOWN") not in UNFINISHED}
            known |= ended
        self._states, self._answered = {job: state for job, state in known.items() if job in self._watched}, self._asked


def find(token: str) -> list[str] | None:
    """The unfinished jobs that were submitted with `token` in their comment; None where Slurm does not answer."""
    listed = _rows(2, "squeue", f"--user={os.getuid()}", "--noheader", "--format=%A|%k")
    return None if listed is None else [row[0] for row in listed if token in row[1]]


def cancel(jobs: Iterable[str]) -> str:
    """Cancel jobs, whole arrays by their number. Returns why Slurm could not be told, "" where it was."""
    for some in _pieces(jobs):
        told = ask("scancel", *some)
        if told.returncode and "nvalid job id" not in told.stderr:
            return (told.stderr.strip().splitlines() or ["no reason given"])[-1]
    return ""


def max_array() -> int:
    """The most jobs that the site takes in one array; 1 where it takes none or does not say."""
    told = ask("scontrol", "show", "config").stdout
    value = next((line.partition("=")[2].strip() for line in told.splitlines() if line.startswith("MaxArraySize")), "")
    return max(1, int(value)) if value.isdigit() else 1


def ask(*command: str) -> subprocess.CompletedProcess[str]:
    """Run one of Slurm's commands; one that hangs for a minute has failed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_FILTERS)}
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def _history(jobs: list[str]) -> dict[str, str] | None:
    """States by sacct. An array's waiting jobs, which it lists as one row, are squeue's to tell."""
    states: dict[str, str] = {}
    for some in _pieces(job.partition("_")[0] for job in jobs):
        listed = _rows(2, "sacct", "-X", "--noheader", "--parsable2", "--format=JobID,State", f"--jobs={','.join(some)}")
        if listed is None:
            return None
        states |= {row[0]: row[1].split()[0] for row in listed if row[1]}
    return {job: states[job] for job in jobs if job in states}


def _pieces(jobs: Iterable[str]) -> Iterator[list[str]]:
    """Jobs without repetition, as many at a time as a command line holds."""
    numbers = sorted(set(jobs))
    return (numbers[start : start + 500] for start in range(0, len(numbers), 500))


def _rows(fields: int, *command: str) -> list[list[str]] | None:
    """The lines of `fields` fields that a command prints; None where it fails."""
    asked = ask(*command)
    if asked.returncode:
        return None
    return [line.split("|", fields - 1) for line in asked.stdout.splitlines() if line.count("|") >= fields - 1]
