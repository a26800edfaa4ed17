"""The HTTP side: what is answered to good, bad, too many, too large and too late requests."""

import asyncio
import contextlib

import httpx
import pytest

from rag import limits
from rag.batcher import Expired, Rejected
from rag.engine import Served
from rag.pipeline import Answer, Ask
from tests.rag.fakes import app_of


class Fixed:
    """An engine whose answer depends on the query alone."""

    def __init__(self) -> None:
        self.facts, self.running = {"model": "none", "embedder": "none", "chunks": 50}, 0
        self.cancelled = asyncio.Event()

    async def ask(self, ask: Ask) -> Served:
        if ask.query == "full":
            raise Rejected("9 requests wait already")
        if ask.query == "late":
            raise Expired("no answer within 1 s")
        if ask.query == "poison":
            raise KeyError("secret detail")
        if ask.query == "never":
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()
        return Served(Answer(ask.query.upper(), ("d#0",) * ask.k, 3, 4, {"embed_ms": 1.0}), 2.0, 5)


@contextlib.asynccontextmanager
async def client(opening=None):
    """A client of the application, which runs its lifespan; and the engine."""
    engine, ready = Fixed(), asyncio.Event()

    @contextlib.asynccontextmanager
    async def opened():
        yield engine

    failures: list[BaseException] = []
    app = app_of(opening or opened, ready.set, lambda error: (failures.append(error), ready.set()))
    async with app.router.lifespan_context(app):
        await asyncio.wait_for(ready.wait(), 5)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
            yield http, engine, failures


def post(body=None, **options):
    async def scenario():
        async with client() as (http, _, _):
            return await http.post("/rag", **({"json": body} if body is not None else options))

    return asyncio.run(scenario())


def test_an_answer():
    response = post({"query": " hello "})
    assert response.status_code == 200
    assert response.json() == {
        "query": "hello",
        "result": "HELLO",
        "retrieved": ["d#0", "d#0"],
        "tokens_in": 3,
        "tokens_out": 4,
        "batch": 5,
        "stages": {"queue_ms": 2.0, "embed_ms": 1.0},
    }


@pytest.mark.parametrize(
    "query, status, code",
    [("full", 429, "rejected"), ("late", 504, "timeout"), ("poison", 500, "failed")],
)
def test_what_the_engine_raises(query, status, code):
    response = post({"query": query})
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert ("retry-after" in response.headers) == (status == 429)
    assert "secret" not in response.text


@pytest.mark.parametrize(
    "body, named",
    [
        ({"query": ""}, "query"),
        ({"query": "  "}, "query"),
        ({"query": "x" * 4001}, "query"),
        ({"query": 3}, "query"),
        ({"k": 2}, "query"),
        ({"query": "x", "k": 0}, "k"),
        ({"query": "x", "k": 51}, "50 are all there are"),
        ({"query": "x", "k": 101}, "k"),
        ({"query": "x", "k": "many"}, "k"),
        ({"query": "x", "top": 1}, "top"),
        ([1], "body"),
    ],
    ids=str,
)
def test_bad_bodies(body, named):
    response = post(body)
    assert response.status_code == 422
    assert response.json()["error"]["code"] == "invalid" and named in response.json()["error"]["message"]


def test_a_body_that_is_not_json():
    assert post(content=b"\xff{", headers={"content-type": "application/json"}).status_code in {400, 422}


def test_large_bodies_with_and_without_a_length():
    async def endless():
        for _ in range(100):
            yield b" " * (limits.BYTES // 64)

    for content in (b" " * (limits.BYTES + 1), endless()):
        response = post(content=content)
        assert (response.status_code, response.json()["error"]["code"]) == (413, "large")


def test_slow_bodies(monkeypatch):
    monkeypatch.setattr(limits, "SECONDS", 0.05)

    async def slow():
        yield b"{"
        await asyncio.sleep(1)
        yield b"}"

    assert post(content=slow()).status_code == 408


def test_health_and_readiness():
    async def scenario():
        opened = asyncio.Event()

        @contextlib.asynccontextmanager
        async def opening():
            await opened.wait()
            yield Fixed()

        ready = asyncio.Event()
        app = app_of(opening, ready.set, lambda error: None)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http,
        ):
            before = [(await http.get("/health")).status_code, (await http.get("/ready")).status_code]
            early = await http.post("/rag", json={"query": "x"})
            opened.set()
            await asyncio.wait_for(ready.wait(), 5)
            return before, early, await http.get("/ready")

    before, early, after = asyncio.run(scenario())
    assert before == [200, 503] and early.status_code == 503 and "retry-after" in early.headers
    assert after.status_code == 200 and after.json() == {
        "status": "ready",
        "running": 0,
        "instance": 0,
        "instances": 1,
        "model": "none",
        "embedder": "none",
        "chunks": 50,
    }


def test_a_failure_to_load_is_reported():
    @contextlib.asynccontextmanager
    async def opening():
        raise RuntimeError("no model")
        yield

    async def scenario():
        async with client(opening) as (http, _, failures):
            return failures, (await http.get("/ready")).status_code

    failures, status = asyncio.run(scenario())
    assert [str(error) for error in failures] == ["no model"] and status == 503


def test_a_client_that_leaves_ends_its_request():
    """By hand over ASGI: the body, then the disconnect."""

    async def scenario():
        async with client() as (http, engine, _):
            app = http._transport.app
            messages = [{"type": "http.request", "body": b'{"query": "never"}', "more_body": False}, {"type": "http.disconnect"}]

            async def receive():
                return messages.pop(0) if messages else await asyncio.Event().wait()

            async def send(message):
                pass

            scope = {"type": "http", "method": "POST", "path": "/rag", "raw_path": b"/rag", "query_string": b"", "http_version": "1.1"}
            scope |= {"headers": [(b"content-type", b"application/json")], "scheme": "http", "server": ("test", 80), "client": ("c", 1)}
            await asyncio.wait_for(app(scope, receive, send), 5)
            return engine.cancelled.is_set()

    assert asyncio.run(scenario())
