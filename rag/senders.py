"""The load from several processes on one clock, so that Python's speed is not the limit of what is offered.

Each process sends every n-th request of the schedule. The monotonic clock is the whole machine's, so that all count from one start.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from analysis.cli import BadInput
from analysis.environment import usable_cores
from rag.launch import many_files
from rag.load import Measured, offer

LEAD_S = 0.05
"""From the word to start to the start, for the word to be read."""
MOST = 8
Work = Callable[[float], Any]
"""What a process does once it is told the start, on the monotonic clock."""


class Senders:
    """Processes that send requests, of which each does one piece of work at a time."""

    def __init__(self, pipes: Sequence[Connection]) -> None:
        self._pipes = pipes

    @property
    def number(self) -> int:
        return len(self._pipes)

    def offer(
        self, url: str, times: Sequence[float], bodies: Sequence[Mapping[str, Any]], deadline_s: float, stream: bool = False
    ) -> Measured:
        """`rag.load.offer` by all processes together. Raises BadInput where one of them dies: nothing of the load counts then."""
        every = [slice(first, None, self.number) for first in range(self.number)]
        parts: list[Measured] = self.run([functools.partial(_offered, url, times[its], bodies[its], deadline_s, stream) for its in every])
        outcomes = [parts[number % self.number].outcomes[number // self.number] for number in range(len(times))]
        seconds = max(part.seconds for part in parts)
        return Measured(outcomes, sum(part.in_flight * part.seconds for part in parts) / seconds, seconds)

    def run(self, works: Sequence[Work]) -> list[Any]:
        """What the processes' works give, all begun at once. Raises BadInput where a process dies, which none does by itself."""
        try:
            for pipe, work in zip(self._pipes, works, strict=True):
                pipe.send(work)
            for pipe in self._pipes:
                pipe.recv()
            start = time.monotonic() + LEAD_S
            for pipe in self._pipes:
                pipe.send(start)
            return [pipe.recv() for pipe in self._pipes]
        except (EOFError, OSError):
            raise BadInput("a process of the load generator was killed (out of memory?); give the same command again, it resumes") from None


def enough() -> int:
    """As many processes as there are cores beside the service's first, `MOST` at most."""
    return min(MOST, max(1, usable_cores() - 1))


@contextlib.contextmanager
def senders(number: int) -> Iterator[Senders]:
    """So many processes, which end with this one whatever ends it."""
    many_files()
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        pipes = []
        for _ in range(number):
            mine, its = context.Pipe()
            process = context.Process(target=_works, args=(its,), daemon=True)
            process.start()
            its.close()
            stack.callback(process.join)
            stack.callback(process.terminate)  # where an interrupt has come in the middle of a load
            pipes.append(stack.enter_context(mine))
        yield Senders(pipes)


def _works(pipe: Connection) -> None:
    """Do what comes through `pipe` until it closes."""
    import aiohttp  # noqa: F401  # imported before the first start

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupted terminal tells all of its processes; the parent ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, OSError):
        while True:
            work: Work = pipe.recv()
            gc.freeze()  # a collection does not look through the schedule again and again
            pipe.send(None)
            pipe.send(work(pipe.recv()))
            del work
            gc.unfreeze()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _offered(
    url: str, times: Sequence[float], bodies: Sequence[Mapping[str, Any]], deadline_s: float, stream: bool, start: float
) -> Measured:
    return asyncio.run(offer(url, times, bodies, deadline_s, stream, start))
