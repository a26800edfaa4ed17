"""The measuring protocol: what is called, in which order, and what is kept."""

from __future__ import annotations

from collections import Counter

import pytest

from kernels import timing
from kernels.device import Device
from kernels.timing import WARMUP, CpuClock, first_call_ms, measure

CPU = Device("cpu", "a CPU")


class Recorder:
    """Stands in for a clock; its n-th timed call takes n ms."""

    def __init__(self) -> None:
        self.calls = 0

    def time_ms(self, call: timing.Call, flush: bool = True) -> float:
        call()
        self.calls += 1
        return float(self.calls)


def recorded(names: str, samples: int, seed: int = 1) -> tuple[list[str], list[timing.Timed]]:
    """The order in which calls of these names were made, and what `measure` gave."""
    order: list[str] = []
    calls = [lambda name=name: order.append(name) for name in names]
    return order, measure(calls, CPU, Recorder(), samples, seed)  # type: ignore[arg-type]


@pytest.mark.parametrize("samples", [1, 5, 30])
@pytest.mark.parametrize("names", ["a", "abc"], ids=["one", "three"])
def test_each_call_has_a_first_one_the_warm_up_and_its_samples(names: str, samples: int):
    order, timed = recorded(names, samples)
    assert Counter(order) == dict.fromkeys(names, 1 + WARMUP + samples)
    assert [len(each.samples_ms) for each in timed] == [samples] * len(names)


def test_first_calls_and_warm_up_come_before_all_samples():
    order, _ = recorded("abc", 4)
    warm = 1 + WARMUP
    assert order[: 3 * warm] == ["a"] * warm + ["b"] * warm + ["c"] * warm


def test_samples_are_taken_in_rounds_of_one_each():
    order, _ = recorded("abcd", 20)
    rounds = order[4 * (1 + WARMUP) :]
    assert [sorted(rounds[start : start + 4]) for start in range(0, 80, 4)] == [list("abcd")] * 20


def test_the_order_of_a_round_is_drawn_anew_and_follows_from_the_seed():
    rounds = recorded("abcd", 20)[0][4 * (1 + WARMUP) :]
    assert len({tuple(rounds[start : start + 4]) for start in range(0, 80, 4)}) > 5
    assert recorded("abcd", 20)[0] == recorded("abcd", 20)[0]
    assert recorded("abcd", 20, seed=2)[0] != recorded("abcd", 20)[0]


def test_a_sample_belongs_to_the_call_that_took_it():
    order, timed = recorded("abc", 6)
    timed_calls = order.copy()
    for name in "abc":
        timed_calls.remove(name)  # its first call, which the clock does not see
    expected = {name: [n for n, each in enumerate(timed_calls, 1) if each == name][WARMUP:] for name in "abc"}
    assert {name: each.samples_ms for name, each in zip("abc", timed, strict=True)} == expected


def test_nothing_to_measure_gives_nothing():
    assert measure([], CPU, Recorder(), 5, 1) == []


def test_the_cache_is_flushed_before_a_sample_and_not_inside_it(monkeypatch: pytest.MonkeyPatch):
    order: list[str] = []
    monkeypatch.setattr(timing, "_last_level_bytes", lambda: 1024)
    clock = CpuClock()
    monkeypatch.setattr(clock, "flush", lambda: order.append("flush"))

    def now() -> int:
        order.append("clock")
        return len(order)

    monkeypatch.setattr(timing.time, "perf_counter_ns", now)
    clock.time_ms(lambda: order.append("call"))
    assert order == ["flush", "clock", "call", "clock"]
    order.clear()
    clock.time_ms(lambda: order.append("call"), flush=False)
    assert order == ["clock", "call", "clock"]


def test_the_flush_passes_over_twice_the_last_level_cache(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(timing, "_last_level_bytes", lambda: 1 << 20)
    clock = CpuClock()
    clock.flush()
    assert clock._buffer.nbytes == 2 << 20
    assert (clock._buffer == 1).all()


def test_an_error_of_a_call_is_not_swallowed():
    def broken() -> None:
        raise ArithmeticError("broken")

    with pytest.raises(ArithmeticError):
        first_call_ms(broken, CPU)


def test_a_cpu_always_answers():
    assert timing.answers(CPU)
