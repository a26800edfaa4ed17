"""How anything is timed: CUDA events or a monotonic clock around one call, cold caches, warm-up and first call apart.

The protocol, whose version is part of a point's identity: the first call (compilation, allocation, loading) is timed by
itself; warm-up calls follow; then samples, each of one call with the last-level cache flushed before it. Nothing is
subtracted. On a GPU the interval is device time between two events on the current stream, and the device is kept flushing until the
host has asked for the whole call, so that a slow host is no part of it; on a CPU it is wall time.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from kernels.device import Device

PROTOCOL = 2
WARMUP = 3
INCLUDES = {
    "gpu": "device time of one call between CUDA events, asked for as a whole before it begins, outputs allocated inside, "
    "L2 flushed before; no transfers, no compilation",
    "cpu": "wall time of one call, outputs allocated inside, caches flushed before; no compilation",
}
_FLUSH_BYTES_GPU = 256 << 20  # several times the largest L2 at hand (H200: 60 MB)
_TRIES = 4
_HELD_MS = 3.0  # a call that the host needs longer for waits for the device itself, or is long enough for that not to matter
_LAST_LEVEL = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")

Call = Callable[[], Any]


def _last_level_bytes() -> int:
    """The size of the CPU's last-level cache; 64 MiB where the system does not say."""
    try:
        return int(_LAST_LEVEL.read_text().strip().removesuffix("K")) << 10
    except (OSError, ValueError):
        return 64 << 20


class CpuClock:
    """Times one call by the monotonic clock, after a pass over a buffer twice as large as the last-level cache."""

    def __init__(self) -> None:
        import numpy as np

        self._buffer = np.zeros(2 * _last_level_bytes() // 8)

    def flush(self) -> None:
        self._buffer += 1.0

    def time_ms(self, call: Call, flush: bool = True) -> float:
        if flush:
            self.flush()
        start = time.perf_counter_ns()
        call()
        return (time.perf_counter_ns() - start) / 1e6


class CudaClock:
    """Times one call by CUDA events on torch's current stream, which is CuPy's default stream as well."""

    def __init__(self) -> None:
        import torch

        self._torch = torch
        self._buffer = torch.zeros(_FLUSH_BYTES_GPU // 4, dtype=torch.int32, device="cuda")
        self._passes: WeakKeyDictionary[Call, int] = WeakKeyDictionary()
        """How many flushes each call needs before it, so that the device begins with it only after the host has asked for all of it."""
        self._flush_ms = min(self.time_ms(self.flush, flush=False) for _ in range(5))

    def flush(self) -> None:
        self._buffer.add_(1)

    def time_ms(self, call: Call, flush: bool = True) -> float:
        """Milliseconds of `call` on the device. It is made again where the device was faster than the host and had to wait in it."""
        if not flush:
            return self._once(call, 0)[0]
        for _ in range(_TRIES):
            passes = self._passes.get(call, 1)
            took, waited, host_ms = self._once(call, passes)
            if not waited or host_ms > _HELD_MS:
                break
            self._passes[call] = max(passes, math.ceil(1.5 * host_ms / self._flush_ms))
        return took

    def _once(self, call: Call, passes: int) -> tuple[float, bool, float]:
        """A call after so many flushes: its time, whether the device began before the host had asked for all, and the host's time."""
        for _ in range(passes):
            self.flush()
        start, end = (self._torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        began = time.perf_counter()
        call()
        host_ms = (time.perf_counter() - began) * 1e3
        end.record()
        waited = start.query()
        end.synchronize()
        return start.elapsed_time(end), waited, host_ms


def clock(device: Device) -> CpuClock | CudaClock:
    return CudaClock() if device.kind == "gpu" else CpuClock()


@dataclass
class Timed:
    """The samples of one call in milliseconds, and its first call's wall time (compilation included)."""

    samples_ms: list[float] = field(default_factory=list)
    first_call_ms: float = 0.0


def first_call_ms(call: Call, device: Device) -> float:
    """Wall time in milliseconds of a first call to its completion on the device."""
    start = time.perf_counter_ns()
    call()
    if device.kind == "gpu":
        import torch

        torch.cuda.synchronize()
    return (time.perf_counter_ns() - start) / 1e6


def answers(device: Device) -> bool:
    """Whether the device still works in this process: after an illegal access a GPU refuses whatever else is asked of it."""
    if device.kind == "cpu":
        return True
    import torch

    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


def measure(calls: Sequence[Call], device: Device, on: CpuClock | CudaClock, samples: int, seed: int) -> list[Timed]:
    """Time several calls against each other: rounds of one sample each, in an order drawn anew for every round.

    Interleaving lets a drift of clocks or temperature fall on all of them alike.
    """
    results = [Timed() for _ in calls]
    for call, timed in zip(calls, results, strict=True):
        timed.first_call_ms = first_call_ms(call, device)
        for _ in range(WARMUP):
            on.time_ms(call)
    rng = random.Random(seed)
    order = list(range(len(calls)))
    for _ in range(samples):
        rng.shuffle(order)
        for index in order:
            results[index].samples_ms.append(on.time_ms(calls[index]))
    return results
