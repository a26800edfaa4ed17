"""The arm `course`: the service as the course hands it out, the measured baseline.

Every request goes by itself through a thread of the web framework's pool (40 threads, no lock, no queue, no deadline): one text
embedded, its mean not normalised, a dot product with every chunk in NumPy and a full sort, one prompt, one generation.
Its models are the other arms', and so are length and greedy choice of the answer: what differs is the serving.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence

import numpy as np
from starlette.concurrency import run_in_threadpool

from rag.components import Components
from rag.engine import Host, Served
from rag.pipeline import Answer, Ask, prompt, timed


class CourseEngine:
    """What FastAPI does with the course's synchronous endpoint: every request to the thread pool, where it waits for a thread."""

    def __init__(self, components: Components, host: Host) -> None:
        self.components, self.facts, self._host = components, components.facts, host
        self.running = 0

    async def ask(self, ask: Ask) -> Served:
        """The answer to `ask`; as with the course's endpoint, a client that leaves does not stop the work for it."""
        return await asyncio.shield(asyncio.ensure_future(self._served(ask)))

    async def _served(self, ask: Ask) -> Served:
        arrived = time.perf_counter()

        def work() -> Served:
            waited = time.perf_counter() - arrived
            return Served(self.answer(ask), waited * 1e3, 1)

        self._count(1)
        try:
            return await run_in_threadpool(work)
        finally:
            self._count(-1)

    def _count(self, by: int) -> None:
        self.running += by
        self._host.busy(self.running)

    async def embed(self, texts: Sequence[str]) -> np.ndarray:
        return await run_in_threadpool(lambda: np.stack(self.components.embeddings(texts)))

    def answer(self, ask: Ask) -> Answer:
        """One answer, step by step as in the course's code."""
        parts, stages = self.components, dict[str, float]()
        query = timed(stages, "embed_ms", lambda: parts.embedder.means([parts.embedder.query_prefix + ask.query]).cpu().numpy()[0])
        rows = timed(stages, "retrieve_ms", lambda: np.argsort(parts.means @ query)[::-1][: ask.k])
        chunks = [parts.corpus.chunks[row] for row in rows]
        text = timed(stages, "generate_ms", lambda: parts.generator.generate([prompt(ask.query, [chunk.text for chunk in chunks])]))[0]
        return Answer(text.text, tuple(chunk.id for chunk in chunks), text.tokens_in, text.tokens_out, stages)


@contextlib.asynccontextmanager
async def course(load: Callable[[], Components], k: int, host: Host) -> AsyncIterator[CourseEngine]:
    """Load the components without holding up the loop, warm up with one request for `k` chunks, and serve."""

    def ready() -> CourseEngine:
        engine = CourseEngine(load(), host)
        engine.answer(Ask("How does it start?", k))
        return engine

    yield await asyncio.to_thread(ready)
