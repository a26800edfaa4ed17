"""Moves inputs and outputs between NumPy and a backend's arrays, and poisons memory that nobody has written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from kernels.contract import Arrays

Shapes = Mapping[str, tuple[tuple[int, ...], str]]


def place(inputs: Arrays, shapes: Shapes, arrays: str, kind: str) -> Arrays:
    """`inputs` (NumPy) as the backend's `arrays` ("numpy", "torch" or "cupy") on a device of `kind` ("cpu" or "gpu").

    bfloat16 inputs, which NumPy holds as float32, become bfloat16 in torch.
    """
    if arrays == "numpy":
        return inputs
    if arrays == "cupy":
        import cupy

        return {name: cupy.asarray(value) for name, value in inputs.items()}
    import torch

    device = "cuda" if kind == "gpu" else "cpu"
    return {name: torch.from_numpy(value).to(device, getattr(torch, shapes[name][1])) for name, value in inputs.items()}


def meta(shapes: Shapes) -> Arrays:
    """Torch tensors without data, of the given shapes and dtypes: enough to compile what a backend would launch."""
    import torch

    return {name: torch.empty(shape, dtype=getattr(torch, dtype), device="meta") for name, (shape, dtype) in shapes.items()}


def to_numpy(outputs: Arrays) -> dict[str, np.ndarray]:
    """A backend's outputs as NumPy arrays (bfloat16 as float32); waits for the device."""

    def convert(value: Any) -> np.ndarray:
        if isinstance(value, np.ndarray):
            return value
        if hasattr(value, "get"):
            return value.get()
        value = value.detach()
        return (value.float() if value.dtype.is_floating_point and value.element_size() < 4 else value).cpu().numpy()

    return {name: convert(value) for name, value in outputs.items()}


@contextlib.contextmanager
def poisoned(arrays: str) -> Iterator[None]:
    """Within it, memory that a backend allocates holds NaN (floats) or the largest or all-ones value (integers) until written.

    A kernel that leaves part of its output unwritten then fails the comparison, and cannot borrow the output of a run before.
    """
    if arrays == "torch":
        import torch

        before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0])
            torch.utils.deterministic.fill_uninitialized_memory = before[1]  # type: ignore[attr-defined]
    elif arrays == "cupy":
        import cupy

        pool = cupy.get_default_memory_pool()

        def allocate(size: int) -> Any:
            memory = pool.malloc(size)
            memory.mem and cupy.cuda.runtime.memset(memory.ptr, 0xFF, size)
            return memory

        with cupy.cuda.using_allocator(allocate):
            yield
    else:
        yield  # NumPy has no hook for its allocations
