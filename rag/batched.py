"""The arm `batched`: requests that wait go through the pipeline together; with `overlap`, one batch is embedded while another generates."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from rag.batcher import Batcher, Done, Expired, Lost, Ran, Rejected
from rag.endpoint import Endpoint, Remote
from rag.engine import Host, Served
from rag.graphs import sizes
from rag.openai_api import TEXTS
from rag.pipeline import Answer, Ask, Found

R = TypeVar("R")
REPEATS = 4
"""Calls of a size until it runs as it will: the operators capture the third (`kernels.graphs`)."""


class Pipeline(Protocol):
    """`rag.pipeline.Pipeline`, or what stands in for it."""

    def answer(self, asks: Sequence[Ask]) -> list[Answer]: ...

    def find(self, asks: Sequence[Ask]) -> list[Found]: ...

    def write(self, found: Sequence[Found]) -> list[Answer]: ...


class Generator(Protocol):
    def length(self, prompt: str) -> int: ...


class Components(Protocol):
    """`rag.components.Components`, or what stands in for them."""

    @property
    def facts(self) -> dict[str, Any]: ...

    @property
    def pipeline(self) -> Pipeline: ...

    @property
    def generator(self) -> Generator: ...

    def aside(self, work: Callable[[Any], Any]) -> Callable[[Any], Any]: ...

    def embeddings(self, texts: Sequence[str]) -> list[np.ndarray]: ...


class Stage(Protocol):
    """A `rag.batcher.Batcher`, or what stands in for one."""

    name: str
    running: int
    watchers: list[Callable[[Ran], None]]

    @property
    def waiting(self) -> int: ...

    def expected(self, ahead: int, seconds: float) -> float: ...

    async def submit(self, request: Any, seconds: float | None = None) -> Done[Any]: ...

    async def __aenter__(self) -> Any: ...

    async def __aexit__(self, *_: object) -> None: ...


class BatchedEngine:
    """A chain of stages that each request goes through; at most `capacity` are in it, one unanswered after `deadline_s` is given up.

    With `limit_s` one whose answer is not to be expected within so many seconds is refused: a queue that only its length bounds answers
    everybody too late under overload. One that finds nobody else there is let in, or a stage that was slow once would stay so.
    """

    def __init__(
        self,
        chain: Sequence[Stage],
        embedding: Batcher[str, np.ndarray],
        capacity: int,
        deadline_s: float,
        facts: dict[str, Any],
        host: Host,
        limit_s: float = 0.0,
    ) -> None:
        self.chain, self.embedding, self.capacity, self.deadline_s, self.facts = chain, embedding, capacity, deadline_s, facts
        self._asks, self._host, self._limit_s = 0, host, limit_s
        self._stages: tuple[Stage, ...] = (*chain, embedding)
        for stage in self._stages:
            host.watch(stage)
            stage.watchers.append(self._ran)

    @property
    def running(self) -> int:
        return max(self._asks, sum(stage.waiting + stage.running for stage in self.chain))

    def expected(self) -> float:
        """Seconds until the answer of a request that comes now, by the pace of every stage's last batches."""
        ahead, seconds = 0, 0.0
        for stage in self.chain:
            ahead += stage.waiting
            seconds = stage.expected(ahead, seconds)
            ahead += stage.running
        return seconds

    async def ask(self, ask: Ask) -> Served:
        if self._asks >= self.capacity:
            raise Rejected(f"{self._asks} requests are being answered already")
        if self._limit_s and self._asks and (seconds := self.expected()) > self._limit_s:
            raise Rejected(f"an answer is to be expected in {seconds:.2f} s, and {self._limit_s:g} s is the limit")
        until = asyncio.get_running_loop().time() + self.deadline_s
        self._asks += 1
        self._host.busy(self.running)
        try:
            value: Any = ask
            waited = 0.0
            for stage in self.chain:
                done: Done[Any] = await stage.submit(value, until - asyncio.get_running_loop().time())
                value, waited = done.result, waited + done.queue_ms
            return Served(value, waited, done.batch)
        except Expired:  # of the stage that it was in, which knows only what was left
            raise Expired(f"no answer within {self.deadline_s:g} s") from None
        finally:
            self._asks -= 1
            self._host.busy(self.running)

    async def embed(self, texts: Sequence[str]) -> np.ndarray:
        if len(texts) > self.embedding.capacity - self.embedding.waiting:
            raise Rejected(f"{self.embedding.waiting} texts wait already, and at most {self.embedding.capacity} may")
        done = await asyncio.gather(*(self.embedding.submit(text, self.deadline_s) for text in texts))
        return np.stack([one.result for one in done])

    def _ran(self, ran: Ran) -> None:
        if isinstance(ran.error, Lost):
            self._host.lost(ran.error)
        self._host.busy(self.running)


