"""The HTTP side that every arm shares: routes, limits on what a request may be, and errors as clear JSON.

POST /rag {"query": text, "k": number} answers {"query", "result", "retrieved", "tokens_in", "tokens_out", "batch", "stages"}.
429 (with Retry-After): the queue is full; 504: the deadline passed; 422: bad input; 413: too large; 503: not ready yet.
GET /health answers while the process lives, /ready with 200 once the models are loaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from rag.batcher import Expired, Rejected
from rag.limits import BodyLimit
from rag.pipeline import Answer, Ask

log = logging.getLogger("rag")


@dataclass(frozen=True)
class Served:
    """An answer, how long its request waited for the models, and how many requests it was answered with."""

    answer: Answer
    queue_ms: float
    batch: int


class Engine(Protocol):
    """What an arm is: it answers one ask, however it arranges that. `running` counts the asks that it has not finished."""

    facts: dict[str, Any]

    @property
    def running(self) -> int: ...

    async def ask(self, ask: Ask) -> Served: ...


class Query(BaseModel):
    """The body of POST /rag, the course's: a query, and the number of chunks to answer it from."""

    model_config = ConfigDict(extra="forbid")
    query: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4000)]
    k: Annotated[int, Field(ge=1, le=100)] = 2


Opening = Callable[[], AbstractAsyncContextManager[Engine]]


def application(opening: Opening, on_ready: Callable[[], None], on_failure: Callable[[BaseException], None]) -> FastAPI:
    """The web application around the engine that `opening` opens in the background once the application starts."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        end = asyncio.Event()

        async def hold() -> None:
            try:
                async with opening() as engine:
                    app.state.engine = engine
                    on_ready()
                    await end.wait()
                    app.state.engine = None
            except Exception as error:
                on_failure(error)

        holder = asyncio.create_task(hold())
        yield
        end.set()
        await holder

    app = FastAPI(title="Blockwise RAG", lifespan=lifespan)
    app.state.engine = None
    app.add_middleware(BodyLimit)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.get("/health")(_health)
    app.get("/ready")(_ready)
    app.post("/rag")(_rag)
    return app


async def _health() -> dict[str, str]:
    return {"status": "ok"}


async def _ready(request: Request) -> Response:
    engine: Engine | None = request.app.state.engine
    if engine is None:
        return _error(503, "loading", "the models are being loaded", {"Retry-After": "1"})
    return JSONResponse({"status": "ready", "running": engine.running, **engine.facts})


async def _rag(request: Request, query: Query) -> Response:
    engine: Engine | None = request.app.state.engine
    if engine is None:
        return _error(503, "loading", "the models are being loaded", {"Retry-After": "1"})
    try:
        served = await _unless_gone(request, engine.ask(Ask(query.query, query.k)))
    except Rejected as error:
        return _error(429, "rejected", str(error), {"Retry-After": "1"})
    except Expired as error:
        return _error(504, "timeout", str(error))
    except Exception:
        log.exception("a request failed")
        return _error(500, "failed", "the request could not be answered; the service's log says why")
    if served is None:
        return Response(status_code=499)  # nobody is there to read it
    answer = served.answer
    return JSONResponse(
        {
            "query": query.query,
            "result": answer.result,
            "retrieved": answer.retrieved,
            "tokens_in": answer.tokens_in,
            "tokens_out": answer.tokens_out,
            "batch": served.batch,
            "stages": {"queue_ms": served.queue_ms, **answer.stages},
        }
    )


async def _unless_gone(request: Request, asking: Any) -> Served | None:
    """What `asking` gives, or None, and `asking` cancelled, once the client has closed the connection."""
    answer = asyncio.ensure_future(asking)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        return answer.result() if answer.done() else None
    finally:
        gone.cancel()
        answer.cancel()
        await asyncio.wait({answer, gone})


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return _error(422, "invalid", f"{'.'.join(map(str, first['loc']))}: {first['msg']}")


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": message}}, status, headers)
