"""A thread's end is noticed however it comes, and a batcher whose thread ends or whose loop breaks answers everybody once and goes on."""

from __future__ import annotations

import asyncio
import ctypes
import threading
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.batcher import Batcher, Lost, Rejected
from rag.worker import Crashed, Worker

DEADLY = 7
POISON = 5


class Poisoned(Exception):
    pass


def test_calls_give_their_results_and_their_exceptions():
    async def scenario() -> list[object]:
        worker = Worker("w")
        with pytest.raises(ZeroDivisionError):
            await worker.call(lambda given: 1 // given, 0)
        with pytest.raises(RuntimeError, match="StopIteration"):
            await worker.call(next, iter([]))
        done = await worker.call(lambda given: (given, threading.current_thread().name), 3)
        await worker.join()
        return [done]

    assert asyncio.run(scenario()) == [(3, "w")]


def test_a_thread_that_dies_between_calls_is_noticed():
    """As no thread pool does: the exception is raised in the thread while it waits for the next call."""

    async def scenario() -> None:
        worker = Worker("w")
        await worker.call(lambda given: given, 1)
        identity = ctypes.c_ulong(worker._thread.ident or 0)
        assert ctypes.pythonapi.PyThreadState_SetAsyncExc(identity, ctypes.py_object(SystemExit)) == 1
        with pytest.raises(Crashed, match="SystemExit"):
            await asyncio.wait_for(worker.call(lambda given: given, 2), 10)  # wakes the thread, which then dies
        with pytest.raises(Crashed, match="SystemExit"):
            worker.call(lambda given: given, 3)

    asyncio.run(scenario())


@settings(max_examples=60, deadline=None)
@given(
    requests=st.lists(st.integers(0, 9), min_size=1, max_size=40),
    max_batch=st.integers(1, 6),
    pauses=st.sets(st.integers(0, 39)),
)
def test_every_request_is_answered_exactly_once_however_often_the_stage_breaks(requests, max_batch, pauses):
    """Requests of kind DEADLY end the thread, those of kind POISON raise; every other one gets its own answer, or that the stage broke."""
    runs: Counter[int] = Counter()
    settled: Counter[int] = Counter()

    def work(batch: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        runs.update(number for number, _ in batch)
        kinds = {kind for _, kind in batch}
        if DEADLY in kinds:
            raise SystemExit
        if POISON in kinds:
            raise Poisoned
        return list(batch)

    async def outcome(batcher: Batcher, request: tuple[int, int]) -> object:
        try:
            return (await batcher.submit(request)).result
        except (Poisoned, Crashed) as error:
            return error
        finally:
            settled[request[0]] += 1

    async def scenario() -> tuple[int, list[object]]:
        async with Batcher(work, max_batch, 40) as batcher:
            tasks = []
            for number, kind in enumerate(requests):
                tasks.append(asyncio.create_task(outcome(batcher, (number, kind))))
                if number in pauses:
                    await asyncio.sleep(0)
            outcomes = await asyncio.wait_for(asyncio.gather(*tasks), 10)
            return batcher.restarts, outcomes

    restarts, outcomes = asyncio.run(scenario())
    for number, (kind, got) in enumerate(zip(requests, outcomes, strict=True)):
        if kind == DEADLY:
            assert isinstance(got, Crashed) and runs[number] == 1
        elif kind == POISON:
            assert isinstance(got, Poisoned | Crashed)
        else:
            assert got == (number, kind) or isinstance(got, Crashed)
    assert set(settled.values()) == {1}
    crashed = any(isinstance(got, Crashed) for got in outcomes)
    assert (restarts > 0) == crashed == (DEADLY in requests)


def test_a_batcher_whose_own_loop_breaks_fails_what_waits_and_goes_on():
    async def scenario() -> tuple[object, int]:
        broken = True

        class Breaking(Batcher[int, int]):
            async def _hold(self) -> None:
                if broken:
                    raise OSError("no more threads")

        async with Breaking(list, 4, 8) as batcher:
            with pytest.raises(Crashed, match="no more threads"):
                await asyncio.wait_for(batcher.submit(1), 10)
            broken = False
            return (await asyncio.wait_for(batcher.submit(2), 10)).result, batcher.restarts

    assert asyncio.run(scenario()) == (2, 1)


def test_a_lost_device_fails_its_batch_without_another_try():
    tried: list[list[int]] = []

    def work(batch: Sequence[int]) -> list[int]:
        tried.append(list(batch))
        raise Lost("gone")

    async def scenario() -> list[object]:
        async with Batcher(work, 4, 8) as batcher:
            seen: list[object] = []
            batcher.watchers.append(lambda ran: seen.append(ran.error))
            got = await asyncio.gather(*(batcher.submit(number) for number in range(3)), return_exceptions=True)
            return [*got, *seen]

    outcomes = asyncio.run(scenario())
    assert all(isinstance(one, Lost) for one in outcomes) and len(outcomes) == 4
    assert tried == [[0, 1, 2]]


def test_an_end_in_the_middle_of_a_crash_answers_too():
    entered, gate = threading.Event(), threading.Event()

    def work(batch: Sequence[int]) -> list[int]:
        entered.set()
        gate.wait(10)
        raise SystemExit

    async def scenario() -> object:
        async with Batcher(work, 1, 8) as batcher:
            asked = asyncio.create_task(batcher.submit(1))
            await asyncio.to_thread(entered.wait, 10)
            asyncio.get_running_loop().call_soon(gate.set)
        return (await asyncio.gather(asked, return_exceptions=True))[0]

    assert isinstance(asyncio.run(scenario()), Rejected | Crashed)
