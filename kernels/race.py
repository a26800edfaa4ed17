"""Racing: the configurations of a problem are measured against each other in rounds, and sure losers leave early.

A round takes one sample of each, in an order drawn anew, so that a drift of clocks falls on all alike. After LEAST rounds a
configuration leaves when its interval lies above the leader's whole (the one with the least median): 95 % intervals of the median
by order statistics, which for fewer than six samples are all of them. Before, after each warm-up call, one leaves whose least time so far
is more than HOPELESS times the fastest's.
"""

from __future__ import annotations

import itertools
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from analysis.statistics import order_interval
from kernels import timing
from kernels.device import Device
from kernels.timing import Call, CpuClock, CudaClock, Timed

LEAST = 3
HOPELESS = (2.0, 1.4, 1.2)
"""By how many warm-up calls were made; no winner of an exhaustive sweep was ever that slow in its first calls (docs/log.md)."""


@dataclass(eq=False)
class Runner:
    """A configuration in a race, by its `call`. One that `stays` is measured to the end whatever its times are.

    Then: its times, all wall time that it took in seconds, and what it died of; or `lost_to` and how many times as long it took.
    """

    call: Call
    stays: bool = False
    timed: Timed = field(default_factory=Timed)
    spent_s: float = 0.0
    error: Exception | None = None
    lost_to: Runner | None = None
    factor: float = 1.0


def race(
    runners: Sequence[Runner], device: Device, on: CpuClock | CudaClock, samples: int, seed: int, early: bool = True
) -> Iterator[Runner]:
    """Give each runner `samples` samples, fewer where it is a sure loser (unless not `early`); yields each as soon as it is through."""
    rng, alive = random.Random(seed), list(runners)
    warm: dict[Runner, float] = {}

    def first(runner: Runner) -> None:
        runner.timed.first_call_ms = timing.first_call_ms(runner.call, device)

    def warm_up(runner: Runner) -> None:
        warm[runner] = min(warm.get(runner, float("inf")), on.time_ms(runner.call))

    def sample(runner: Runner) -> None:
        runner.timed.samples_ms.append(on.time_ms(runner.call))

    steps = [first, *itertools.repeat(warm_up, timing.WARMUP), *itertools.repeat(sample, samples)]
    for number, step in enumerate(steps):
        rng.shuffle(alive)
        for runner in alive:
            _step(runner, step)
        if early and 1 <= number <= timing.WARMUP:
            _drop_hopeless(alive, warm, HOPELESS[min(number, len(HOPELESS)) - 1])
        elif early and number >= timing.WARMUP + LEAST and number + 1 < len(steps):
            _drop_losers(alive)
        yield from (runner for runner in alive if _over(runner))
        alive = [runner for runner in alive if not _over(runner)]
    yield from alive


def _over(runner: Runner) -> bool:
    return runner.error is not None or runner.lost_to is not None


def _step(runner: Runner, step: Callable[[Runner], None]) -> None:
    start = time.perf_counter()
    try:
        step(runner)
    except Exception as error:  # out of memory, a launch that the driver refuses: by many types
        runner.error = error
    runner.spent_s += time.perf_counter() - start


def _drop_hopeless(alive: list[Runner], warm: dict[Runner, float], factor: float) -> None:
    sound = [runner for runner in alive if not _over(runner)]
    fastest = min(sound, key=lambda runner: warm[runner], default=None)
    for runner in sound:
        if fastest and not runner.stays and warm[runner] > factor * warm[fastest]:
            runner.lost_to, runner.factor = fastest, warm[runner] / warm[fastest]
            runner.timed.samples_ms.append(warm[runner])


def _drop_losers(alive: list[Runner]) -> None:
    medians = {runner: statistics.median(runner.timed.samples_ms) for runner in alive if not _over(runner)}
    leader = min(medians, key=lambda runner: medians[runner], default=None)
    for runner in medians:
        if leader and not runner.stays and order_interval(runner.timed.samples_ms)[0] > order_interval(leader.timed.samples_ms)[1]:
            runner.lost_to, runner.factor = leader, medians[runner] / medians[leader]
