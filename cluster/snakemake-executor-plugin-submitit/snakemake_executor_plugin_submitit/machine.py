"""The cores and GPUs of this machine, handed out to local jobs so that no two share a GPU."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """What one running job holds."""

    cores: int
    gpus: tuple[str, ...]


class Machine:
    """A ledger of what is free. GPUs are named as CUDA_VISIBLE_DEVICES names them: an index, a UUID or a MIG slice."""

    def __init__(self, cores: int, gpus: list[str]):
        self.cores, self.gpus = cores, tuple(gpus)
        self._free_cores, self._free_gpus = cores, list(gpus)

    def take(self, cores: int, gpus: int) -> Share | None:
        """A share of `cores` (at most all there are) and `gpus`, or None where it is not free now."""
        cores = min(cores, self.cores)
        if cores > self._free_cores or gpus > len(self._free_gpus):
            return None
        taken, self._free_gpus = self._free_gpus[:gpus], self._free_gpus[gpus:]
        self._free_cores -= cores
        return Share(cores, tuple(taken))

    def give_back(self, share: Share) -> None:
        self._free_cores += share.cores
        self._free_gpus += share.gpus
        self._free_gpus.sort(key=self.gpus.index)


def this_machine(cores: int, gpus: str) -> Machine:
    """The machine as the settings `cores` (0: all that this process may use) and `gpus` (a list, none, auto) describe it."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if gpus == "auto":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        found = _nvidia_smi() if visible is None else _split(visible)
    else:
        found = [] if gpus == "none" else _split(gpus)
    return Machine(cores or usable, found)


def _split(text: str) -> list[str]:
    return [name for name in (part.strip() for part in text.split(",")) if name and name != "-1"]


def _nvidia_smi() -> list[str]:
    """Every GPU that nvidia-smi lists by index; of one that is cut into MIG slices, the slices by UUID."""
    try:
        text = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return listed(text)


def listed(text: str) -> list[str]:
    """The devices in the output of `nvidia-smi -L`, as CUDA_VISIBLE_DEVICES takes them."""
    found: dict[str, list[str]] = {}
    index = ""
    for line in text.splitlines():
        if gpu := re.match(r"GPU (\d+):", line):
            index = gpu[1]
            found[index] = []
        elif slice_ := re.search(r"UUID: (MIG-[^)\s]+)", line):
            found[index].append(slice_[1])
    return [device for gpu, slices in found.items() for device in slices or [gpu]]
