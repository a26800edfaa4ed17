"""Where and with what a record was measured: code, host, job, device, driver, clocks, versions."""

from __future__ import annotations

import atexit
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_SLURM = {"slurm_job_id": "SLURM_JOB_ID", "slurm_array_job_id": "SLURM_ARRAY_JOB_ID", "slurm_array_task_id": "SLURM_ARRAY_TASK_ID"}
_TIMES = {"job_submitted": "SNAKEMAKE_JOB_SUBMITTED", "job_started": "SNAKEMAKE_JOB_STARTED"}
"""What a job's executor says of it, in Unix time: since when it waited, and since when it has its node."""


def identity(**fields: Any) -> str:
    """The id of what `fields` determine: the first 16 hex digits of the sha256 of their canonical JSON."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def versions(*distributions: str) -> dict[str, str]:
    """Versions of the named distributions that are installed, without importing them, and of Python."""
    found = {"python": platform.python_version()}
    for name in distributions:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def commit() -> tuple[str, bool]:
    """The code's git commit and whether the code differs from it (results do not count).

    Where there is no git, BLOCKWISE_COMMIT (commit[-dirty]) is taken.
    """
    given = os.environ.get("BLOCKWISE_COMMIT")
    if given:
        return given.removesuffix("-dirty"), given.endswith("-dirty")

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != ROOT:
            return "unknown", True
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results"))
    except (OSError, subprocess.CalledProcessError):
        return "unknown", True


def cpu_name() -> str:
    """The processor's model and how many of its cores this process may use."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass  # not Linux: the platform module's name stands
    return f"{name} (CPU, {usable_cores()} cores)"


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_state() -> dict[str, Any] | None:
    """Name, UUID, MIG profile, driver, clocks (MHz), temperature (°C), power (W) and throttle reasons of the GPU in use; None without one.

    The GPU is the first of CUDA_VISIBLE_DEVICES, which may name an index, a UUID or a MIG slice; none where that is empty or
    -1. Of a GPU cut into slices that is named by its index it is the first slice, as CUDA takes it.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if visible in ("", "-1"):
        return None
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # NVML's order; CUDA's own puts the fastest GPU first
    nvml = _nvml()
    return nvml and _describe(nvml, visible)


@functools.cache
def _nvml() -> Any:
    """NVML, opened once for this process, or None where there is none."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except (ImportError, OSError):
        return None
    except Exception as error:  # nvmlInit raises its own NVMLError where there is no driver
        if type(error).__name__.startswith("NVMLError"):
            return None
        raise
    atexit.register(pynvml.nvmlShutdown)
    return pynvml


def _describe(nvml: Any, visible: str) -> dict[str, Any]:
    """What NVML says of the device `visible`; a value that the device or a MIG slice does not offer is None."""
    if visible.startswith(("GPU-", "MIG-")):
        handle = nvml.nvmlDeviceGetHandleByUUID(visible.encode())
    else:
        handle = nvml.nvmlDeviceGetHandleByIndex(int(visible))

    def ask(function: Any, *arguments: Any) -> Any:
        try:
            value = function(*arguments)
        except nvml.NVMLError:
            return None
        return value.decode() if isinstance(value, bytes) else value

    if (ask(nvml.nvmlDeviceGetMigMode, handle) or [0])[0] == nvml.NVML_DEVICE_MIG_ENABLE:
        handle = ask(nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, 0) or handle
    name, power = ask(nvml.nvmlDeviceGetName, handle), ask(nvml.nvmlDeviceGetPowerUsage, handle)
    return {
        "name": name,
        "uuid": ask(nvml.nvmlDeviceGetUUID, handle),
        "mig": name.split("MIG ", 1)[1] if name and "MIG " in name else None,
        "driver": ask(nvml.nvmlSystemGetDriverVersion),
        "clock_sm_mhz": ask(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM),
        "clock_memory_mhz": ask(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_MEM),
        "temperature_c": ask(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
        "power_w": None if power is None else power / 1000,
        "throttle_reasons": ask(nvml.nvmlDeviceGetCurrentClocksEventReasons, handle),
    }


def environment() -> dict[str, Any]:
    """What every record's `provenance` holds: commit, dirty flag, host, Slurm ids, the job's times, Python, platform and the command."""
    code, dirty = commit()
    slurm = {name: os.environ[variable] for name, variable in _SLURM.items() if variable in os.environ}
    times = {name: float(os.environ[variable]) for name, variable in _TIMES.items() if os.environ.get(variable)}
    return {
        "commit": code,
        "dirty": dirty,
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "command": shlex.join([Path(sys.executable).name, *sys.orig_argv[1:]]),
        **slurm,
        **times,
    }
