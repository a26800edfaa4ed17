"""One row of the benchmark: contenders on the same data, checked first, then timed in turns of random order."""

from __future__ import annotations

import datetime
import functools
import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from kernels.contract import Cost
from kernels.device import Device
from kernels.timing import CpuClock, CudaClock, answers

QUICK_MS, SAMPLES, FEWER, FEWEST_MS, FEWEST = 20.0, 30, 7, 2000.0, 3
"""Samples: 30 of a call under 20 ms, 7 above, 3 of one that takes over two seconds."""
HOST_MS = 0.1
"""A call shorter than this on the device is also timed on the host."""
WARMUP = 2

ISSUE = {"bandwidth": 4420.0, "bf16": 679.0, "fp32": 51.0, "link": 1.0}
"""The ceilings that the targets were stated with: GB/s of memory, TFLOP/s, and GB/s of the host link (targets are per GB/s)."""


@dataclass(frozen=True)
class Target:
    """What is asked of a row, in milliseconds on the machine with the ceilings and peers of ISSUE.

    base:    what `must` and `aim` are judged against: a ceiling's name, whose limit is `base_ms` there, or "peer": then the
             peer called `peer` takes `base_ms` there. In another run both scale: must x base in this run / base_ms.
    """

    base: str
    base_ms: float
    must: float
    aim: float
    peer: str = ""


@dataclass(frozen=True)
class Contender:
    """`call(prepared)` is timed, `check(outputs, prepared)` gives what `kernel_exactness` says of it; `prepare()` comes before, once."""

    name: str
    call: Callable[[Any], Any]
    check: Callable[[Any, Any], dict[str, Any]]
    prepare: Callable[[], Any] = lambda: None
    place: str = "gpu"


@dataclass(frozen=True)
class Row:
    """What is measured on one set of data; `needs` is what makes it right: a key of what `check` gives, and its least value."""

    name: str
    title: str
    contenders: list[Contender] = field(default_factory=list)
    target: Target | None = None
    cost: Cost | None = None
    needs: tuple[str, float] = ("exact", 1.0)
    left_out: str = ""


class DeviceLost(RuntimeError):
    """The GPU refuses all further work in this process, as after an illegal access."""


def measure(row: Row, clocks: Mapping[str, CpuClock | CudaClock], seed: int = 0) -> dict[str, Any]:
    """The record of a row. A contender that fails has its error in it. Raises DeviceLost where nothing more can be measured."""
    record: dict[str, Any] = {
        "row": row.name,
        "title": row.title,
        "target": asdict(row.target) if row.target else None,
        "cost": asdict(row.cost) if row.cost else None,
        "needs": list(row.needs),
        "left_out": row.left_out,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "contenders": [],
    }
    alive = []
    for contender in row.contenders:
        entry: dict[str, Any] = {"name": contender.name, "place": contender.place}
        record["contenders"].append(entry)
        try:
            alive.append((contender, _admit(contender, clocks[contender.place], entry), entry))
        except Exception as error:  # absent, refused, out of memory, a kernel that dies: by many types
            entry["error"] = f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0][:300]}"
            del error
            _forget(contender.place)
    for contender, call, entry in _turns(alive, seed):
        entry["samples_ms"].append(clocks[contender.place].time_ms(call))
    for contender, call, entry in alive:
        if contender.place == "gpu" and statistics.median(entry["samples_ms"]) < HOST_MS:
            entry["host_ms"], entry["waited_ms"] = _host_times(call)
    return record


def _turns(alive: list[Any], seed: int) -> Iterator[Any]:
    """Whose sample is next: in random order, but one place after the other, for a GPU that waits for a CPU's turn goes cold."""
    for place in dict.fromkeys(one[0].place for one in alive):
        turns = [one for one in alive if one[0].place == place for _ in range(_samples(one[2]["warm_ms"]))]
        random.Random(seed).shuffle(turns)
        yield from turns


def _admit(contender: Contender, clock: CpuClock | CudaClock, entry: dict[str, Any]) -> Callable[[], Any]:
    """Prepare, call once, check, and warm up; the call on what was prepared."""
    start = time.perf_counter()
    prepared = contender.prepare()
    wait(contender.place)
    entry["prepare_ms"] = (time.perf_counter() - start) * 1e3
    start = time.perf_counter()
    call = functools.partial(contender.call, prepared)
    outputs = call()
    wait(contender.place)
    entry["first_call_ms"] = (time.perf_counter() - start) * 1e3
    entry.update(contender.check(outputs, prepared))
    del outputs
    warm = 0 if entry["first_call_ms"] > FEWEST_MS and contender.place == "cpu" else WARMUP
    entry["warm_ms"] = min([clock.time_ms(call) for _ in range(warm)], default=entry["first_call_ms"])
    entry["samples_ms"] = []
    return call


def _samples(estimate_ms: float) -> int:
    if estimate_ms < QUICK_MS:
        return SAMPLES
    return FEWER if estimate_ms < FEWEST_MS else FEWEST


def _host_times(call: Callable[[], Any]) -> tuple[list[float], list[float]]:
    """Milliseconds on the host of the call alone, and of the call and waiting for the device."""
    calls, waited = [], []
    for _ in range(SAMPLES):
        wait("gpu")
        start = time.perf_counter()
        outputs = call()
        called = time.perf_counter()
        wait("gpu")
        waited.append((time.perf_counter() - start) * 1e3)
        calls.append((called - start) * 1e3)
        del outputs
    return calls, waited


def wait(place: str) -> None:
    if place == "gpu":
        import torch

        torch.cuda.synchronize()


def _forget(place: str) -> None:
    """Free what a failed contender left behind. Raises DeviceLost where the device no longer answers."""
    gc.collect()
    if place == "gpu":
        import torch

        if not answers(Device("gpu", "")):
            raise DeviceLost("the GPU no longer answers in this process")
        torch.cuda.empty_cache()
