"""A bound on the size of a request's body and on the time it may take to arrive, before anything parses it."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rag.errors import error

BYTES = 1 << 20
SECONDS = 10.0
CLOSE = {"Connection": "close"}


class BodyLimit:
    """ASGI middleware: reads the whole body first; 413 for one above `BYTES`, 408 for one that takes above `SECONDS`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        try:
            async with asyncio.timeout(SECONDS):
                body = await _read(receive)
        except TimeoutError:
            return await error(408, "slow", f"the body took more than {SECONDS:g} s", CLOSE)(scope, receive, send)
        except _TooLarge:
            return await error(413, "large", f"the body has more than {BYTES} bytes", CLOSE)(scope, receive, send)
        if body is not None:
            await self.app(scope, _replay(body, receive), send)


class _TooLarge(Exception):
    pass


async def _read(receive: Receive) -> bytes | None:
    """The body; None where the client left in the middle of it."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > BYTES:
            raise _TooLarge
        if not message.get("more_body", False):
            return body


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body at once, and then whatever comes after it (the disconnect)."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed
