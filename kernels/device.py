"""The device that a job found: what records are filed under, whatever was asked for."""

from __future__ import annotations

import functools
import importlib.metadata
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.cli import BadInput
from analysis.environment import cpu_name, gpu_state
from analysis.modules import imported
from cluster import site
from kernels.contract import Backend

LIBRARIES = {
    "numpy": ("numpy", "scipy"),
    "torch": ("torch", "numpy"),
    "triton": ("triton", "torch"),
    "cupy": ("cupy-cuda13x", "cupy-cuda12x", "nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12"),
}
"""Distributions whose version may change a backend's result or speed, by the usual backends' names."""


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def libraries(backend: Backend) -> tuple[str, ...]:
    """Distributions behind a backend: of LIBRARIES, and for a peer or a user's function what its own file imports."""
    if backend.name in LIBRARIES or backend.module.__file__ is None:
        return LIBRARIES.get(backend.name, ())
    modules = imported(Path(backend.module.__file__))
    return tuple(sorted({name for module in modules for name in _distributions().get(module, ())}))


@dataclass(frozen=True)
class Device:
    """kind: "cpu" or "gpu"; name: its model, with a MIG slice's profile; driver: the GPU driver's version, "" on a CPU."""

    kind: str
    name: str
    driver: str = ""


def find(planned: str) -> Device:
    """The device of this process for a planned one: "cpu", "auto" (a GPU if there is one), or a GPU by any other name.

    Raises BadInput where a GPU was planned and there is none.
    """
    state: dict[str, Any] | None = None if planned == "cpu" else gpu_state()
    if state:
        expected = site.load().gpus.get(planned)
        if expected and expected.name.removeprefix("NVIDIA ") != state["name"].removeprefix("NVIDIA "):
            print(f"note: planned for {expected.name}, found {state['name']}: records are filed under what was found", file=sys.stderr)
        return Device("gpu", state["name"], state["driver"])
    if planned not in ("cpu", "auto"):
        raise BadInput(f"--device {planned}: no NVIDIA GPU in this job; ask for one (gpu=1), or plan the device cpu")
    return Device("cpu", cpu_name())
