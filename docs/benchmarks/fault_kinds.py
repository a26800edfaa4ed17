"""The faults of a campaign, one function a kind: each hits something of a site that is there to be hit, or says that there is nothing."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fault_site import Job, Site, Worker

from analysis.cli import BadInput
from cluster.testbed import daemons


@dataclass
class Hit:
    """A fault that hit `what`.

    `seen` tells whether it took effect, for `patience_s` at the most. `undo` is what an administrator (or systemd) does about
    it `hold_s` later, or as soon as it was seen where it is `brief`. `cut` counts the records that were taken from a journal.
    """

    what: str
    seen: Callable[[], bool]
    patience_s: float = 30.0
    undo: Callable[[], object] | None = None
    hold_s: float = 0.0
    brief: bool = False
    cut: int = 0


Kind = Callable[[Site, random.Random], Hit | None]


def worker(site: Site, rng: random.Random) -> Hit | None:
    """SIGKILL of the process that measures."""
    return _kill(site.workers(), rng)


def wrapper(site: Site, rng: random.Random) -> Hit | None:
    """SIGKILL of submitit's process, which runs the job's command."""
    return _kill(site.processes("submitit.core._submit"), rng)


def _kill(processes: list[Worker], rng: random.Random) -> Hit | None:
    if not processes:
        return None
    target = rng.choice(processes)
    with contextlib.suppress(ProcessLookupError):
        os.kill(target.pid, signal.SIGKILL)
    return Hit(target.describe(), lambda: not target.alive())


def slurmd(site: Site, rng: random.Random) -> Hit | None:
    """SIGKILL of the slurmd of a node that runs a job; started again later, past SlurmdTimeout (60 s) in one of three."""
    jobs = [job for job in site.running() if f"slurmd.{job.node}" in daemons.running(site.state)]
    if not jobs:
        return None
    job = rng.choice(jobs)
    name, pid = f"slurmd.{job.node}", daemons.running(site.state)[f"slurmd.{job.node}"]
    hold = rng.choice([rng.uniform(2, 20), rng.uniform(20, 50), rng.uniform(65, 90)])
    os.kill(pid, signal.SIGKILL)
    return Hit(
        f"{name} for {hold:.0f} s, with job {job.id} ({job.name})",
        lambda: daemons.running(site.state).get(name) != pid,
        undo=lambda: daemons.start(site.state, name),
        hold_s=hold,
    )


def slurmctld(site: Site, rng: random.Random) -> Hit | None:
    """slurmctld ended, by SIGTERM or SIGKILL, and started again."""
    pid = daemons.running(site.state).get("slurmctld")
    if pid is None or not site.workers():
        return None
    number, hold = rng.choice([signal.SIGTERM, signal.SIGKILL]), rng.uniform(1, 20)
    os.kill(pid, number)
    return Hit(
        f"slurmctld by {number.name}, for {hold:.0f} s",
        lambda: daemons.running(site.state).get("slurmctld") != pid,
        undo=lambda: daemons.start(site.state, "slurmctld"),
        hold_s=hold,
    )


def scancel(site: Site, rng: random.Random) -> Hit | None:
    """A running job cancelled."""
    job = _any(site, rng)
    if job is None or site.ask("scancel", job.id) is None:
        return None
    return Hit(_name(job), lambda: _state(site, job) not in ("RUNNING", "PENDING", "COMPLETING", None))


def drain(site: Site, rng: random.Random) -> Hit | None:
    """A node that runs a job drained, and resumed later."""
    job = _any(site, rng)
    if job is None or site.ask("scontrol", "update", f"nodename={job.node}", "state=drain", "reason=campaign") is None:
        return None
    hold = rng.uniform(10, 40)

    def drained() -> bool:
        return "drain" in _must(site, "sinfo", "--noheader", f"--nodes={job.node}", "--format=%T")

    def resume() -> None:
        if drained():  # a slurmctld that was killed may have forgotten it
            _must(site, "scontrol", "update", f"nodename={job.node}", "state=resume")

    return Hit(f"{job.node} for {hold:.0f} s, with {_name(job)}", drained, undo=resume, hold_s=hold)


def timeout(site: Site, rng: random.Random) -> Hit | None:
    """A job's time limit cut to at most two minutes from now: it is told so at once, and requeued by submitit. The limit is put back."""
    job = _any(site, rng)
    told = site.ask("squeue", "--noheader", f"--jobs={job.id}", "--Format=TimeUsed:|,TimeLimit:|") if job else None
    if job is None or not told or ":" not in told:
        return None
    used, limit = told.strip().split("|")[:2]
    minutes = sum(int(part) * 60**place for place, part in enumerate(reversed(used.split(":")[:-1])))
    if site.ask("scontrol", "update", f"jobid={job.id}", f"timelimit={minutes + 2}") is None:
        return None

    def back() -> None:
        if _state(site, job) in ("RUNNING", "PENDING"):
            _must(site, "scontrol", "update", f"jobid={job.id}", f"timelimit={limit}")

    return Hit(_name(job), lambda: _left(site, job), patience_s=130, undo=back, hold_s=130, brief=True)


