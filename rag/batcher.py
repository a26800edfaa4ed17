"""Work-conserving batching: the moment the worker is free it takes what waits, and unless asked for no timer holds anything back.

Under light load every request runs alone at once; under heavy load batches grow by themselves, up to a cap. The queue is
bounded (`Rejected` tells a client to come back later), a request past its deadline is answered with `Expired` and never
reaches the device, and one poisoned request fails alone.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

Q = TypeVar("Q")
R = TypeVar("R")


class Rejected(Exception):
    """The queue is full, or the batcher has ended."""


class Expired(Exception):
    """The request's deadline passed before its answer was there."""


@dataclass(frozen=True)
class Done(Generic[R]):
    """A request's result, how long it waited for the worker, and how many requests shared its batch."""

    result: R
    queue_ms: float
    batch: int


@dataclass(eq=False)
class _Entry(Generic[Q, R]):
    request: Q
    answer: asyncio.Future[Done[R]]
    arrived: float
    deadline: float | None
    cost: int


class Batcher(Generic[Q, R]):
    """Runs `work(requests) -> results` in one thread of its own; an async context manager.

    `max_batch` requests at most go to `work` together, `capacity` at most wait. A batch for which `work` raises is run again
    one request at a time, so that only those that fail alone get the error.

    `wait_s` holds a batch that is not full back until its oldest request has waited so long: the fixed timer of other batchers, for
    comparison. `cost` is a request's length; with it a batch padded to its longest request costs at most `budget`, and what does not
    fit beside the oldest request waits for another batch. The oldest always goes.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Q]], Sequence[R]],
        max_batch: int,
        capacity: int,
        wait_s: float = 0.0,
        cost: Callable[[Q], int] = lambda request: 0,
        budget: int = 0,
    ) -> None:
        if max_batch < 1 or capacity < 1:
            raise ValueError(f"max_batch and capacity must be at least 1, not {max_batch} and {capacity}")
        self.work, self.max_batch, self.capacity = work, max_batch, capacity
        self.wait_s, self.cost, self.budget = wait_s, cost, budget
        self._waiting: collections.deque[_Entry[Q, R]] = collections.deque()
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batcher")
        self._worker: asyncio.Task[None] | None = None
        self.running = 0
        """The number of requests in the batch in hand."""

    async def __aenter__(self) -> Batcher[Q, R]:
        self._worker = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        """End at once: requests that still wait or run get `Rejected`; the work in hand is waited for."""
        assert self._worker is not None
        self._worker.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._worker
        self._worker = None
        await asyncio.to_thread(self._thread.shutdown)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def submit(self, request: Q, seconds: float | None = None) -> Done[R]:
        """The outcome of `request`, within `seconds` if given.

        Raises Rejected, Expired, or what `work` raised for this request alone. Cancelling it takes it out of the queue.
        """
        if self._worker is None or len(self._waiting) >= self.capacity:
            raise Rejected(f"{len(self._waiting)} requests wait already")
        loop = asyncio.get_running_loop()
        deadline = None if seconds is None else loop.time() + seconds
        entry = _Entry[Q, R](request, loop.create_future(), loop.time(), deadline, self.cost(request))
        self._waiting.append(entry)
        self._wake.set()
        try:
            async with asyncio.timeout_at(deadline) as limit:
                return await entry.answer
        except TimeoutError:
            if limit.expired():
                raise Expired(f"no answer within {seconds:g} s") from None
            raise
        finally:
            if not entry.answer.done():
                entry.answer.cancel()
            with contextlib.suppress(ValueError):  # it runs already, or is answered
                self._waiting.remove(entry)

    async def _run(self) -> None:
        batch: list[_Entry[Q, R]] = []
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._waiting:
                    await self._hold()
                    if batch := self._take():
                        await self._answer(batch)
        finally:
            for entry in [*batch, *self._waiting]:
                _fail(entry, Rejected("the service ends"))
            self._waiting.clear()

    async def _hold(self) -> None:
        """Wait until the batch is full or its oldest request has waited `wait_s`."""
        now = asyncio.get_running_loop().time
        while (
            self.wait_s
            and self._waiting
            and len(self._waiting) < self.max_batch
            and now() < (until := self._waiting[0].arrived + self.wait_s)
        ):
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._wake.wait()

    def _take(self) -> list[_Entry[Q, R]]:
        """The oldest requests whose deadline has not passed, at most `max_batch` and those that the budget has room for."""
        batch: list[_Entry[Q, R]] = []
        left: list[_Entry[Q, R]] = []
        longest, now = 0, asyncio.get_running_loop().time()
        while self._waiting and len(batch) < self.max_batch:
            entry = self._waiting.popleft()
            if entry.deadline is not None and entry.deadline <= now:
                _fail(entry, Expired("its deadline passed while it waited"))
            elif entry.answer.done():
                continue
            elif batch and self.budget and max(longest, entry.cost) * (len(batch) + 1) > self.budget:
                left.append(entry)
            else:
                batch.append(entry)
                longest = max(longest, entry.cost)
        self._waiting.extendleft(reversed(left))
        return batch

    def _call(self, requests: Sequence[Q]) -> Sequence[R]:
        """`work` in the thread; what no future can carry (StopIteration, SystemExit, …) becomes a RuntimeError."""
        try:
            return self.work(requests)
        except BaseException as error:
            if isinstance(error, Exception) and not isinstance(error, StopIteration):
                raise
            raise RuntimeError(f"the work raised {error!r}") from error

    async def _answer(self, batch: list[_Entry[Q, R]]) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        self.running = len(batch)
        try:
            results = await loop.run_in_executor(self._thread, self._call, [entry.request for entry in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"{len(batch)} requests got {len(results)} results")
        except Exception as error:
            if len(batch) == 1:
                return _fail(batch[0], error)
            for entry in batch:
                if not entry.answer.done():
                    await self._answer([entry])
            return
        finally:
            self.running = 0
        for entry, result in zip(batch, results, strict=True):
            if not entry.answer.done():
                entry.answer.set_result(Done(result, (started - entry.arrived) * 1e3, len(batch)))


def _fail(entry: _Entry[Q, R], error: Exception) -> None:
    if not entry.answer.done():
        entry.answer.set_exception(error)
