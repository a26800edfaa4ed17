"""Real HTTP servers around small applications, in a thread of the test's process."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn


@contextlib.contextmanager
def served(app: Any) -> Iterator[str]:
    """The address of a server around an ASGI application, which may end it by `app.end()`."""

    def end() -> None:
        server.should_exit = server.force_exit = True

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        app.end = end
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            end()
            thread.join()


def echo(seconds: float = 0.0, statuses: tuple[int, ...] = (200,)) -> Any:
    """An application that answers each body with itself after `seconds`, with the statuses in turns."""
    turns = itertools.cycle(statuses)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        status = next(turns)
        await asyncio.sleep(seconds)
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})

    return app


def said(*pieces: bytes, last: float = 0.0) -> Any:
    """An application that answers every request with a stream of these pieces, the last of them `last` seconds after the others."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for number, piece in enumerate(pieces):
            if number == len(pieces) - 1:
                await asyncio.sleep(last)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return app
