"""CUDA C++ through NVRTC: compiled with no GPU at hand, and loaded on one from the cache that was compiled before.

A source is compiled for one architecture into a cubin, whose name is a digest of all that determines it. `module` looks for
that name in the folder BLOCKWISE_CUBIN_CACHE first and compiles only what is not there. Sources include no headers: the
wheels may lack them.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.cli import BadInput

CACHE = "BLOCKWISE_CUBIN_CACHE"
hits = 0
"""Modules of this process that came out of the cache's folder."""
missed: Callable[[CudaSource, str], None] | None = None
"""Called with the source and the architecture of each module that had to be compiled."""

_modules: dict[tuple[int, str], Any] = {}


@dataclass(frozen=True)
class CudaSource:
    """Source text, NVRTC options (`-DNAME=value`; the architecture is added) and the names of its kernels, all extern "C"."""

    code: str
    options: tuple[str, ...]
    kernels: tuple[str, ...]


def cubin_name(source: CudaSource, architecture: str) -> str:
    """File name of the source's cubin for `architecture` ("sm_90"): the sha256 of code, options, architecture and NVRTC's major version."""
    from cupy.cuda import nvrtc

    fields = [source.code, source.options, architecture, nvrtc.getVersion()[0]]
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest() + ".cubin"


def compile_cubin(source: CudaSource, architecture: str) -> tuple[bytes, dict[str, dict[str, int]]]:
    """The cubin for `architecture`, and of each kernel its registers a thread, and bytes of spills, stack and static shared memory.

    Needs no GPU. Raises BadInput for an architecture that this NVRTC does not know, RuntimeError for source that does not compile.
    """
    from cupy.cuda import nvrtc

    version = "{}.{}".format(*nvrtc.getVersion())
    known = nvrtc.getSupportedArchs()
    if not re.fullmatch(r"sm_\d+", architecture) or int(architecture[3:]) not in known:
        older = "; older GPUs need cupy-cuda12x" if known and architecture[3:].isdigit() and int(architecture[3:]) < min(known) else ""
        names = ", ".join(f"sm_{number}" for number in known)
        raise BadInput(f"architecture {architecture}: unknown to NVRTC {version}, which compiles for {names}{older}")
    program = nvrtc.createProgram(source.code, "kernel.cu", (), ())
    try:
        try:
            nvrtc.compileProgram(program, (f"-arch={architecture}", "--std=c++17", "--ptxas-options=-v", *_no_cache(), *source.options))
        except nvrtc.NVRTCError as error:
            raise RuntimeError(f"{', '.join(source.kernels)} for {architecture}: {error}\n{nvrtc.getProgramLog(program)}") from None
        cubin = nvrtc.getCUBIN(program) + b"\0"  # CuPy cuts the last byte
        return cubin, _resources(nvrtc.getProgramLog(program), source.kernels)
    finally:
        nvrtc.destroyProgram(program)


def module(source: CudaSource) -> Any:
    """The source as a module on the current GPU; `module(source).get_function(name)` is a kernel. Loaded once a process and GPU."""
    global hits
    import cupy

    device = cupy.cuda.Device()
    name = cubin_name(source, f"sm_{device.compute_capability}")
    key = device.id, name
    if key not in _modules:
        folder = os.environ.get(CACHE)
        cached = Path(folder) / name if folder else None
        if cached is not None and cached.is_file():
            cubin = cached.read_bytes()
            hits += 1
        else:
            if missed is not None:
                missed(source, f"sm_{device.compute_capability}")
            cubin, _ = compile_cubin(source, f"sm_{device.compute_capability}")
        loaded = cupy.cuda.function.Module()
        loaded.load(cubin)
        _modules[key] = loaded
    return _modules[key]


@functools.cache
def _no_cache() -> tuple[str, ...]:
    """The option that keeps a newer NVRTC from answering out of its own cache, whose answers come without a report."""
    from cupy.cuda import nvrtc

    program = nvrtc.createProgram("", "empty.cu", (), ())
    try:
        nvrtc.compileProgram(program, ("--no-cache",))
    except nvrtc.NVRTCError:
        return ()  # an older NVRTC, which has neither option nor cache
    finally:
        nvrtc.destroyProgram(program)
    return ("--no-cache",)


def _resources(log: str, kernels: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """What `--ptxas-options=-v` reports of each kernel."""
    reports = dict(re.findall(r"Compiling entry function '(\w+)'(.*?)(?=Compiling entry function|\Z)", log, re.DOTALL))
    missing = [name for name in kernels if name not in reports]
    if missing:
        raise RuntimeError(f'no report of {", ".join(missing)} in NVRTC\'s log; are the kernels extern "C"?\n{log}')

    def number(pattern: str, report: str) -> int:
        return sum(map(int, re.findall(pattern, report)))

    return {
        name: {
            "registers": number(r"Used (\d+) registers", reports[name]),
            "spills": number(r"(\d+) bytes spill stores", reports[name]),
            "stack": number(r"(\d+) bytes stack frame", reports[name]),
            "shared_static": number(r"(\d+) bytes smem", reports[name]),
        }
        for name in kernels
    }