def preemption(site: Site, rng: random.Random) -> Hit | None:
    """A job of a partition with precedence takes the whole node: Slurm requeues the job that runs there."""
    job = _any(site, rng)
    words = ("--parsable", "--partition=gpu", "--cpus-per-task=8", "--mem=100", "--output=/dev/null", "--chdir=/", "--wrap=sleep 2")
    rival = site.ask("sbatch", f"--nodelist={job.node}", *words) if job else None
    if job is None or not rival:
        return None
    end = functools.partial(_must, site, "scancel", rival.strip())  # where it waits for a node that is down meanwhile
    return Hit(f"{_name(job)} on {job.node}", lambda: _left(site, job), patience_s=60, undo=end, hold_s=60)


def full_disk(site: Site, rng: random.Random) -> Hit | None:
    """No room left on the file system for a while."""
    return _without_room(site, rng, site.volume.fill, site.volume.empty)


def quota(site: Site, rng: random.Random) -> Hit | None:
    """The quota of the folder used up for a while."""
    return _without_room(site, rng, lambda: site.volume.limit("1"), lambda: site.volume.limit("none"))


def _without_room(site: Site, rng: random.Random, take: Callable[[], None], give: Callable[[], None]) -> Hit | None:
    workers = site.workers()
    if not workers or site.volume.short:
        return None
    hold = rng.uniform(8, 30)
    take()
    what = f"{len(workers)} workers, for {hold:.0f} s"
    return Hit(what, lambda: not all(each.alive() for each in workers), patience_s=hold, undo=give, hold_s=hold)


def driver(site: Site, rng: random.Random) -> Hit | None:
    """SIGKILL of the driver: whatever it is at, it leaves."""
    process = site.driver
    if process is None or process.poll() is not None:
        return None
    process.kill()
    process.wait(30)
    return Hit(f"start {site.starts}, process {process.pid}", lambda: True)


def journal_cut(site: Site, rng: random.Random) -> Hit | None:
    """A worker killed and its journal cut at a random byte: what a node that loses power leaves."""
    open_ = [(worker, file) for worker in site.workers() if (file := _journal(worker)) and file.stat().st_size]
    if not open_ or site.volume.short:  # a file on a full disk cannot be cut either
        return None
    target, file = rng.choice(open_)
    with contextlib.suppress(ProcessLookupError):
        os.kill(target.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while target.alive() and time.monotonic() < deadline:
        time.sleep(0.02)  # it is another process's child: there is nothing to wait on
    text = file.read_bytes()
    size = rng.randrange(len(text))
    os.truncate(file, size)
    cut = text.count(b"\n") - text[:size].count(b"\n")
    return Hit(f"{target.describe()}: {size} of {len(text)} bytes left, {cut} records cut", lambda: not target.alive(), cut=cut)


def _journal(worker: Worker) -> Path | None:
    """The journal file that a worker has open."""
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{worker.pid}/fd").iterdir():
            if (file := os.readlink(link)).endswith(".jsonl"):
                return Path(file)
    return None


def _any(site: Site, rng: random.Random) -> Job | None:
    jobs = site.running()
    return rng.choice(jobs) if jobs else None


def _name(job: Job) -> str:
    return f"job {job.id} ({job.name})"


def _state(site: Site, job: Job) -> str | None:
    """Slurm's word for the job's state now; None where it does not answer or has forgotten it."""
    now = site.jobs().get(job.id)
    return now.state if now else None


def _left(site: Site, job: Job) -> bool:
    """Whether the job was taken from its node, to be requeued or for good."""
    now = site.jobs().get(job.id)
    return now is not None and (now.restarts > job.restarts or now.state not in ("RUNNING", "COMPLETING"))


def _must(site: Site, *words: str) -> str:
    """What Slurm answers. Raises BadInput where it does not: the campaign asks again."""
    if (answer := site.ask(*words)) is None:
        raise BadInput(f"{' '.join(words)}: Slurm does not take it")
    return answer


KINDS: dict[str, Kind] = {
    "SIGKILL of the worker": worker,
    "SIGKILL of submitit's wrapper": wrapper,
    "SIGKILL of slurmd": slurmd,
    "scancel": scancel,
    "node drain": drain,
    "time-out": timeout,
    "preemption by requeue": preemption,
    "full disk": full_disk,
    "quota": quota,
    "slurmctld restart": slurmctld,
    "SIGKILL of the driver": driver,
    "journal cut at a random byte": journal_cut,
}
