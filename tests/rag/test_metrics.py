"""What /metrics counts, read by Prometheus's own parser, against what was asked; /health, /ready and the drain beside it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from rag.api import application
from rag.batched import BatchedEngine, batched
from rag.batcher import Ended, Rejected
from rag.board import Board
from rag.config import BATCHED
from rag.drain import Drain
from rag.echo import Echo
from rag.metrics import Metrics
from rag.pipeline import Ask, Found
from tests.rag import fakes

ARM = {**BATCHED, "max_batch": 4, "queue": 8}


class Faulty(Echo):
    """Echo stages that break at a query's word."""

    def find(self, asks: Any) -> list[Found]:
        if any("exit" in ask.query for ask in asks):
            raise SystemExit
        if any("poison" in ask.query for ask in asks):
            raise ZeroDivisionError
        return super().find(asks)


class Host(fakes.Host):
    def __init__(self, metrics: Metrics, board: Board) -> None:
        super().__init__()
        self.watch = metrics.watch  # type: ignore[method-assign]
        self.board = board

    def busy(self, running: int) -> None:
        self.board.tell(1, running)


@contextlib.asynccontextmanager
async def served(deadline_s: float = 60) -> AsyncIterator[tuple[httpx.AsyncClient, Board, Drain, list[BatchedEngine]]]:
    """Instance 1 of 3, over ASGI."""
    board, drain, engines = Board(3), Drain(), list[BatchedEngine]()
    metrics = Metrics(board, 1)

    @contextlib.asynccontextmanager
    async def opening():
        async with batched(lambda: Faulty("cpu"), ARM, 2, deadline_s, Host(metrics, board)) as engine:
            engines.append(engine)
            yield engine

    ready = asyncio.Event()
    app = application(opening, ready.set, fail, metrics, drain)
    async with app.router.lifespan_context(app):
        await asyncio.wait_for(ready.wait(), 10)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
            yield http, board, drain, engines


def fail(error: BaseException) -> None:
    raise error


async def numbers(http: httpx.AsyncClient) -> dict[tuple[str, ...], float]:
    """Each sample of /metrics by its name and its labels' values."""
    response = await http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(response.text)
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


def test_what_was_asked_is_what_is_counted():
    async def scenario() -> dict[tuple[str, ...], float]:
        async with served() as (http, board, _, _):
            await asyncio.gather(*(http.post("/rag", json={"query": f"one two {number}"}) for number in range(4)))
            await http.post("/rag", json={"query": "poison"})
            await http.post("/rag", json={"query": "exit"})
            await http.post("/rag", json={"query": ""})
            await http.get("/wp-admin/setup.php")
            chat = {"model": "echo", "messages": [{"role": "user", "content": "one two three four five"}], "stream": True}
            await http.post("/v1/chat/completions", json=chat)
            assert board.running == 0
            board.restarted(0)
            return await numbers(http)

    found = asyncio.run(scenario())
    assert {key: value for key, value in found.items() if key[0] == "rag_requests_total"} == {
        ("rag_requests_total", "/rag", "200"): 4,
        ("rag_requests_total", "/rag", "500"): 1,
        ("rag_requests_total", "/rag", "503"): 1,
        ("rag_requests_total", "/rag", "422"): 1,
        ("rag_requests_total", "other", "404"): 1,
        ("rag_requests_total", "/v1/chat/completions", "200"): 1,
    }
    assert found["rag_request_seconds_count", "/rag"] == 7
    assert found["rag_batch_requests_sum", "write"] == 5 and found["rag_batch_requests_sum", "find"] >= 5
    assert found["rag_batch_padded_tokens_sum", "write"] == 4 * 3 + 5
    assert found["rag_stage_seconds_count", "write"] == found["rag_batch_requests_count", "write"]
    assert found["rag_first_token_seconds_count",] == 1
    assert (found["rag_stage_restarts", "find"], found["rag_stage_restarts", "write"]) == (1, 0)
    assert (found["rag_instances",], found["rag_instance_restarts",], found["rag_waiting", "find"]) == (3, 1, 0)
    assert found["rag_in_flight",] == 1  # the one that asks
    build = next(key for key in found if key[0] == "rag_build_info")
    assert {"echo", "cpu", "1"} <= set(build)


