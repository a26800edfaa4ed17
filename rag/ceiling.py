"""What the load generator can send at most, against a server that does nothing: above half of that its own delays are in the figures.

The ceiling is that of a closed loop over a few connections, with answers of an ordinary size, plain or streamed a word at a time; the
server's own limit is in it too, so that it is a lower bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

from rag.load import DONE, received, session
from rag.senders import Senders

SECONDS = 1.0
CONNECTIONS = 16
QUERY = {"query": "How do I use raw decode for extraneous, trailing, begins?", "k": 3}
ANSWER: dict[str, Any] = {
    **QUERY,
    "result": "word " * 50,
    "retrieved": [f"json.decoder.JSONDecoder.raw_decode#{number}" for number in range(3)],
    "tokens_in": 64,
    "tokens_out": 50,
    "batch": 1,
    "stages": {"queue_ms": 0.0, "embed_ms": 0.0, "retrieve_ms": 0.0, "generate_ms": 0.0},
}


def ceiling(senders: Senders, seconds: float = SECONDS, stream: bool = False) -> float:
    """Requests a second that `senders` send and get answered together; with `stream` answers are server-sent events."""
    with answering() as url:
        counts = senders.run([functools.partial(_saturated, url, seconds, stream)] * senders.number)
    return sum(counts) / seconds


@contextlib.contextmanager
def answering() -> Iterator[str]:
    """The address of a server in a process of its own that gives every request the same answer at once."""
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe()
    process = context.Process(target=_serve, args=(its,), daemon=True)
    process.start()
    its.close()
    with mine:
        yield f"http://127.0.0.1:{mine.recv()}"
    process.join()


def _saturated(url: str, seconds: float, stream: bool, start: float) -> int:
    """Requests answered in so many seconds, with `CONNECTIONS` that each send the next once they have an answer."""
    body = {**QUERY, "stream": True} if stream else QUERY

    async def all_connections() -> int:
        async with session() as client:

            async def one() -> int:
                count = 0
                while time.monotonic() < start + seconds:
                    async with client.post(url, json=body) as response:
                        await received(response, stream)
                    count += 1
                return count

            return sum(await asyncio.gather(*(one() for _ in range(CONNECTIONS))))

    return asyncio.run(all_connections())


def _events() -> list[bytes]:
    """`ANSWER` as a stream: the pieces that are written one by one, each a chunk of HTTP/1.1, the header first."""

    def event(text: str) -> bytes:
        data = f"data: {text}\n\n".encode()
        return b"%x\r\n%s\r\n" % (len(data), data)

    about = {"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 0, "model": "none"}
    words = [{"choices": [{"index": 0, "delta": {"content": f"{word} "}}]} for word in ANSWER["result"].split()]
    said = {"choices": [], **{name: ANSWER[name] for name in ("retrieved", "batch", "stages")}}
    usage = {"choices": [], "usage": {"prompt_tokens": ANSWER["tokens_in"], "completion_tokens": ANSWER["tokens_out"]}}
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return [head, *(event(json.dumps({**about, **each})) for each in (*words, said, usage)), event(DONE) + b"0\r\n\r\n"]


class _Same(asyncio.Protocol):
    """As little of HTTP/1.1 as answers requests that have a Content-Length, those for a stream with one."""

    body = json.dumps(ANSWER).encode()
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    events = _events()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.received = transport, b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            head = self.received[:end].lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
            if len(self.received) < end + 4 + length:
                return
            asked, self.received = self.received[end + 4 : end + 4 + length], self.received[end + 4 + length :]
            for piece in self.events if b'"stream": true' in asked else [self.answer]:
                self.transport.write(piece)


def _serve(pipe: Connection) -> None:
    """Serve until the other end of `pipe` closes, which it does however its process ends."""

    async def until_closed() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(_Same, "127.0.0.1", 0)
        closed = asyncio.Event()
        loop.add_reader(pipe.fileno(), closed.set)
        pipe.send(server.sockets[0].getsockname()[1])
        await closed.wait()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(until_closed())
