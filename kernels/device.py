"""The device that a job found: what records are filed under, whatever was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from analysis.cli import BadInput
from analysis.environment import cpu_name, gpu_state

LIBRARIES = {
    "numpy": ("numpy", "scipy"),
    "torch": ("torch", "numpy"),
    "triton": ("triton", "torch"),
    "cupy": ("cupy-cuda13x", "cupy-cuda12x", "nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12"),
}
"""Distributions whose version may change a backend's result or speed."""


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
        return Device("gpu", state["name"], state["driver"])
    if planned not in ("cpu", "auto"):
        raise BadInput(f"--device {planned}: no NVIDIA GPU in this job; ask for one (gpu=1), or plan the device cpu")
    return Device("cpu", cpu_name())
