"""Where a fault campaign happens: a copy of the project on a small file system of its own, beside the three-node testbed."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from analysis.cli import BadInput
from cluster.testbed import daemons

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (
    "snakemake", "--profile", "cluster", "--configfile", "config/faults.yaml",
    "--submitit-poll-s", "3", "--submitit-result-s", "5", "--seconds-between-status-checks", "1", "--latency-wait", "10",
)  # fmt: skip
"""The one command, given again whenever it has ended. It looks more often than the profile says, as on a fast site."""
VOLUME_BYTES = 384 << 20


@dataclass(frozen=True)
class Job:
    """A job of the run as Slurm tells of it; `id` is its number, with its place in the array where it is in one."""

    id: str
    name: str
    state: str
    node: str
    restarts: int


@dataclass(frozen=True)
class Worker:
    """A process of a job: its number, what it was started with, and the job."""

    pid: int
    words: tuple[str, ...]
    job: str

    def alive(self) -> bool:
        return _words(self.pid) == self.words

    def describe(self) -> str:
        about = self.words[self.words.index("--experiment" if "--experiment" in self.words else "-m") + 1]
        return f"{about}, job {self.job}, process {self.pid}"


class Volume:
    """A btrfs in a file: the one file system of which a quota holds for root as well. What is to be limited is in `home`.

    `short`: no room is left in it now.
    """

    def __init__(self, folder: Path) -> None:
        self.image, self.top = folder / "volume.img", folder / "volume"
        self.home, self.ballast = self.top / "home", self.top / "ballast"
        self.short = False

    def mount(self) -> None:
        self.top.mkdir()
        with self.image.open("wb") as file:
            file.truncate(VOLUME_BYTES)
        for command in (
            ["mkfs.btrfs", "-q", "--metadata", "single", str(self.image)],
            ["mount", "-o", "loop", str(self.image), str(self.top)],
            ["btrfs", "quota", "enable", str(self.top)],
            ["btrfs", "subvolume", "create", str(self.home)],
        ):
            _run(command)

    def unmount(self) -> None:
        if self.top.is_mount():
            with contextlib.suppress(subprocess.CalledProcessError):  # a process that is about to end may work in it still
                _run(["umount", str(self.top)])
                return
            _run(["umount", "--lazy", str(self.top)])

    def fill(self) -> None:
        """Take all room that is left, to the last block."""
        self.short = True
        with self.ballast.open("wb") as file:
            end, piece = 0, 64 << 20
            while piece >= 4096:
                try:
                    os.posix_fallocate(file.fileno(), end, piece)
                    end += piece
                except OSError:
                    piece //= 2

    def empty(self) -> None:
        self.ballast.unlink(missing_ok=True)
        self.short = False

    def limit(self, size: str) -> None:
        """Limit what `home` may hold; what it holds already stays. Named by number: the folder's own quota would refuse the change."""
        told = subprocess.run(["btrfs", "subvolume", "show", str(self.home)], capture_output=True, text=True, check=True).stdout
        number = next(line.split(":")[1].strip() for line in told.splitlines() if "Subvolume ID" in line)
        _run(["btrfs", "qgroup", "limit", size, f"0/{number}", str(self.top)])
        self.short = size != "none"


