"""The hardware's ceilings, measured in the job that uses them, and the limit they set for a problem."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from kernels.contract import Cost
from kernels.device import Device
from kernels.timing import CpuClock, CudaClock

_REPEATS = 10
_READS = 50
"""Of reading, which takes a millisecond, more: in a job's first milliseconds the best of ten was 18 % short once (docs/log.md)."""


def ceilings(device: Device, on: CpuClock | CudaClock) -> dict[str, Any]:
    """Memory bandwidth (GB/s, of reading a large array once) and arithmetic rates (TFLOP/s, of a large matrix product).

    Rates: fp32 everywhere; on a GPU also tf32, fp16 and bf16. Random operands, the best of several:
    a ceiling is what the hardware can do.
    """
    import torch

    place = "cuda" if device.kind == "gpu" else "cpu"
    elements, size = (1 << 29, 8192) if device.kind == "gpu" else (1 << 25, 1024)
    if device.kind == "gpu":  # leave room on small cards
        elements = min(elements, torch.cuda.mem_get_info()[0] // 16)
    array = torch.randn(elements, device=place)
    cached = device.kind == "cpu"  # a server's last-level cache holds the whole array
    read = min(on.time_ms(array.sum, flush=cached) for _ in range(_READS if device.kind == "gpu" else _REPEATS))
    del array
    found: dict[str, Any] = {"bandwidth_gbs": elements * 4 / read / 1e6, "tflops": {}}
    precision = torch.backends.cuda.matmul.allow_tf32
    modes = {"fp32": (torch.float32, False)}
    if device.kind == "gpu":
        modes |= {"tf32": (torch.float32, True), "fp16": (torch.float16, False), "bf16": (torch.bfloat16, False)}
    for rate, (dtype, allow_tf32) in modes.items():
        torch.backends.cuda.matmul.allow_tf32 = allow_tf32
        a, b = (torch.randn(size, size, device=place).to(dtype) for _ in range(2))
        a @ b
        time = min(on.time_ms(functools.partial(torch.matmul, a, b), flush=False) for _ in range(_REPEATS))
        found["tflops"][rate] = 2 * size**3 / time / 1e9
    torch.backends.cuda.matmul.allow_tf32 = precision
    return found


def limit(cost: Cost, measured: Mapping[str, Any]) -> tuple[float, str]:
    """The least time in milliseconds that `cost` takes at the measured ceilings, and what sets it: "memory" or "compute".

    A rate that was not measured, such as bf16 on a CPU, sets no limit.
    """
    memory = cost.bytes / measured["bandwidth_gbs"] / 1e6
    ways = [(cost.operations, cost.rate), *cost.otherwise]
    compute = min((count / measured["tflops"][rate] / 1e9 for count, rate in ways if rate in measured["tflops"]), default=0.0)
    return (memory, "memory") if memory >= compute else (compute, "compute")
