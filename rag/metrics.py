"""What GET /metrics says, in Prometheus's text format, of the one process that answers it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from analysis.environment import versions
from rag.batcher import Batcher, Ended, Expired, Ran, Rejected
from rag.board import Board
from rag.drain import Drain
from rag.worker import Crashed

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = tuple(2.0**power for power in range(11))
TOKENS = tuple(2.0**power for power in range(4, 20))
LIBRARIES = ("blockwise", "torch", "transformers")


class Metrics:
    """The numbers of one process of the service, in a registry of their own."""

    def __init__(self, board: Board, instance: int) -> None:
        self.board, self.instance = board, instance
        self.registry = registry = CollectorRegistry(auto_describe=True)

        def histogram(name: str, what: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"rag_{name}", what, labels, registry=registry, buckets=buckets)

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"rag_{name}", what, labels, registry=registry)

        self.requests = counter("requests", "HTTP requests answered; status 499: the client had left.", "route", "status")
        self.seconds = histogram("request_seconds", "From a request's head to the end of its answer.", SECONDS, "route")
        self.first_token = histogram("first_token_seconds", "From a streamed chat to its first piece of text.", SECONDS)
        self.rejected = counter("rejected", "Asks refused because too many, or too much work, were ahead of them.")
        self.expired = counter("expired", "Asks given up at their deadline.")
        self.batch_size = histogram("batch_requests", "Requests of a batch.", SIZES, "stage")
        self.batch_tokens = histogram("batch_padded_tokens", "Tokens of a batch of prompts, padded to its longest.", TOKENS, "stage")
        self.stage_seconds = histogram("stage_seconds", "A batch in a stage.", SECONDS, "stage")
        self.waiting = Gauge("rag_waiting", "Requests that wait for a stage.", ["stage"], registry=registry)
        self.restarts = Gauge(
            "rag_stage_restarts", "Times that a stage broke and started anew in this process.", ["stage"], registry=registry
        )
        self.in_flight = 0
        Gauge("rag_in_flight", "HTTP requests not answered yet.", registry=registry).set_function(lambda: self.in_flight)
        Gauge("rag_instances", "Processes of the service.", registry=registry).set(board.instances)
        Gauge("rag_instance_restarts", "Processes of the service started anew, all of them.", registry=registry).set_function(
            lambda: board.restarts
        )
        self._info = Info("rag_build", "What this process is.", registry=registry)

    def serves(self, facts: Mapping[str, Any]) -> None:
        """Say what is served."""
        served = {name: str(facts.get(name, "")) for name in ("model", "weights", "embedder", "device")}
        self._info.info({**versions(*LIBRARIES), **served, "number": str(self.instance)})

    def watch(self, stage: Batcher[Any, Any]) -> None:
        """Count what a stage does, from now on."""
        size, seconds = self.batch_size.labels(stage.name), self.stage_seconds.labels(stage.name)
        tokens = self.batch_tokens.labels(stage.name)
        self.waiting.labels(stage.name).set_function(lambda: stage.waiting)
        self.restarts.labels(stage.name).set_function(lambda: stage.restarts)

        def on_batch(ran: Ran) -> None:
            if isinstance(ran.error, Crashed):
                return self.board.broke(self.instance, stage.name)
            size.observe(ran.size)
            seconds.observe(ran.seconds)
            if longest := max((getattr(result, "tokens_in", 0) for result in ran.results), default=0):
                tokens.observe(longest * ran.size)

        stage.watchers.append(on_batch)

    def failed(self, failure: BaseException) -> None:
        """Count an ask that was refused or given up."""
        if isinstance(failure, Rejected) and not isinstance(failure, Ended):
            self.rejected.inc()
        elif isinstance(failure, Expired):
            self.expired.inc()

    def text(self) -> bytes:
        return generate_latest(self.registry)


class Watched:
    """ASGI middleware: counts and times every request, and tells the drain of those that it has to wait for."""

    def __init__(self, app: ASGIApp, metrics: Metrics, drain: Drain) -> None:
        self.app, self.metrics, self.drain = app, metrics, drain
        self._answered: dict[tuple[str, int], tuple[Any, Any]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started, status = time.perf_counter(), 499

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        admitted = self.drain.enter()
        self.metrics.in_flight += 1
        try:
            await self.app(scope, receive, sent)
        finally:
            self.metrics.in_flight -= 1
            if admitted:
                self.drain.leave()
            count, seconds = self._of(getattr(scope.get("route"), "path", "other"), status)
            count.inc()
            seconds.observe(time.perf_counter() - started)

    def _of(self, route: str, status: int) -> tuple[Any, Any]:
        """The counter and the histogram of a route, which are slow to look up."""
        key = route, status
        if key not in self._answered:
            self._answered[key] = self.metrics.requests.labels(route, str(status)), self.metrics.seconds.labels(route)
        return self._answered[key]
