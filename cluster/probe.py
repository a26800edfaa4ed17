"""What a machine is like for a GPU job, as JSON: Python, libraries, driver, GPUs, and which folders it sees.

`python -m cluster.doctor` runs this in a job on a GPU node. It needs the standard library alone, and works where torch is missing.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HERE, THERE = "written-by-doctor", "written-by-probe"
"""Files in an exchange folder: the doctor writes a word into the first; the probe answers with the same word in the second."""
_CUPY = ("12", "13")


def report(exchange: Iterable[Path] = (), see: Iterable[Path] = ()) -> dict[str, Any]:
    """Everything about this machine, of types that JSON has.

    folders: for each exchange folder the word read there, or the reason why not, after answering. unseen: those of `see` that
    are not there. tmp_free_gb: space in the temporary folder, to which kernels' caches are copied.
    """
    return {
        "host": socket.gethostname(),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "triton": version("triton"),
        "torch": version("torch"),
        "wheels": {"torch": torch_cuda(), "cupy": next((cuda for cuda in _CUPY if version(f"cupy-cuda{cuda}x")), None)},
        "cuda": cuda(),
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "folders": {str(folder): answer(folder) for folder in exchange},
        "unseen": [str(path) for path in see if not path.exists()],
        "tmp_free_gb": shutil.disk_usage(tempfile.gettempdir()).free / 1e9,
    }


def version(distribution: str) -> str | None:
    """The version of an installed distribution, without importing it; None where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def torch_cuda() -> str | None:
    """The CUDA version of the installed torch, read from its files (importing it takes seconds); None without CUDA or torch."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    found = re.search(r"^cuda\b[^=]*= ['\"]([\d.]+)", Path(spec.origin).with_name("version.py").read_text(), re.MULTILINE)
    return found[1] if found else None


def answer(folder: Path) -> dict[str, str]:
    """Read the doctor's word in an exchange folder and write it back: {"word": …} or {"error": …}."""
    try:
        word = (folder / HERE).read_text()
        (folder / THERE).write_text(word)
    except OSError as error:
        return {"error": error.strerror or type(error).__name__}
    return {"word": word}


def cuda() -> dict[str, Any]:
    """What CUDA's driver says, as every CUDA program of this process would see it.

    driver: the CUDA version that it supports, None without a driver. gpus: name (of a MIG slice with its profile), architecture
    and memory_gb (of 2^30 bytes) of each visible GPU. error: why there are none, else None.
    """
    found: dict[str, Any] = {"driver": None, "gpus": [], "error": None}
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return found | {"error": "no NVIDIA driver: libcuda.so.1 is not to be found"}
    number = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(number))
    found["driver"] = f"{number.value // 1000}.{number.value % 1000 // 10}"
    try:
        _call(driver, "cuInit", 0)
        _call(driver, "cuDeviceGetCount", ctypes.byref(number))
        found["gpus"] = [_gpu(driver, index) for index in range(number.value)]
    except OSError as error:
        found["error"] = str(error)
    return found


def _gpu(driver: ctypes.CDLL, index: int) -> dict[str, Any]:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
    _call(driver, "cuDeviceGet", ctypes.byref(device), index)
    _call(driver, "cuDeviceGetName", name, len(name), device)
    _call(driver, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    _call(driver, "cuDeviceGetAttribute", ctypes.byref(major), 75, device)  # the two halves of the compute capability
    _call(driver, "cuDeviceGetAttribute", ctypes.byref(minor), 76, device)
    return {"name": name.value.decode(), "architecture": f"sm_{major.value}{minor.value}", "memory_gb": memory.value / 2**30}


def _call(driver: ctypes.CDLL, function: str, *arguments: Any) -> None:
    """Call a function of CUDA's driver; OSError with CUDA's own name for what went wrong."""
    status = getattr(driver, function)(*arguments)
    if status:
        name = ctypes.c_char_p()
        driver.cuGetErrorName(status, ctypes.byref(name))
        raise OSError(f"{function}: {name.value.decode() if name.value else f'error {status}'}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m cluster.probe", description=__doc__)
    parser.add_argument(
        "--exchange", type=Path, action="append", default=[], metavar="FOLDER", help="read the doctor's word here, and answer"
    )
    parser.add_argument("--see", type=Path, action="append", default=[], metavar="PATH", help="say if this is not there")
    options = parser.parse_args()
    json.dump(report(options.exchange, options.see), sys.stdout, indent=1)


if __name__ == "__main__":
    main()
