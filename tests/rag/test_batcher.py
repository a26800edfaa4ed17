"""No request is lost, each gets its own answer once, poison stays alone, queues are bounded, deadlines hold."""

import asyncio
import collections
import threading
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.batcher import Batcher, Ended, Expired, Rejected


class Poisoned(Exception):
    pass


class Worker:
    """Work that squares numbers, raises Poisoned where one is negative, and waits for its gate; it keeps what it was given."""

    def __init__(self, open_gate: bool = True) -> None:
        self.gate, self.entered, self.batches = threading.Event(), threading.Event(), list[list[int]]()
        if open_gate:
            self.gate.set()

    def __call__(self, requests: Sequence[int]) -> list[int]:
        self.batches.append(list(requests))
        self.entered.set()
        assert self.gate.wait(10)
        if any(request < 0 for request in requests):
            raise Poisoned(min(requests))
        return [request**2 for request in requests]


async def outcome(batcher: Batcher, request: int, seconds: float | None = None) -> object:
    try:
        return (await batcher.submit(request, seconds)).result
    except (Poisoned, Rejected, Expired) as error:
        return error


async def blocked(worker: Worker, batcher: Batcher) -> asyncio.Task:
    """Keep the worker busy with the request 0 until its gate opens."""
    first = asyncio.create_task(outcome(batcher, 0))
    await asyncio.to_thread(worker.entered.wait, 10)
    return first


@settings(max_examples=60, deadline=None)
@given(
    requests=st.lists(st.integers(1, 1000), min_size=1, max_size=40, unique=True),
    poison=st.sets(st.integers(0, 39)),
    max_batch=st.integers(1, 9),
    capacity=st.integers(1, 40),
    pauses=st.sets(st.integers(0, 39)),
)
def test_every_request_is_answered_once_with_its_own_answer(requests, poison, max_batch, capacity, pauses):
    requests = [-request if number in poison else request for number, request in enumerate(requests)]

    async def scenario():
        worker = Worker()
        async with Batcher(worker, max_batch, capacity) as batcher:
            tasks = []
            for number, request in enumerate(requests):
                tasks.append(asyncio.create_task(outcome(batcher, request)))
                if number in pauses:
                    await asyncio.sleep(0)
                assert batcher.waiting <= capacity
            return worker, await asyncio.wait_for(asyncio.gather(*tasks), 10)

    worker, answers = asyncio.run(scenario())
    for request, answer in zip(requests, answers, strict=True):
        runs = [batch for batch in worker.batches if request in batch]
        if isinstance(answer, Rejected):
            assert not runs
        elif request < 0:
            assert isinstance(answer, Poisoned) and answer.args == (request,) and runs[-1] == [request]
        else:
            assert answer == request**2
    assert all(len(batch) <= max_batch for batch in worker.batches)


def test_what_waits_goes_together_and_nothing_waits_for_company():
    async def scenario():
        worker = Worker(open_gate=False)
        async with Batcher(worker, max_batch=4, capacity=10) as batcher:
            first = await blocked(worker, batcher)
            tasks = [asyncio.create_task(batcher.submit(number)) for number in range(1, 7)]
            await asyncio.sleep(0)
            assert (batcher.running, batcher.waiting) == (1, 6)
            worker.gate.set()
            done = await asyncio.gather(first, *tasks)
        return worker.batches, done[1:]

    batches, done = asyncio.run(scenario())
    assert batches == [[0], [1, 2, 3, 4], [5, 6]]
    assert [one.batch for one in done] == [4, 4, 4, 4, 2, 2]
    assert all(one.queue_ms >= 0 for one in done)


def test_a_full_queue_rejects_and_takes_again_later():
    async def scenario():
        worker = Worker(open_gate=False)
        async with Batcher(worker, max_batch=1, capacity=2) as batcher:
            first = await blocked(worker, batcher)
            waiting = [asyncio.create_task(outcome(batcher, number)) for number in (1, 2)]
            await asyncio.sleep(0)
            with pytest.raises(Rejected, match="2 requests wait"):
                await batcher.submit(3)
            worker.gate.set()
            await asyncio.gather(first, *waiting)
            return await outcome(batcher, 4)

    assert asyncio.run(scenario()) == 16


