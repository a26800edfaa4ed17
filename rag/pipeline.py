"""From queries to answers: embed, retrieve, prompt, generate, for a batch at a time, each stage timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from rag.corpus import Corpus
from rag.embed import Embedder, OneByOne
from rag.generate import Generator, Sink
from rag.graphs import power
from rag.index import Searchable

T = TypeVar("T")


class Stream:
    """A sink that knows whether a piece of the answer has gone into it."""

    def __init__(self, sink: Sink) -> None:
        self.begun, self._sink = False, sink

    def __call__(self, text: str) -> None:
        self.begun = True
        self._sink(text)


@dataclass(frozen=True)
class Ask:
    """A query and the number of chunks to answer it from. `sink`, if given, is called with each piece of the answer's text as it comes,
    from the thread that generates."""

    query: str
    k: int
    sink: Stream | None = None


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
class Found:
    """What was retrieved for an ask: the ids of its chunks, the best first, the prompt made of them, and what it took so far.

    `tokens` is the prompt's length where somebody has counted it.
    """

    chunks: tuple[str, ...]
    prompt: str
    stages: dict[str, float]
    sink: Stream | None = None
    tokens: int = 0


@dataclass(frozen=True)
class Pipeline:
    """The components of a service, and how a batch goes through them: first `find`, then `write`, which share nothing but the prompts."""

    corpus: Corpus
    embedder: Embedder | OneByOne
    index: Searchable
    generator: Generator

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        """The answers to `asks`, in their order, each as if it had been asked alone."""
        return self.write(self.find(asks))

    def find(self, asks: Sequence[Ask]) -> list[Found]:
        """Embed the queries and retrieve their chunks.

        As many chunks are searched for as the next power of two has, and the best are taken: no number that a request asks for makes
        the others wait for a kernel of its own.
        """
        stages: dict[str, float] = {}
        most = power(max(ask.k for ask in asks))
        queries = timed(stages, "embed_ms", lambda: self.embedder.queries([ask.query for ask in asks]))
        ids = timed(stages, "retrieve_ms", lambda: self.index.search(queries, most))
        found = [[self.corpus.chunks[row] for row in rows[: ask.k]] for rows, ask in zip(ids, asks, strict=True)]
        return [
            Found(tuple(chunk.id for chunk in chunks), prompt(ask.query, [chunk.text for chunk in chunks]), stages, ask.sink)
            for ask, chunks in zip(asks, found, strict=True)
        ]

    def write(self, found: Sequence[Found]) -> list[Answer]:
        """Generate the answers from the prompts."""
        stages: dict[str, float] = {}
        texts = timed(stages, "generate_ms", lambda: self.generator.generate([one.prompt for one in found], [one.sink for one in found]))
        return [
            Answer(text.text, one.chunks, text.tokens_in, text.tokens_out, one.stages | stages)
            for text, one in zip(texts, found, strict=True)
        ]


def timed(stages: dict[str, float], name: str, stage: Callable[[], T]) -> T:
    """Run a stage until the device has finished what this thread asked of it, and put its milliseconds into `stages`."""
    start = time.perf_counter()
    value = stage()
    if torch.cuda.is_available():
        torch.cuda.current_stream().synchronize()
    stages[name] = (time.perf_counter() - start) * 1e3
    return value
