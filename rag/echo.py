"""The arm `echo`: the batched service with stages that answer at once, to measure and to test what is around the models.

The route, the queue, the batchers and their threads are those of the arm `batched`; an answer is its query.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from rag.openai_api import MOST
from rag.pipeline import Answer, Ask, Found

T = TypeVar("T")
R = TypeVar("R")


class Echo:
    """What `rag.components.Components` and its pipeline are to the batched service, without models, a corpus or an index."""

    def __init__(self, device: str) -> None:
        self.facts: dict[str, Any] = {
            "model": "echo",
            "weights": "none",
            "embedder": "echo-embedder",
            "embedder_weights": "none",
            "corpus": "none",
            "chunks": MOST,
            "device": device,
        }
        self.pipeline = self.generator = self

    def aside(self, work: Callable[[T], R]) -> Callable[[T], R]:
        return work

    def find(self, asks: Sequence[Ask]) -> list[Found]:
        return [Found((), ask.query, {"embed_ms": 0.0, "retrieve_ms": 0.0}, ask.sink) for ask in asks]

    def write(self, found: Sequence[Found]) -> list[Answer]:
        for one in found:
            if one.sink:
                one.sink(one.prompt)
        words = [self.length(one.prompt) for one in found]
        return [
            Answer(one.prompt, one.chunks, number, number, {**one.stages, "generate_ms": 0.0})
            for one, number in zip(found, words, strict=True)
        ]

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        return self.write(self.find(asks))

    def embeddings(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Unit vectors: e₀ for each."""
        return [np.array([1.0, 0.0], np.float32) for _ in texts]

    def length(self, prompt: str) -> int:
        """Words."""
        return len(prompt.split())
