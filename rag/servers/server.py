"""What every server offers whoever measures it, and what those that are launched here share."""

from __future__ import annotations

import abc
import contextlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from rag.servers.chat import Answer, Client
from rag.servers.errors import ServerFailed, failed
from rag.servers.nodes import Node, leave

_NEWS_S = 0.5
"""A connection breaks a moment before it is known that the process behind it ended."""
PROMPT = "In one word: what is the capital of France?"


@dataclass(frozen=True)
class Bounds:
    """How long each step may take, in seconds; what takes longer has failed."""

    agent_s: float = 60.0
    """until a node's agent says that it is there (Slurm may be slow to start a step)"""
    process_s: float = 120.0
    """until each process of the server is up"""
    ready_s: float = 300.0
    """until the server answers `/health`"""
    deploy_s: float = 300.0
    """until a model is deployed and listed"""
    cold_s: float = 600.0
    """until the first chat answer, which may have to load the model"""
    warm_s: float = 60.0
    """until any other"""
    end_s: float = 30.0
    """until nothing is left at the end"""


class Server(Protocol):
    """start → wait_ready → deploy → probe → teardown, each bounded; as a context manager it is ready inside and gone outside.

    BadInput says what the user gave wrongly, before anything is started; ServerFailed says everything else.
    """

    @property
    def address(self) -> str:
        """Where it answers, such as http://127.0.0.1:8343."""

    def describe(self) -> dict[str, Any]:
        """What a record says of it: `server`, `version`, `store` and whatever else makes its numbers what they are."""

    def start(self) -> None: ...

    def wait_ready(self) -> None: ...

    def deploy(self, model: str) -> None:
        """Have it serve one of the models it was made for, and see that it lists it."""

    def probe(self, model: str, within_s: float | None = None) -> Answer:
        """A real chat answer with text in it, within the bound of a cold start unless another is given."""

    def failure(self) -> str | None:
        """What has ended that should run; None while all does."""

    def teardown(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class Launched(abc.ABC):
    """A server whose processes agents start on the nodes: waiting with a bound, explaining, probing, ending."""

    def __init__(self, logs: Path, bounds: Bounds, scratch: Path) -> None:
        self.logs, self.bounds = logs, bounds
        self.scratch = scratch / f"blockwise-{secrets.token_hex(4)}"  # short: sockets lie below it, whose paths may have 107 characters
        self.nodes: list[Node] = []
        self._client: Client | None = None

    @property
    def address(self) -> str:
        return self.client.address

    @property
    def client(self) -> Client:
        if self._client is None:
            raise ServerFailed("the server is not started")
        return self._client

    @property
    @abc.abstractmethod
    def log(self) -> Path:
        """The log that says most where it is not known which process failed."""

    @abc.abstractmethod
    def start(self) -> None: ...

    def wait_ready(self) -> None:
        self.until("it answers /health", self.client.healthy, self.bounds.ready_s, self.log)

    def probe(self, model: str, within_s: float | None = None) -> Answer:
        client = self.client
        try:
            return client.chat(model, PROMPT, 8, within_s or self.bounds.cold_s, temperature=0.0)
        except ServerFailed as error:
            raise self.explained(str(error), self.log) from None

    def failure(self) -> str | None:
        return next(filter(None, (node.failure() for node in self.nodes)), None)

    def explained(self, what: str, log: Path) -> ServerFailed:
        """`what` went wrong, with the process that ended and the end of its log, where one has; else with the end of `log`."""
        until = time.monotonic() + _NEWS_S
        while not self.failure() and time.monotonic() < until:
            time.sleep(0.02)  # an agent tells of an end when it is asked
        for node in self.nodes:
            for name in node.ended:
                return failed(f"{what}; {node.failure()}", node.log(name))
        return failed("; ".join(filter(None, [what, self.failure()])), log)

    def until(self, what: str, met: Callable[[], bool], within_s: float, log: Path) -> None:
        """Wait until `met()`; ServerFailed as soon as a process ends, and after `within_s` seconds."""
        deadline = time.monotonic() + within_s
        while not met():
            if self.failure():
                raise self.explained(f"failed before {what}", log)
            if time.monotonic() > deadline:
                raise failed(f"not within {within_s:g} s: {what}", log)
            time.sleep(0.1)  # it is asked over HTTP, which says nothing by itself

    def teardown(self) -> None:
        """End every process on every node; ServerFailed where an agent had to be killed, which may leave something."""
        if self._client:
            self._client.close()
        those, self.nodes, self._client = self.nodes, [], None
        if forced := leave(those, self.bounds.end_s):
            raise ServerFailed(f"not ended within {self.bounds.end_s:g} s on {', '.join(forced)}; look for what is left there")

    def __enter__(self) -> Self:
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            with contextlib.suppress(ServerFailed):  # the reason is the one that is told
                self.teardown()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.teardown()
