"""What an engine reports to, for tests that have no use for reports; and captured graphs where there is no GPU."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import HTTPServer
from types import SimpleNamespace
from typing import Any

from rag.api import application
from rag.board import Board
from rag.drain import Drain
from rag.metrics import Metrics


class Host:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.stages: list[Any] = []
        self.running: list[int] = []
        self.losses: list[Exception] = []

    def watch(self, stage: Any) -> None:
        self.stages.append(stage)

    def busy(self, running: int) -> None:
        self.running.append(running)

    def lost(self, error: Exception) -> None:
        self.losses.append(error)


def app_of(opening: Any, on_ready: Any, on_failure: Any) -> Any:
    """The application as the only instance of a service has it."""
    return application(opening, on_ready, on_failure, Metrics(Board(1), 0), Drain())


@contextlib.contextmanager
def answering(server: HTTPServer, release: threading.Event) -> Iterator[None]:
    """Serve in a thread; at the end set `release`, on which what it still answers may wait."""
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            release.set()
            server.shutdown()
            thread.join()


class Played:
    """Stands in for `rag.graphs.Place` where there is no GPU: replaying is calling again, into the memory of what was given first."""

    def __init__(self) -> None:
        self.replays = 0

    def captured(self, call: Callable[[], Any], before: Callable[[], Any] = lambda: None) -> tuple[Any, Any]:
        for _ in range(2):
            before()
            call()
        before()
        given = call()

        def replay() -> None:
            self.replays += 1
            again = call()
            if given is not None:
                given.copy_(again)

        return SimpleNamespace(replay=replay), given
