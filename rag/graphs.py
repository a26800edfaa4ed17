"""Calls captured as CUDA graphs: one launch where Python would make hundreds, and wait for the other threads before each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch

T = TypeVar("T")


class Graph(Protocol):
    """What repeats a captured call on the memory that it was captured with."""

    def replay(self) -> Any: ...


class Place:
    """Where the graphs of one thread are captured: on one stream, into memory that they share, as no two of them run at once.

    What a graph leaves in that memory is gone once another one runs.
    """

    def __init__(self) -> None:
        self._stream, self._pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()

    def captured(self, call: Callable[[], T], before: Callable[[], Any] = lambda: None) -> tuple[Graph, T]:
        """A graph of `call`, and what it gave, which each replay gives anew.

        It runs twice before, so that libraries have made what they make on first use; `before` precedes each of these runs.
        """
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(2):
                before()
                call()
        torch.cuda.current_stream().wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            given = call()
        return graph, given


def power(number: int) -> int:
    """The least power of two that is not below `number`, which is at least 1."""
    return 1 << (number - 1).bit_length()


def topped_up(rows: torch.Tensor, number: int) -> torch.Tensor:
    """So many rows: `rows`, at least one and at most so many, and the last one again and again."""
    return rows[torch.arange(number, device=rows.device).clamp(max=len(rows) - 1)]


def sizes(most: int) -> list[int]:
    """The batch sizes that are captured: powers of two, and `most`."""
    return [*(1 << power for power in range((most - 1).bit_length())), most]
