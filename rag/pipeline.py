"""From queries to answers: embed, retrieve, prompt, generate, for a batch at a time, each stage timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from rag.corpus import Corpus
from rag.embed import Embedder
from rag.generate import Generator
from rag.index import Index

T = TypeVar("T")


@dataclass(frozen=True)
class Ask:
    """A query and the number of chunks to answer it from."""

    query: str
    k: int


@dataclass(frozen=True)
class Answer:
    """A result, the ids of the chunks it was made from (the best first), and what it took.

    `stages` are the milliseconds of the whole batch that this answer came from: a request waits for all of them.
    """

    result: str
    retrieved: tuple[str, ...]
    tokens_in: int
    tokens_out: int
    stages: dict[str, float]


def prompt(query: str, contexts: Sequence[str]) -> str:
    """The course's prompt."""
    return f"Question: {query}\nContext:\n" + "\n".join(contexts) + "\nAnswer:"


@dataclass(frozen=True)
class Pipeline:
    """The components of a service, and how a batch goes through them."""

    corpus: Corpus
    embedder: Embedder
    index: Index
    generator: Generator

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        """The answers to `asks`, in their order, each as if it had been asked alone."""
        stages: dict[str, float] = {}
        queries = timed(stages, "embed_ms", lambda: self.embedder.queries([ask.query for ask in asks]))
        ids = timed(stages, "retrieve_ms", lambda: self.index.search(queries, max(ask.k for ask in asks)))
        found = [[self.corpus.chunks[row] for row in rows[: ask.k]] for rows, ask in zip(ids, asks, strict=True)]
        prompts = [prompt(ask.query, [chunk.text for chunk in chunks]) for ask, chunks in zip(asks, found, strict=True)]
        texts = timed(stages, "generate_ms", lambda: self.generator.generate(prompts))
        return [
            Answer(text.text, tuple(chunk.id for chunk in chunks), text.tokens_in, text.tokens_out, stages)
            for text, chunks in zip(texts, found, strict=True)
        ]


def timed(stages: dict[str, float], name: str, stage: Callable[[], T]) -> T:
    """Run a stage until its device has finished and put its milliseconds into `stages`."""
    start = time.perf_counter()
    value = stage()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    stages[name] = (time.perf_counter() - start) * 1e3
    return value
