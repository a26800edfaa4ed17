"""Work-conserving batching: the moment the worker is free it takes what waits, and unless asked for no timer holds anything back.

Under light load every request runs alone at once; under heavy load batches grow by themselves, up to a cap. The queue is
bounded (`Rejected` tells a client to come back later), a request past its deadline is answered with `Expired` and never
reaches the device, and one poisoned request fails alone. What breaks the batcher itself fails the requests in hand, once, and it
starts anew. It knows its pace, and so when the answer of a further request is to be expected.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rag.worker import Crashed, Worker

log = logging.getLogger("rag")

Q = TypeVar("Q")
R = TypeVar("R")
NEWEST = 0.5
"""What the newest batch of a size counts for in the pace."""


class Rejected(Exception):
    """The queue is full."""


class Ended(Rejected):
    """The batcher has ended."""


class Expired(Exception):
    """The request's deadline passed before its answer was there."""


class Lost(Exception):
    """Raised by work whose device no process can use again but a new one: no batch is tried again after it."""


@dataclass(frozen=True)
class Done(Generic[R]):
    """A request's result, how long it waited for the worker, and how many requests shared its batch."""

    result: R
    queue_ms: float
    batch: int


@dataclass(frozen=True)
class Ran:
    """A batch that has run: how many requests, for how long, and what it gave or raised; Crashed where the stage itself broke."""

    size: int
    seconds: float
    results: Sequence[Any]
    error: Exception | None


class Pace:
    """The smoothed durations of batches by their size, sizes between two powers of two as one.

    One duration for all sizes would not do: under overload it follows the sizes too late, and too many and too few are let in by turns.
    """

    def __init__(self) -> None:
        self._known: dict[int, float] = {}

    def took(self, size: int, seconds: float) -> None:
        """Take a further batch's duration in."""
        before = self._known.get(_class(size), seconds)
        self._known[_class(size)] = before + NEWEST * (seconds - before)

    def seconds(self, size: int) -> float:
        """That of a batch of so many, or of the nearest size that there was; 0 before the first batch."""
        if not self._known:
            return 0.0
        return self._known[min(self._known, key=lambda known: abs(known - _class(size)))]


