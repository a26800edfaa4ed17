"""Racing, on a clock that is played: who leaves when, and what that saves against measuring all to the end."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.device import Device
from kernels.race import LEAST, Runner, race
from kernels.timing import Call, CpuClock

SAMPLES, WARMUP = 30, 3


class Played(CpuClock):
    """A clock on which a call takes the milliseconds that it returns."""

    def __init__(self) -> None:
        self.spent_ms = 0.0

    def time_ms(self, call: Call, flush: bool = True) -> float:
        took = call()
        self.spent_ms += took
        return took


def run(calls: list[Callable[[], float]], stays: int = 1, early: bool = True, seed: int = 0) -> tuple[list[Runner], Played]:
    """The runners in the order of the calls, of which the first `stays` stay."""
    clock = Played()
    runners = [Runner(call, number < stays) for number, call in enumerate(calls)]
    through = list(race(runners, Device("cpu", "a CPU"), clock, SAMPLES, seed, early))
    assert sorted(map(id, through)) == sorted(map(id, runners))  # each once
    return runners, clock


def steady(ms: float) -> Callable[[], float]:
    return lambda: ms


def noisy(ms: float, noise: float, rng: random.Random) -> Callable[[], float]:
    """Times around `ms`; two in a hundred are half as long again, as where something else ran."""
    return lambda: ms * rng.lognormvariate(0, noise) * (1.5 if rng.random() < 0.02 else 1.0)


def test_sure_losers_leave_after_a_few_rounds_and_hopeless_ones_before():
    runners, clock = run([steady(2.0), steady(1.0), steady(1.0), steady(1.1), steady(1.3), steady(9.0)])
    assert [len(runner.timed.samples_ms) for runner in runners] == [SAMPLES, SAMPLES, SAMPLES, LEAST, 1, 1]
    assert [runner.lost_to is not None for runner in runners] == [False, False, False, True, True, True]
    assert [runner.factor for runner in runners[3:]] == [1.1, 1.3, 9.0]
    assert runners[3].lost_to in runners[1:3]
    calls = clock.spent_ms - (WARMUP + SAMPLES) * 4.0 - (WARMUP + LEAST) * 1.1
    assert calls == pytest.approx(9.0 + WARMUP * 1.3)  # a warm-up call of the one, all of the other


def test_one_slow_call_of_the_warm_up_drives_nobody_out():
    times = iter([1.0, 1.9, *[1.0] * (WARMUP + SAMPLES)])
    runners, _ = run([lambda: next(times), steady(1.0)], stays=0)
    assert not any(runner.lost_to for runner in runners)


def test_without_racing_all_are_measured_to_the_end():
    runners, _ = run([steady(1.0), steady(9.0)], stays=0, early=False)
    assert [len(runner.timed.samples_ms) for runner in runners] == [SAMPLES] * 2
    assert not any(runner.lost_to for runner in runners)


def test_whoever_stays_is_measured_to_the_end_however_slow():
    runners, _ = run([steady(50.0), steady(50.0), steady(1.0)], stays=2)
    assert [len(runner.timed.samples_ms) for runner in runners] == [SAMPLES] * 3


@pytest.mark.parametrize("call", [0, 1, WARMUP + 1, WARMUP + 9], ids=["first", "warm-up", "first sample", "ninth sample"])
def test_one_that_fails_ends_alone(call: int):
    times = iter([1.0] * call)

    def failing() -> float:
        for ms in times:
            return ms
        raise MemoryError("no room")

    runners, _ = run([failing, steady(1.0), steady(1.0)], stays=3)
    assert isinstance(runners[0].error, MemoryError)
    assert [len(runner.timed.samples_ms) for runner in runners[1:]] == [SAMPLES] * 2


def test_a_hiccup_of_the_leader_drives_nobody_out_who_is_as_fast():
    times = iter([1.0] * (1 + WARMUP + 2) + [7.0] + [1.0] * SAMPLES)
    runners, _ = run([lambda: next(times), steady(1.0)], stays=0)
    assert not any(runner.lost_to for runner in runners)


@settings(max_examples=30, deadline=None)
@given(spread=st.floats(0.05, 1.5), noise=st.floats(0.001, 0.03), seed=st.integers(0, 10**6))
def test_the_winner_is_within_two_percent_of_the_best(spread: float, noise: float, seed: int):
    rng = random.Random(seed)
    true = [rng.lognormvariate(0, spread) for _ in range(60)]
    runners, _ = run([noisy(ms, noise, rng) for ms in true], seed=seed)
    medians = [statistics.median(runner.timed.samples_ms) if not runner.lost_to else float("inf") for runner in runners]
    assert true[medians.index(min(medians))] <= 1.02 * min(true)


@pytest.mark.parametrize("spread", [0.3, 0.5, 1.0])
def test_a_race_takes_less_than_a_quarter_of_the_time(spread: float):
    """Of times as block sweeps have them: the slowest of 60 takes several times as long as the fastest."""
    rng = random.Random(1)
    calls = [noisy(rng.lognormvariate(0, spread), 0.01, rng) for _ in range(60)]
    (_, raced), (_, whole) = run(calls), run(calls, early=False)
    assert raced.spent_ms < whole.spent_ms / 4
