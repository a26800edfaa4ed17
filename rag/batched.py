"""The arm `batched`: requests that wait go through the pipeline together; with `overlap`, one batch is embedded while another generates."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rag.batcher import Batcher, Done, Rejected
from rag.components import Components
from rag.engine import Served
from rag.openai_api import TEXTS
from rag.pipeline import Answer, Ask, Found, Pipeline


class BatchedEngine:
    """A chain of batchers that each request goes through; at most `capacity` are in it, one unanswered after `deadline_s` is given up."""

    def __init__(
        self,
        chain: Sequence[Batcher[Any, Any]],
        embedding: Batcher[str, np.ndarray],
        capacity: int,
        deadline_s: float,
        facts: dict[str, Any],
    ) -> None:
        self.chain, self.embedding, self.capacity, self.deadline_s, self.facts = chain, embedding, capacity, deadline_s, facts
        self._asks = 0

    @property
    def running(self) -> int:
        return max(self._asks, sum(batcher.waiting + batcher.running for batcher in self.chain))

    async def ask(self, ask: Ask) -> Served:
        if self._asks >= self.capacity:
            raise Rejected(f"{self._asks} requests are being answered already")
        until = asyncio.get_running_loop().time() + self.deadline_s
        self._asks += 1
        try:
            value: Any = ask
            waited = 0.0
            for batcher in self.chain:
                done: Done[Any] = await batcher.submit(value, until - asyncio.get_running_loop().time())
                value, waited = done.result, waited + done.queue_ms
            return Served(value, waited, done.batch)
        finally:
            self._asks -= 1

    async def embed(self, texts: Sequence[str]) -> np.ndarray:
        if len(texts) > self.embedding.capacity - self.embedding.waiting:
            raise Rejected(f"{self.embedding.waiting} texts wait already, and at most {self.embedding.capacity} may")
        done = await asyncio.gather(*(self.embedding.submit(text, self.deadline_s) for text in texts))
        return np.stack([one.result for one in done])


@contextlib.asynccontextmanager
async def batched(load: Callable[[], Components], arm: Mapping[str, Any], k: int, deadline_s: float) -> AsyncIterator[BatchedEngine]:
    """Load the components without holding up the loop, warm up with the smallest and the largest batch at `k` chunks, and serve."""

    def ready() -> tuple[Components, Pipeline]:
        components = load()
        pipeline = components.pipeline
        for size in (1, arm["max_batch"]):
            pipeline.answer([Ask("How does it start?", k)] * size)
        return components, pipeline

    components, pipeline = await asyncio.to_thread(ready)
    capacity = arm["queue"] + arm["max_batch"]
    async with contextlib.AsyncExitStack() as stack:
        chain = [await stack.enter_async_context(batcher) for batcher in _chain(components, pipeline, arm, capacity)]
        embedding = await stack.enter_async_context(
            Batcher(components.aside(components.embeddings), arm["max_batch"], max(capacity, TEXTS))
        )
        yield BatchedEngine(chain, embedding, capacity, deadline_s, components.facts)


def _chain(components: Components, pipeline: Pipeline, arm: Mapping[str, Any], capacity: int) -> list[Batcher[Any, Any]]:
    most, wait_s, budget = arm["max_batch"], arm["wait_ms"] / 1e3, arm["tokens"]
    if not arm["overlap"]:
        return [Batcher[Ask, Answer](components.aside(pipeline.answer), most, capacity, wait_s)]

    def length(found: Found) -> int:
        return components.generator.length(found.prompt) if budget else 0

    find = Batcher[Ask, Found](components.aside(pipeline.find), most, capacity, wait_s)
    write = Batcher[Found, Answer](components.aside(pipeline.write), most, capacity, wait_s, length, budget)
    return [find, write]