def test_rejects_and_expiries_are_counted():
    async def scenario() -> tuple[list[int], dict[tuple[str, ...], float]]:
        async with served(deadline_s=0.05) as (http, _, _, engines):
            entered, gate = asyncio.Event(), asyncio.Event()

            async def held(ask: Any, seconds: Any = None) -> Any:
                entered.set()
                await gate.wait()

            find = engines[0].chain[0]
            find.work = lambda asks: asyncio.run_coroutine_threadsafe(held(asks), loop).result()  # type: ignore[attr-defined]
            loop = asyncio.get_running_loop()
            asked = [asyncio.create_task(http.post("/rag", json={"query": "x"})) for _ in range(13)]
            statuses = [(await one).status_code for one in asked]
            gate.set()
            return statuses, await numbers(http)

    statuses, found = asyncio.run(scenario())
    assert sorted(statuses) == [429] + [504] * 12  # 4 in a batch and 8 that wait
    assert (found["rag_rejected_total",], found["rag_expired_total",]) == (1, 12)


def test_the_end_of_the_service_is_no_reject():
    metrics = Metrics(Board(1), 0)
    for failure in (Ended("the service ends"), Rejected("too many")):
        metrics.failed(failure)
    assert b"rag_rejected_total 1.0" in metrics.text()


def test_running_counts_all_instances_and_what_outlives_its_request():
    """A client that has left does not make the instance idle while its batch runs."""

    async def scenario() -> list[int]:
        async with served() as (http, board, _, engines):
            board.tell(0, 5)
            loop, gate, entered = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

            async def held() -> None:
                entered.set()
                await gate.wait()

            find = engines[0].chain[0]
            work = find.work  # type: ignore[attr-defined]
            find.work = lambda asks: (asyncio.run_coroutine_threadsafe(held(), loop).result(), work(asks))[1]  # type: ignore[attr-defined]
            seen = [(await http.get("/ready")).json()["running"]]
            asked = asyncio.create_task(engines[0].ask(Ask("x", 1)))
            await entered.wait()
            seen.append((await http.get("/ready")).json()["running"])
            asked.cancel()
            await asyncio.wait({asked})
            seen.append((await http.get("/ready")).json()["running"])
            gate.set()
            while board.running > 5:
                await asyncio.sleep(0)
            seen.append((await http.get("/ready")).json()["running"])
            return seen

    assert asyncio.run(scenario()) == [5, 6, 6, 5]


def test_health_tells_of_restarts_and_of_the_drain():
    async def scenario() -> tuple[Any, ...]:
        async with served() as (http, board, drain, _):
            await http.post("/rag", json={"query": "exit"})
            board.restarted(2)
            board.broke(0, "find")  # by other instances
            board.broke(2, "find")
            before = (await http.get("/health")).json()
            assert await drain.run(1) == 0
            after = (await http.get("/health")).json()
            return (
                before,
                after["status"],
                [(await http.post("/rag", json={"query": "x"})).status_code, (await http.get("/ready")).status_code],
            )

    before, status, refused = asyncio.run(scenario())
    stages = {"find": 3, "write": 0, "answer": 0, "embed": 0}
    assert before == {"status": "ok", "instance": 1, "restarts": {"instances": 1, "stages": stages}}
    assert (status, refused) == ("draining", [503, 503])


def test_a_drain_waits_for_those_let_in_before_it_alone():
    async def scenario() -> list[Any]:
        drain = Drain()
        assert drain.enter() and drain.enter()
        ending = asyncio.create_task(drain.run(60))
        await asyncio.sleep(0)
        seen: list[Any] = [drain.enter(), ending.done()]
        drain.leave()
        await asyncio.sleep(0)
        seen.append(ending.done())
        drain.leave()
        return [*seen, await asyncio.wait_for(ending, 10), await Drain().run(60)]

    assert asyncio.run(scenario()) == [False, False, False, 0, 0]


def test_a_drain_gives_up_with_the_number_of_those_left():
    async def scenario() -> int:
        drain = Drain()
        drain.enter()
        return await drain.run(0.01)

    assert asyncio.run(scenario()) == 1
