"""What every route does around an ask: nobody to answer (yet, or any more), nobody left to answer, and the ways in which an ask fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from fastapi import Request
from starlette.responses import Response

from rag.batcher import Ended, Expired, Lost, Rejected
from rag.endpoint import Upstream
from rag.engine import Engine
from rag.errors import error
from rag.worker import Crashed

T = TypeVar("T")
AGAIN = {"Retry-After": "1"}
log = logging.getLogger("rag")


class Loading(Exception):
    """The models are not there yet."""


class Draining(Exception):
    """The service ends."""


def engine_of(request: Request) -> Engine:
    """The engine that answers. Raises Loading where there is none yet, Draining where there will be none any more."""
    if request.app.state.drain.begun:
        raise Draining
    engine: Engine | None = request.app.state.engine
    if engine is None:
        raise Loading
    return engine


async def unready(request: Request, failure: Exception) -> Response:
    """The answer to whoever raised Loading or Draining."""
    if isinstance(failure, Draining):
        return _ending()
    return error(503, "loading", "the models are being loaded", AGAIN)


def _ending() -> Response:
    return error(503, "draining", "the service ends; ask another one", {**AGAIN, "Connection": "close"})


def too_many(engine: Engine, k: int) -> Response | None:
    """The answer for a `k` above the number of chunks that there are."""
    chunks = engine.facts["chunks"]
    return error(422, "invalid", f"k: {k} chunks are asked for, and {chunks} are all there are", param="k") if k > chunks else None


def refusal(request: Request, failure: BaseException) -> Response:
    """The answer for an ask that failed. What the service is to blame for goes to its log, not to the client."""
    request.app.state.metrics.failed(failure)
    if isinstance(failure, Ended):
        return _ending()
    if isinstance(failure, Rejected):
        return error(429, "rejected", str(failure), AGAIN)
    if isinstance(failure, Expired):
        return error(504, "timeout", str(failure))
    if isinstance(failure, Crashed | Lost):  # which the stage or the process has logged, once for all requests
        return error(503, "restarting", "what the request was in broke and is being started anew", AGAIN)
    if isinstance(failure, Upstream):
        return error(failure.status, "upstream", str(failure), AGAIN if failure.status == 429 else None)
    log.error("a request failed", exc_info=failure)
    return error(500, "failed", "the request could not be answered; the service's log says why")


async def answered(request: Request, asking: Awaitable[T], respond: Callable[[T], Response]) -> Response:
    """The response to what `asking` gives, or to its failure; `asking` is cancelled once the client has closed the connection."""
    answer = asyncio.ensure_future(asking)
    gone = asyncio.ensure_future(disconnected(request))
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            return Response(status_code=499)  # nobody is there to read it
        failure = answer.exception()
        return refusal(request, failure) if failure else respond(answer.result())
    finally:
        gone.cancel()
        answer.cancel()
        await asyncio.wait({answer, gone})


async def disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