def test_an_expired_or_abandoned_request_never_reaches_the_work():
    async def scenario():
        worker = Worker(open_gate=False)
        async with Batcher(worker, max_batch=8, capacity=2) as batcher:
            first = await blocked(worker, batcher)
            assert isinstance(await outcome(batcher, 1, seconds=0.01), Expired)
            gone = asyncio.create_task(batcher.submit(2))
            await asyncio.sleep(0)
            gone.cancel()
            await asyncio.wait({gone})
            assert batcher.waiting == 0  # both gave their places back
            last = asyncio.create_task(outcome(batcher, 3, seconds=60))
            await asyncio.sleep(0)
            worker.gate.set()
            return worker.batches, await asyncio.gather(first, last)

    assert asyncio.run(scenario()) == ([[0], [3]], [0, 9])


def test_a_request_that_expires_while_it_runs_does_not_disturb_its_batch():
    async def scenario():
        worker = Worker(open_gate=False)
        async with Batcher(worker, max_batch=8, capacity=8) as batcher:
            late = asyncio.create_task(outcome(batcher, 1, seconds=0.05))
            patient = asyncio.create_task(outcome(batcher, 2))
            assert isinstance(await late, Expired)
            worker.gate.set()
            return worker.batches, await patient

    assert asyncio.run(scenario()) == ([[1, 2]], 4)


def test_the_loop_stays_live_while_the_work_runs():
    async def scenario():
        worker = Worker(open_gate=False)
        async with Batcher(worker, max_batch=1, capacity=1) as batcher:
            first = await blocked(worker, batcher)
            for _ in range(5):
                await asyncio.sleep(0.001)
            still = not first.done()
            worker.gate.set()
            await first
            return still

    assert asyncio.run(scenario())


@pytest.mark.parametrize("raised", [StopIteration("x"), SystemExit(3), asyncio.CancelledError()], ids=lambda error: type(error).__name__)
def test_the_worker_outlives_whatever_the_work_raises(raised):
    def work(requests):
        if requests == [1]:
            raise raised
        return requests

    async def scenario():
        async with Batcher(work, max_batch=1, capacity=4) as batcher:
            with pytest.raises(RuntimeError, match=type(raised).__name__):
                await asyncio.wait_for(batcher.submit(1), 5)
            return (await asyncio.wait_for(batcher.submit(2), 5)).result

    assert asyncio.run(scenario()) == 2


def test_work_that_loses_a_result_is_an_error_and_not_a_mix_up():
    async def scenario():
        async with Batcher(lambda requests: requests[1:], max_batch=1, capacity=4) as batcher:
            with pytest.raises(RuntimeError, match="1 requests got 0 results"):
                await batcher.submit(1)

    asyncio.run(scenario())


def test_ending_answers_everybody():
    async def scenario():
        worker = Worker(open_gate=False)
        async with Batcher(worker, max_batch=1, capacity=4) as batcher:
            first = await blocked(worker, batcher)
            second = asyncio.create_task(outcome(batcher, 2))
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_later(0.05, worker.gate.set)
        answers = [await first, await second, await outcome(batcher, 3)]
        return [type(answer) for answer in answers], worker.batches

    assert asyncio.run(scenario()) == ([Ended, Ended, Ended], [[0]])


def test_who_comes_while_it_ends_is_told_so_at_once():
    async def scenario():
        worker = Worker(open_gate=False)
        batcher = Batcher(worker, max_batch=1, capacity=4)
        async with batcher:
            await blocked(worker, batcher)
            ending = asyncio.create_task(batcher.__aexit__())
            await asyncio.sleep(0)
            with pytest.raises(Ended):
                await asyncio.wait_for(batcher.submit(1), 5)
            worker.gate.set()
            await ending
            await batcher.__aenter__()

    asyncio.run(scenario())


