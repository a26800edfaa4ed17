"""The measuring protocol: what is called, in which order, and what is kept."""

from __future__ import annotations

import sys
from collections import Counter
from types import SimpleNamespace

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


class Machine:
    """A host and a device with a clock each, in milliseconds; the device does what it was asked for in order, and not before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.host = self.device = 0.0
        self.flushes = 0
        machine = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                self.at = 0.0

            def record(self) -> None:
                self.at = max(machine.host, machine.device)

            def query(self) -> bool:
                return machine.host >= self.at

            def synchronize(self) -> None:
                machine.host = max(machine.host, self.at)

            def elapsed_time(self, end: Event) -> float:
                return end.at - self.at

        def add_(_: int) -> None:
            self.flushes += 1
            self.launch(0.005, 0.2)

        buffer = SimpleNamespace(add_=add_)
        fake = SimpleNamespace(cuda=SimpleNamespace(Event=Event), zeros=lambda *_, **__: buffer, int32=None)
        monkeypatch.setitem(sys.modules, "torch", fake)
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.host / 1e3)
        self.clock = timing.CudaClock()
        self.flushes = 0

    def launch(self, asking: float, running: float) -> None:
        self.host += asking
        self.device = max(self.device, self.host) + running

    def wait(self) -> None:
        self.host = max(self.host, self.device)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


@pytest.mark.parametrize("asking", [0.005, 0.05, 0.2], ids=lambda asking: f"{asking}ms-a-launch")
def test_a_slow_host_is_no_part_of_a_sample(machine: Machine, asking: float):
    def call() -> None:
        for _ in range(5):
            machine.launch(asking, 0.02)

    assert [machine.clock.time_ms(call) for _ in range(3)] == pytest.approx([0.1] * 3)


def test_how_long_a_call_must_be_held_back_is_learned_once(machine: Machine):
    def call() -> None:
        for _ in range(5):
            machine.launch(0.2, 0.02)

    machine.clock.time_ms(call)
    before = machine.flushes
    machine.clock.time_ms(call)
    assert machine.flushes - before == 8  # 1.5 × 1 ms in flushes of 0.2 ms


def test_a_call_that_the_host_is_quick_with_is_made_once(machine: Machine):
    calls = []

    def call() -> None:
        calls.append(machine.launch(0.01, 5.0))

    assert machine.clock.time_ms(call) == pytest.approx(5.0)
    assert (len(calls), machine.flushes) == (1, 1)


def test_a_call_that_waits_for_the_device_itself_ends(machine: Machine):
    calls = []

    def call() -> None:
        calls.append(machine.launch(0.01, 0.3))
        machine.wait()

    assert machine.clock.time_ms(call) > 0.29
    assert len(calls) <= 4


def test_an_error_of_a_call_is_not_swallowed():
    def broken() -> None:
        raise ArithmeticError("broken")

    with pytest.raises(ArithmeticError):
        first_call_ms(broken, CPU)


def test_a_cpu_always_answers():
    assert timing.answers(CPU)
