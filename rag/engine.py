"""What an arm is to the routes: it answers asks and embeds texts, however it arranges that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from rag.pipeline import Answer, Ask


@dataclass(frozen=True)
class Served:
    """An answer, how long its request waited for the models, and how many requests it was answered with."""

    answer: Answer
    queue_ms: float
    batch: int


class Host(Protocol):
    """What an engine reports to."""

    def watch(self, stage: Any) -> None:
        """Count what `stage` (a `rag.batcher.Batcher`) does."""

    def busy(self, running: int) -> None:
        """The engine has `running` asks in hand now."""

    def lost(self, error: Exception) -> None:
        """The process cannot use its device any more."""


class Engine(Protocol):
    """`running` counts the asks that it has not finished; `facts` is what a record says of it.

    `embed` gives the normalised embeddings of queries (number, dimension). Both raise what `rag.batcher` raises.
    """

    facts: dict[str, Any]

    @property
    def running(self) -> int: ...

    async def ask(self, ask: Ask) -> Served: ...

    async def embed(self, texts: Sequence[str]) -> np.ndarray: ...
