"""The HTTP side that every arm shares: routes, limits on what a request may be, and errors as clear JSON.

POST /rag {"query": text, "k": number} answers {"query", "result", "retrieved", "tokens_in", "tokens_out", "batch", "stages"}; the
routes below /v1 are OpenAI's (see `rag.openai_api`).
429 (with Retry-After): the queue is full; 504: the deadline passed; 422: bad input; 413: too large; 503: not ready yet.
GET /health answers while the process lives, /ready with 200 once the models are loaded.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Annotated

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.exceptions import HTTPException

from rag import openai_api
from rag.answering import Loading, answered, engine_of, loading
from rag.engine import Engine, Served
from rag.errors import error
from rag.limits import BodyLimit
from rag.pipeline import Ask


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
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Loading, loading)
    app.get("/health")(_health)
    app.get("/ready")(_ready)
    app.post("/rag")(_rag)
    app.include_router(openai_api.router)
    return app


async def _health() -> dict[str, str]:
    return {"status": "ok"}


async def _ready(request: Request) -> Response:
    engine = engine_of(request)
    return JSONResponse({"status": "ready", "running": engine.running, **engine.facts})


async def _rag(request: Request, query: Query) -> Response:
    engine = engine_of(request)

    def respond(served: Served) -> Response:
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

    return await answered(request, engine.ask(Ask(query.query, query.k)), respond)


async def _invalid(request: Request, failure: Exception) -> Response:
    assert isinstance(failure, RequestValidationError)
    first = failure.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return error(422, "invalid", f"{where}: {first['msg']}", param=".".join(str(part) for part in first["loc"][1:]) or None)


async def _refused(request: Request, failure: Exception) -> Response:
    """What the web framework itself refuses: an unknown path, a wrong method."""
    assert isinstance(failure, HTTPException)
    return error(failure.status_code, "refused", str(failure.detail), failure.headers)
