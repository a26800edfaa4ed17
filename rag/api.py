"""The HTTP side that every arm shares: routes, limits on what a request may be, and errors as clear JSON.

POST /rag {"query": text, "k": number} answers {"query", "result", "retrieved", "tokens_in", "tokens_out", "batch", "stages"}; the
routes below /v1 are OpenAI's (see `rag.openai_api`).
429 (with Retry-After): the queue is full, or too much work waits; 504: the deadline passed; 422: bad input; 413: too large; 503: not
ready yet, or ending.
GET /health answers while the process lives, /ready with 200 once the models are loaded and until the service ends, /metrics with numbers
for Prometheus.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Annotated

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ConfigDict, StringConstraints
from starlette.exceptions import HTTPException

from rag import openai_api
from rag.answering import Draining, Loading, answered, engine_of, too_many, unready
from rag.drain import Drain
from rag.engine import Engine, Served
from rag.errors import error
from rag.limits import BodyLimit
from rag.metrics import Metrics, Watched
from rag.openapi import HEALTH, RAG, RAG_ANSWER, READY, answers, served
from rag.pipeline import Ask


class Query(BaseModel):
    """The body of POST /rag, the course's: a query, and the number of chunks to answer it from."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [RAG]})
    query: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=openai_api.TEXT, pattern=r"\S")]
    k: openai_api.Chunks = 2


Opening = Callable[[], AbstractAsyncContextManager[Engine]]


def application(
    opening: Opening,
    on_ready: Callable[[], None],
    on_failure: Callable[[BaseException], None],
    metrics: Metrics,
    drain: Drain,
    ready_first: bool = False,
) -> FastAPI:
    """The web application around the engine that `opening` opens in the background once the application starts.

    With `ready_first` it starts only once the engine is there. Setting `app.state.end` closes the engine: what it has in hand is refused.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        opened = asyncio.Event()

        async def hold() -> None:
            try:
                async with opening() as engine:
                    app.state.engine = engine
                    metrics.serves(engine.facts)
                    app.openapi_schema = served(app.openapi(), engine.facts)
                    on_ready()
                    opened.set()
                    await app.state.end.wait()
                    app.state.engine = None
            except Exception as error:
                on_failure(error)
            finally:
                opened.set()

        holder = asyncio.create_task(hold())
        if ready_first:
            await opened.wait()
        yield
        app.state.end.set()
        await holder

    app = FastAPI(title="Blockwise RAG", lifespan=lifespan)
    app.state.engine, app.state.metrics, app.state.drain, app.state.end = None, metrics, drain, asyncio.Event()
    app.add_middleware(BodyLimit)
    app.add_middleware(Watched, metrics=metrics, drain=drain)
    _route(app)
    return app


def _route(app: FastAPI) -> None:
    """Give `app` its routes, and its answers to what they raise."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Loading, unready)
    app.add_exception_handler(Draining, unready)
    app.get("/health", responses=answers(example=HEALTH))(health)
    app.get("/ready", responses=answers(503, example=READY))(ready)
    app.get("/metrics", response_class=PlainTextResponse, responses=answers(example="rag_in_flight 1.0\n", media="text/plain"))(
        metrics_text
    )
    app.post("/rag", responses=answers(400, 408, 413, 422, 429, 500, 502, 503, 504, example=RAG_ANSWER))(rag)
    app.include_router(openai_api.router)


async def health(request: Request) -> Response:
    """That the instance lives, which one it is, and how often what was started anew, over all instances."""
    state = request.app.state
    restarts = {"instances": state.metrics.board.restarts, "stages": state.metrics.board.stages}
    status = "draining" if state.drain.begun else "ok"
    return JSONResponse({"status": status, "instance": state.metrics.instance, "restarts": restarts})


async def ready(request: Request) -> Response:
    """That requests are answered, what by, and how many all instances of the service have in hand."""
    engine, metrics = engine_of(request), request.app.state.metrics
    about = {"running": metrics.board.running, "instance": metrics.instance, "instances": metrics.board.instances}
    return JSONResponse({"status": "ready", **about, **engine.facts})


async def metrics_text(request: Request) -> Response:
    """The numbers of the instance that answers, in Prometheus's text format."""
    return Response(request.app.state.metrics.text(), media_type=CONTENT_TYPE_LATEST)


async def rag(request: Request, query: Query) -> Response:
    """The answer to a query from the `k` chunks nearest to it."""
    engine = engine_of(request)
    if refused := too_many(engine, query.k):
        return refused

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