def test_a_request_that_is_answered_is_not_looked_for_among_those_that_wait():
    class Blind(collections.deque):
        def __contains__(self, entry):
            raise AssertionError("the queue was gone through")

    async def scenario():
        async with Batcher(Worker(), max_batch=1, capacity=4) as batcher:
            batcher._waiting = Blind()
            return await asyncio.gather(*(outcome(batcher, number) for number in (2, -1, 3)), return_exceptions=True)

    two, poisoned, three = asyncio.run(scenario())
    assert (two, three) == (4, 9) and isinstance(poisoned, Poisoned)


def test_a_request_that_has_begun_to_be_answered_is_not_tried_again():
    async def scenario():
        worker = Worker(open_gate=False)
        async with Batcher(worker, max_batch=4, capacity=9, begun=lambda request: request == 3) as batcher:
            first = await blocked(worker, batcher)
            others = [asyncio.create_task(outcome(batcher, request)) for request in (2, 3, -1)]
            await asyncio.sleep(0)
            worker.gate.set()
            return worker.batches, await asyncio.gather(first, *others)

    batches, (_, two, three, poisoned) = asyncio.run(scenario())
    assert batches == [[0], [2, 3, -1], [2], [-1]]
    assert two == 4 and isinstance(three, Poisoned) and isinstance(poisoned, Poisoned)


@pytest.mark.parametrize("max_batch, capacity", [(0, 1), (1, 0)])
def test_sizes_are_checked(max_batch, capacity):
    async def scenario():
        Batcher(list, max_batch, capacity)

    with pytest.raises(ValueError, match="at least 1"):
        asyncio.run(scenario())


def test_a_timer_holds_back_a_batch_that_is_not_full():
    async def scenario(wait_s, requests):
        worker = Worker()
        async with Batcher(worker, 4, 40, wait_s=wait_s) as batcher:
            start = asyncio.get_running_loop().time()
            await asyncio.gather(*(outcome(batcher, request) for request in requests))
            return worker.batches, asyncio.get_running_loop().time() - start

    assert asyncio.run(scenario(0.2, [1]))[1] >= 0.2
    full, took = asyncio.run(scenario(30.0, [1, 2, 3, 4]))
    assert full == [[1, 2, 3, 4]] and took < 10  # a full batch waits for no timer


def test_a_timer_does_not_outwait_a_deadline():
    async def scenario():
        async with Batcher(Worker(), 4, 40, wait_s=30.0) as batcher:
            return await outcome(batcher, 1, seconds=0.1)

    assert isinstance(asyncio.run(scenario()), Expired)


@settings(max_examples=60, deadline=None)
@given(costs=st.lists(st.integers(1, 50), min_size=1, max_size=30), max_batch=st.integers(1, 8), budget=st.integers(1, 120))
def test_a_padded_batch_keeps_to_the_budget_and_the_oldest_request_always_goes(costs, max_batch, budget):
    numbered = [cost * 1000 + number for number, cost in enumerate(costs)]

    async def scenario():
        worker = Worker(open_gate=False)
        async with Batcher(worker, max_batch, 40, cost=lambda request: request // 1000, budget=budget) as batcher:
            first = await blocked(worker, batcher)
            others = [asyncio.create_task(outcome(batcher, request)) for request in numbered]
            await asyncio.sleep(0)
            worker.gate.set()
            await asyncio.gather(first, *others)
            return worker.batches[1:]

    batches = asyncio.run(scenario())
    assert sorted(request for batch in batches for request in batch) == sorted(numbered)
    waiting = list(numbered)
    for batch in batches:
        assert batch[0] == waiting[0]
        assert len(batch) == 1 or len(batch) * max(request // 1000 for request in batch) <= budget
        assert len(batch) <= max_batch
        waiting = [request for request in waiting if request not in batch]
