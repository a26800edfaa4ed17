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
        self.running = 0

    async def ask(self, ask: Ask) -> Served:
        self.running += 1
        try:
            done = await self.batcher.submit(ask, self.deadline_s)
        finally:
            self.running -= 1
        return Served(done.result, done.queue_ms, done.batch)


@contextlib.asynccontextmanager
async def batched(load: Callable[[], Components], arm: Mapping[str, Any], deadline_s: float) -> AsyncIterator[BatchedEngine]:
    """Load the components without holding up the loop, warm up with the smallest and the largest batch, and serve."""

    def ready() -> tuple[Components, Any]:
        components = load()
        pipeline = components.pipeline
        for size in (1, arm["max_batch"]):
            pipeline.answer([Ask("How does it start?", 1)] * size)
        return components, pipeline

    components, pipeline = await asyncio.to_thread(ready)
    async with Batcher(pipeline.answer, arm["max_batch"], arm["queue"]) as batcher:
        yield BatchedEngine(batcher, deadline_s, components.facts)