@contextlib.asynccontextmanager
async def batched(
    load: Callable[[], Components], arm: Mapping[str, Any], k: int, deadline_s: float, host: Host
) -> AsyncIterator[BatchedEngine]:
    """Load the components without holding up the loop, warm up with batches of all sizes at `k` chunks, and serve."""

    def ready() -> tuple[Components, _Works]:
        components = load()
        works = _Works(components, arm["tokens"])
        works.warm_up(arm, k)
        return components, works

    components, works = await asyncio.to_thread(ready)
    capacity = arm["queue"] + arm["max_batch"]
    async with contextlib.AsyncExitStack() as stack:
        chain: list[Stage] = _chain(components, works, arm, capacity)
        for stage in chain:
            await stack.enter_async_context(stage)
        embeddings = _guarded(components, components.embeddings)
        embedding = await stack.enter_async_context(Batcher(embeddings, arm["max_batch"], max(capacity, TEXTS), name="embed"))
        yield BatchedEngine(chain, embedding, capacity, deadline_s, components.facts, host, arm["limit_ms"] / 1e3)


class _Works:
    """What the stages of a pipeline do, each on a stream of its own."""

    def __init__(self, components: Components, budget: int) -> None:
        pipeline, length = components.pipeline, components.generator.length

        def counted(asks: Sequence[Ask]) -> list[Found]:
            """With the prompts' lengths, which are counted here because this thread has the time, and the event loop has not."""
            return [dataclasses.replace(one, tokens=length(one.prompt)) for one in pipeline.find(asks)]

        self.remote, self.gpu = isinstance(components.generator, Remote), components.facts["device"] == "cuda"
        self.find: Callable[[Sequence[Ask]], list[Found]] = _guarded(components, counted if budget else pipeline.find)
        self.write: Callable[[Sequence[Found]], list[Answer]] = _guarded(components, pipeline.write)
        self.answer: Callable[[Sequence[Ask]], list[Answer]] = _guarded(components, pipeline.answer)

    def warm_up(self, arm: Mapping[str, Any], k: int) -> None:
        """Run batches as the arm will, on the streams that they will run on.

        On a GPU of all sizes, and so often that all kernels are compiled and graphs captured before another thread is at work.
        """
        for size in sizes(arm["max_batch"]) if self.gpu else (1, arm["max_batch"]):
            asks = [Ask("How does it start?", k)] * size
            for _ in range(REPEATS if self.gpu else 1):
                if arm["overlap"] or self.remote:
                    found = self.find(asks)
                else:
                    self.answer(asks)
            if arm["overlap"] and not self.remote:
                self.write(found)


def _chain(components: Components, works: _Works, arm: Mapping[str, Any], capacity: int) -> list[Stage]:
    most, wait_s, budget = arm["max_batch"], arm["wait_ms"] / 1e3, arm["tokens"]
    find = Batcher[Ask, Found](works.find, most, capacity, wait_s, name="find")
    if isinstance(components.generator, Remote):
        return [find, Endpoint(components.generator, most)]
    if not arm["overlap"]:
        return [Batcher[Ask, Answer](works.answer, most, capacity, wait_s, begun=_begun, name="answer")]
    # Without a timer: the first stage has held the batch together already.
    write = Batcher[Found, Answer](works.write, most, capacity, cost=lambda found: found.tokens, budget=budget, begun=_begun, name="write")
    return [find, write]


def _begun(request: Ask | Found) -> bool:
    return request.sink is not None and request.sink.begun


def _guarded(components: Components, work: Callable[[Any], R]) -> Callable[[Any], R]:
    """`work`, set aside, raising Lost where it fails and the device is of no use to this process any more."""
    aside = components.aside(work)

    def guarded(given: Any) -> R:
        try:
            return aside(given)
        except Exception as error:
            check(components.facts["device"], error)
            raise

    return guarded


def check(device: str, error: Exception) -> None:
    """Raise Lost if, after `error`, the device answers nothing any more, as a GPU does after a failed assertion in a kernel."""
    if device == "cuda":
        try:
            torch.cuda.synchronize()
        except Exception:
            raise Lost(f"the GPU is of no use to this process any more: {error}") from error
