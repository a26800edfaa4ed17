"""The cores and GPUs of this machine, handed out to local jobs so that no two share a GPU."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from snakemake_interface_common.exceptions import WorkflowError

LOCKS = Path("/tmp")  # not TMPDIR: every driver of this user must find the same


@dataclass(frozen=True)
class Share:
    """What one running job holds; `locks` are open files, to be inherited by the job."""

    cores: int
    gpus: tuple[str, ...]
    locks: tuple[int, ...] = ()


class Machine:
    """A ledger of what is free. GPUs are named as CUDA_VISIBLE_DEVICES names them: an index, a UUID or a MIG slice.

    `lock(gpu)` returns an open file that holds the GPU against other drivers, or None where one of their jobs has it.
    """

    def __init__(self, cores: int, gpus: list[str], lock: Callable[[str], int | None] | None = None):
        self.cores, self.gpus = cores, tuple(gpus)
        self._free_cores, self._free_gpus = cores, list(gpus)
        self._lock = lock

    def take(self, cores: int, gpus: int) -> Share | None:
        """A share of `cores` (at most all there are) and `gpus`, or None where it is not free now."""
        cores = min(cores, self.cores)
        if cores > self._free_cores or gpus > len(self._free_gpus):
            return None
        taken: dict[str, int | None] = {}
        for gpu in self._free_gpus:
            if len(taken) == gpus:
                break
            held = self._lock(gpu) if self._lock else None
            if held is not None or not self._lock:
                taken[gpu] = held
        share = Share(cores, tuple(taken), tuple(lock for lock in taken.values() if lock is not None))
        if len(taken) < gpus:
            _close(share.locks)
            return None
        self._take(share)
        return share

    def keep(self, cores: int, gpus: Iterable[str]) -> Share:
        """The share of a job that runs already, started by an earlier driver: the GPUs' locks are its own."""
        share = Share(cores, tuple(gpu for gpu in gpus if gpu in self._free_gpus))
        self._take(share)
        return share

    def _take(self, share: Share) -> None:
        self._free_cores -= share.cores
        self._free_gpus = [gpu for gpu in self._free_gpus if gpu not in share.gpus]

    def give_back(self, share: Share) -> None:
        self._free_cores += share.cores
        self._free_gpus += share.gpus
        self._free_gpus.sort(key=self.gpus.index)
        _close(share.locks)


def _close(locks: Iterable[int]) -> None:
    for lock in locks:
        with contextlib.suppress(OSError):
            os.close(lock)


def this_machine(cores: int, gpus: str) -> Machine:
    """The machine as the settings `cores` (0: all that this process may use) and `gpus` (a list, none, auto) describe it.

    Its GPUs are locked against this user's other drivers.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    listing = _nvidia_smi()
    if gpus == "auto":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        found = listed(listing) if visible is None else _split(visible)
    else:
        found = [] if gpus == "none" else _split(gpus)
    uuids = dict(re.findall(r"^GPU (\d+):.*\(UUID: ([^)]+)\)", listing, re.MULTILINE))
    if not found:
        return Machine(cores or usable, [])
    folder = locks()
    return Machine(cores or usable, found, lambda gpu: lock(folder, uuids.get(gpu, gpu)))


def locks() -> Path:
    """The folder of the GPUs' locks. Raises WorkflowError where it is not this user's own."""
    folder = LOCKS / f"snakemake-submitit-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise WorkflowError(f"{folder} holds the locks of GPUs and is not a folder of yours alone; remove it, or ask who made it")
    return folder


def lock(folder: Path, name: str) -> int | None:
    """Lock the GPU `name` for whoever holds the returned open file; None where another process holds it."""
    held = os.open(folder / f"gpu-{re.sub(r'[^A-Za-z0-9-]', '_', name)}", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        return None
    return held


def _split(text: str) -> list[str]:
    return [name for name in (part.strip() for part in text.split(",")) if name and name != "-1"]


def _nvidia_smi() -> str:
    try:
        return subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def listed(text: str) -> list[str]:
    """The devices in the output of `nvidia-smi -L`, as CUDA_VISIBLE_DEVICES takes them: of a GPU cut into MIG slices, the slices."""
    found: dict[str, list[str]] = {}
    index = ""
    for line in text.splitlines():
        if gpu := re.match(r"GPU (\d+):", line):
            index = gpu[1]
            found[index] = []
        elif slice_ := re.search(r"UUID: (MIG-[^)\s]+)", line):
            found[index].append(slice_[1])
    return [device for gpu, slices in found.items() for device in slices or [gpu]]
