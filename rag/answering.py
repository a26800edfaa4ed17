"""What every route does around an ask: nobody to answer yet, nobody left to answer, and the ways in which an ask fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from fastapi import Request
from starlette.responses import Response

from rag.batcher import Expired, Rejected
from rag.engine import Engine
from rag.errors import error

T = TypeVar("T")
log = logging.getLogger("rag")


class Loading(Exception):
    """The models are not there yet."""


def engine_of(request: Request) -> Engine:
    """The engine that answers. Raises Loading where there is none yet."""
    engine: Engine | None = request.app.state.engine
    if engine is None:
        raise Loading
    return engine


async def loading(request: Request, failure: Exception) -> Response:
    """The answer to whoever raised Loading."""
    return error(503, "loading", "the models are being loaded", {"Retry-After": "1"})


def refusal(failure: BaseException) -> Response:
    """The answer for an ask that failed. What the service is to blame for goes to its log, not to the client."""
    if isinstance(failure, Rejected):
        return error(429, "rejected", str(failure), {"Retry-After": "1"})
    if isinstance(failure, Expired):
        return error(504, "timeout", str(failure))
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
        return refusal(failure) if failure else respond(answer.result())
    finally:
        gone.cancel()
        answer.cancel()
        await asyncio.wait({answer, gone})


async def disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
