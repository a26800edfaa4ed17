"""The arm `batched`: requests that wait go through the pipeline together, in one thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from rag.api import Served
from rag.batcher import Batcher
from rag.components import Components
from rag.pipeline import Answer, Ask


class BatchedEngine:
    """A batcher around a pipeline; a request unanswered after `deadline_s` is given up."""

    def __init__(self, batcher: Batcher[Ask, Answer], deadline_s: float, facts: dict[str, Any]) -> None:
        self.batcher, self.deadline_s, self.facts = batcher, deadline_s, facts

    @property
    def running(self) -> int:
        return self.batcher.waiting + self.batcher.running

    async def ask(self, ask: Ask) -> Served:
        done = await self.batcher.submit(ask, self.deadline_s)
        return Served(done.result, done.queue_ms, done.batch)


@contextlib.asynccontextmanager
async def batched(load: Callable[[], Components], arm: Mapping[str, Any], k: int, deadline_s: float) -> AsyncIterator[BatchedEngine]:
    """Load the components without holding up the loop, warm up with the smallest and the largest batch at `k` chunks, and serve."""

    def ready() -> tuple[Components, Any]:
        components = load()
        pipeline = components.pipeline
        for size in (1, arm["max_batch"]):
            pipeline.answer([Ask("How does it start?", k)] * size)
        return components, pipeline

    components, pipeline = await asyncio.to_thread(ready)
    async with Batcher(pipeline.answer, arm["max_batch"], arm["queue"]) as batcher:
        yield BatchedEngine(batcher, deadline_s, components.facts)
