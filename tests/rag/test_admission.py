"""Overload does not eat the service: a request whose answer would come too late is refused, by a pace that is known and recovers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag import batcher
from rag.batched import BatchedEngine
from rag.batcher import Batcher, Expired, Pace, Rejected
from rag.pipeline import Ask
from tests.rag.fakes import Host

SLO_S, LIMIT_S, DEADLINE_S, SECONDS = 1.0, 0.8, 5.0, 20.0


class PlayedLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to whatever is due next instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        select = self._selector.select  # type: ignore[attr-defined]

        def jump(timeout: float | None = None) -> Any:
            self.now += timeout or 0.0
            return select(0)

        self._selector.select = jump  # type: ignore[attr-defined]

    def time(self) -> float:
        return self.now


def played(scenario: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=PlayedLoop) as runner:
        return runner.run(scenario)


class PlayedWorker:
    """Stands in for `rag.worker.Worker`: what it is given takes as long as `work.seconds` says, on the loop's clock."""

    def __init__(self, name: str) -> None:
        pass

    def call(self, work: Any, given: Sequence[Any]) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        loop.call_later(work.seconds(len(given)), lambda: future.done() or future.set_result(list(given)))
        return future

    async def join(self) -> None:
        pass


@dataclass
class Takes:
    """Work that takes `fixed` seconds a batch and `each` a request."""

    fixed: float
    each: float

    def seconds(self, number: int) -> float:
        return self.fixed + self.each * number


@pytest.fixture(autouse=True, scope="module")
def _no_threads() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batcher, "Worker", PlayedWorker)
        yield


def engine_of(stages: Sequence[Batcher[Any, Any]], limit_s: float) -> BatchedEngine:
    return BatchedEngine(stages, stages[0], 4096, DEADLINE_S, {}, Host(), limit_s)


async def goodput(works: Sequence[Takes], most: int, rate: float, limit_s: float) -> float:
    """Answers a second within the objective, of Poisson arrivals at `rate`."""
    gaps = np.random.default_rng(1).exponential(1 / rate, round(rate * SECONDS))
    loop, good = asyncio.get_running_loop(), 0

    async def one(engine: BatchedEngine) -> None:
        nonlocal good
        due = loop.time()
        try:
            await engine.ask(Ask("x", 1))
        except (Rejected, Expired):
            return
        good += loop.time() - due <= SLO_S

    async with contextlib.AsyncExitStack() as stack:
        stages = [await stack.enter_async_context(Batcher(work, most, 4096)) for work in works]
        engine = engine_of(stages, limit_s)
        async with asyncio.TaskGroup() as group:
            for gap in gaps:
                await asyncio.sleep(gap)
                group.create_task(one(engine))
    return good / SECONDS


SHAPES: dict[str, tuple[list[Takes], int]] = {
    "a stage": ([Takes(0.2, 0.006)], 64),
    "a short stage and a long one": ([Takes(0.01, 0.0005), Takes(0.2, 0.006)], 64),
    "full batches": ([Takes(0.01, 0.0005), Takes(0.3, 0.0)], 16),
    "one at a time": ([Takes(0.02, 0.0)], 1),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_goodput_holds_under_overload_and_would_not_without_the_limit(shape: str):
    works, most = SHAPES[shape]
    rates = [30.0, 45.0, 60.0, 80.0, 90.0, 100.0]
    reached = {rate: played(goodput(works, most, rate, 0.0)) for rate in rates}
    peak, capacity = max(reached.values()), max(rate for rate in rates if reached[rate] >= 0.95 * rate)
    for times in (2, 4):
        assert played(goodput(works, most, times * capacity, LIMIT_S)) >= 0.9 * peak
        assert played(goodput(works, most, times * capacity, 0.0)) < 0.2 * peak


def test_nobody_is_refused_while_the_answers_come_in_time():
    works, most = SHAPES["a short stage and a long one"]
    assert played(goodput(works, most, 50.0, LIMIT_S)) == 50.0


def test_the_expected_time_is_what_is_left_and_the_batches_ahead_and_its_own():
    async def scenario() -> list[float]:
        loop, seen = asyncio.get_running_loop(), list[float]()
        async with Batcher(Takes(1.0, 0.0), 2, 9) as stage:
            seen.append(stage.expected(5, 0.0))  # nothing is known
            await stage.submit("first")
            seen.append(stage.expected(5, 0.0))  # two batches of two ahead, and its own
            running = asyncio.create_task(stage.submit("second"))
            await asyncio.sleep(0.25)
            seen += [stage.expected(0, 0.0), stage.expected(0, 4.0)]  # three quarters are left; or are long over
            await running
            assert loop.time() == pytest.approx(2.0)
        return seen

    assert played(scenario()) == pytest.approx([0.0, 3.0, 1.75, 5.0])


def test_a_refusal_says_why_and_one_that_finds_nobody_is_let_in_however_slow_the_last_was():
    async def scenario() -> None:
        work = Takes(9.0, 0.0)
        async with Batcher(work, 1, 9) as stage:
            engine = BatchedEngine([stage], stage, 9, 60.0, {}, Host(), LIMIT_S)
            await engine.ask(Ask("slow", 1))
            work.fixed = 0.1
            let_in = asyncio.create_task(engine.ask(Ask("alone", 1)))
            await asyncio.sleep(0)
            with pytest.raises(Rejected, match=r"expected in 18\.00 s, and 0\.8 s is the limit"):
                await engine.ask(Ask("beside it", 1))
            await let_in

    played(scenario())


@given(batches=st.lists(st.tuples(st.integers(1, 600), st.floats(0.001, 10)), min_size=1), size=st.integers(1, 600))
def test_the_pace_stays_within_the_durations_there_were(batches: list[tuple[int, float]], size: int):
    pace = Pace()
    for number, seconds in batches:
        pace.took(number, seconds)
    times = [seconds for _, seconds in batches]
    assert min(times) * 0.999 <= pace.seconds(size) <= max(times) * 1.001
    pace.took(size, 3.0)
    pace.took(size, 3.0)
    assert abs(pace.seconds(size) - 3.0) <= max(abs(one - 3.0) for one in times)