def _class(size: int) -> int:
    return (size - 1).bit_length()


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
    one request at a time, so that only those that fail alone get the error. A request is not run again where `begun` says that a part
    of its answer has gone out already.

    `wait_s` holds a batch that is not full back until its oldest request has waited so long: the fixed timer of other batchers, for
    comparison. `cost` is a request's length; with it a batch padded to its longest request costs at most `budget`, and what does not
    fit beside the oldest request waits for another batch. The oldest always goes.

    `restarts` counts how often the batcher itself broke and started anew; `name` is what its thread and its log lines are called.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Q]], Sequence[R]],
        max_batch: int,
        capacity: int,
        wait_s: float = 0.0,
        cost: Callable[[Q], int] = lambda request: 0,
        budget: int = 0,
        begun: Callable[[Q], bool] = lambda request: False,
        name: str = "batcher",
    ) -> None:
        if max_batch < 1 or capacity < 1:
            raise ValueError(f"max_batch and capacity must be at least 1, not {max_batch} and {capacity}")
        self.work, self.max_batch, self.capacity = work, max_batch, capacity
        self.wait_s, self.cost, self.budget, self.begun, self.name = wait_s, cost, budget, begun, name
        self._waiting: collections.deque[_Entry[Q, R]] = collections.deque()
        self._wake = asyncio.Event()
        self._hand: list[_Entry[Q, R]] = []
        self._thread: Worker
        self._task: asyncio.Task[None] | None = None
        self._pace, self._started = Pace(), 0.0
        self.watchers: list[Callable[[Ran], None]] = []
        """Called after each batch, and after each that broke the batcher, in the event loop."""
        self.running = self.restarts = 0
        """The number of requests in the batch in hand, and of starts beyond the first."""

    async def __aenter__(self) -> Batcher[Q, R]:
        self._thread = Worker(self.name)
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        """End at once: requests that still wait or run get `Ended`; the work in hand is waited for."""
        task, self._task = self._task, None  # first: what comes from now on would wait for nothing
        assert task is not None
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await self._thread.join()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def expected(self, ahead: int, seconds: float) -> float:
        """Seconds until the answer of a request that comes in `seconds` behind `ahead` others, by the pace of the last batches.

        Until then what is left of the batch that runs and the batches of those ahead may be over; then comes its own.
        """
        duration, batches, mates = self._pace.seconds, *divmod(ahead, self.max_batch)
        left = max(0.0, self._started + duration(self.running) - asyncio.get_running_loop().time()) if self.running else 0.0
        return max(seconds, left + batches * duration(self.max_batch)) + duration(mates + 1)

    async def submit(self, request: Q, seconds: float | None = None) -> Done[R]:
        """The outcome of `request`, within `seconds` if given.

        Raises Rejected, Expired, Crashed, or what `work` raised for this request alone. Cancelling it takes it out of the queue.
        """
        if self._task is None:
            raise Ended("the service ends")
        if len(self._waiting) >= self.capacity:
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
            entry.answer.cancel()
            # Only one that nobody answered may still wait; remove by itself would put the request into an error that nobody reads.
            if entry.answer.cancelled() and entry in self._waiting:
                self._waiting.remove(entry)

    async def _run(self) -> None:
        try:
            while True:
                try:
                    await self._serve()
                except Exception as error:
                    self._restart(error)
        finally:
            for entry in [*self._hand, *self._waiting]:
                _fail(entry, Ended("the service ends"))
            self._waiting.clear()

    async def _serve(self) -> None:
        while True:
            while self._waiting:
                await self._hold()
                self._hand = self._take()
                if self._hand:
                    await self._answer(self._hand)
                    self._hand = []
            self._wake.clear()
            await self._wake.wait()

    def _restart(self, error: Exception) -> None:
        """Fail what the error caught in hand, or else all that wait (an error that comes again at once ends so), and take a new thread."""
        log.error("the stage %s broke and starts anew", self.name, exc_info=error)
        crashed = Crashed(f"the stage {self.name} broke while it had the request: {error}")
        ran = Ran(len(self._hand), 0.0, (), crashed)
        for entry in self._hand or self._waiting:
            _fail(entry, crashed)
        if not self._hand:
            self._waiting.clear()
        self._hand, self.running = [], 0
        self._thread.abandon()
        self._thread = Worker(self.name)
        self.restarts += 1
        for watcher in self.watchers:
            watcher(ran)

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

    async def _answer(self, batch: list[_Entry[Q, R]]) -> None:
        loop = asyncio.get_running_loop()
        started, error, results = loop.time(), None, list[R]()
        self._started, self.running = started, len(batch)
        try:
            results = list(await self._thread.call(self.work, [entry.request for entry in batch]))
            if len(results) != len(batch):
                raise RuntimeError(f"{len(batch)} requests got {len(results)} results")
        except Crashed:
            raise
        except Exception as failure:
            error = failure
        finally:
            self.running = 0
        took = loop.time() - started
        if error is None:
            self._pace.took(len(batch), took)
            for entry, result in zip(batch, results, strict=True):
                if not entry.answer.done():
                    entry.answer.set_result(Done(result, (started - entry.arrived) * 1e3, len(batch)))
        else:
            for entry in batch:
                if len(batch) == 1 or isinstance(error, Lost) or self.begun(entry.request):
                    _fail(entry, error)
        ran = Ran(len(batch), took, results, error)
        for watcher in self.watchers:
            watcher(ran)
        for entry in batch:
            if not entry.answer.done():
                await self._answer([entry])


def _fail(entry: _Entry[Q, R], error: Exception) -> None:
    if not entry.answer.done():
        entry.answer.set_exception(error)