@dataclass
class Site:
    """The copy in which the command is given, the testbed's Slurm, and the driver, which is the command while it runs."""

    folder: Path
    volume: Volume
    driver: subprocess.Popen[bytes] | None = None
    starts: int = 0
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def work(self) -> Path:
        return self.volume.home

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def log(self) -> Path:
        """All that the drivers said: as a terminal would show it, on no disk that is full."""
        return self.folder / "driver.log"

    def ending(self) -> str:
        """The commands that end what a killed campaign leaves."""
        return f"python -m cluster.testbed down --state {self.state}; umount {self.volume.top}; rm -r {self.folder}"

    def start(self) -> None:
        """Give the command."""
        self.starts += 1
        with self.log.open("ab") as log:
            log.write(f"\n$ {' '.join(COMMAND)}    # start {self.starts}\n".encode())
            log.flush()
            self.driver = subprocess.Popen(
                [sys.executable, "-m", *COMMAND],
                cwd=self.work,
                env=self.variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def ask(self, *words: str) -> str | None:
        """What one of Slurm's commands prints; None where it fails, as it does while slurmctld is away."""
        try:
            asked = subprocess.run(words, env=self.variables, capture_output=True, text=True, timeout=30, check=False)
        except subprocess.TimeoutExpired:
            return None
        return asked.stdout if asked.returncode == 0 else None

    def jobs(self) -> dict[str, Job]:
        """The run's jobs that Slurm still has in memory, by id; none where it does not answer."""
        columns = ("JobArrayID", "Name", "State", "NodeList", "RestartCnt", "WorkDir")
        listed = self.ask("squeue", "--noheader", "--array", "--states=all", f"--Format={','.join(f'{name}:|' for name in columns)}")
        rows = [line.split("|")[: len(columns)] for line in (listed or "").splitlines()]
        return {row[0]: Job(row[0], row[1], row[2], row[3], int(row[4] or 0)) for row in rows if len(row) == 6 and row[5] == str(self.work)}

    def running(self) -> list[Job]:
        return sorted((job for job in self.jobs().values() if job.state == "RUNNING" and job.node), key=lambda job: job.id)

    def processes(self, module: str) -> list[Worker]:
        """The processes of jobs that run `python -m module`, in this copy."""
        found = []
        for file in Path("/proc").glob("[0-9]*"):
            words = _words(int(file.name))
            with contextlib.suppress(OSError, StopIteration):
                if ("-m", module) in itertools.pairwise(words) and os.readlink(file / "cwd") == str(self.work):
                    variables = (file / "environ").read_bytes().split(b"\0")
                    job = next(each[13:].decode() for each in variables if each.startswith(b"SLURM_JOB_ID="))
                    found.append(Worker(int(file.name), words, job))
        return sorted(found, key=lambda worker: worker.pid)

    def workers(self) -> list[Worker]:
        return self.processes("kernels.sweep")

    def end(self) -> None:
        """End what is left of the driver."""
        if self.driver and self.driver.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.driver.pid, signal.SIGKILL)
            self.driver.wait(30)


@contextlib.contextmanager
def opened(folder: Path, config: str) -> Iterator[Site]:
    """A site in `folder`, which every user can pass; its daemons are ended and its file system is unmounted in any case."""
    if lacking := [name for name in ("mkfs.btrfs", "btrfs") if not shutil.which(name)]:
        raise BadInput(f"not installed: {', '.join(lacking)}; run: apt-get install --no-install-recommends btrfs-progs")
    site = Site(folder, Volume(folder))
    site.variables = os.environ | daemons.environment(site.state)
    try:
        site.volume.mount()
        copy(site.work)
        (site.work / "config/faults.yaml").write_text(config)
        daemons.up(site.state)
        yield site
    finally:
        site.end()
        site.volume.empty()
        if site.state.exists():
            shutil.copytree(site.state / "log", folder / "slurm-log")
        daemons.down(site.state)
        _leave(site)
        site.volume.unmount()


def copy(to: Path) -> None:
    """The project as git would clone it, less the shipped results; its jobs are sent to the partition that yields to others."""
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, names.stdout.split("\0")):
        if (ROOT / name).is_file() and not name.startswith("results/"):
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    profile = to / "cluster/profile.v9+.yaml"
    text, key = profile.read_text(), '#  slurm_partition: "gpu"'
    if key not in text:
        raise BadInput(f"{profile}: no line {key!r} to send jobs to another partition by")
    profile.write_text(text.replace(key, '  slurm_partition: "spare"'))


def _leave(site: Site) -> None:
    """Wait until no process works in the file system: a job that was cut off from its slurmd outlives the testbed."""
    deadline = time.monotonic() + 10
    while left := [file for file in Path("/proc").glob("[0-9]*") if _works_in(file, site.work)]:
        if time.monotonic() > deadline:
            for file in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(file.name), signal.SIGKILL)
            return
        time.sleep(0.5)  # they are no children of this process: there is nothing to wait on


def _works_in(process: Path, folder: Path) -> bool:
    try:
        return Path(os.readlink(process / "cwd")).is_relative_to(folder)
    except OSError:
        return False


def _words(pid: int) -> tuple[str, ...]:
    try:
        return tuple(word.decode(errors="replace") for word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1])
    except OSError:
        return ()


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
