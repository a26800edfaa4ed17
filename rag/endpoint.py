"""The generator `openai`: any endpoint with OpenAI's /chat/completions. Requests go there as they come: it does its own batching."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from analysis.cli import BadInput
from rag.batcher import Done, Ended, Expired, Pace, Ran
from rag.generate import Generated, Sink
from rag.pipeline import Answer, Found

BYTES = 1 << 22
"""Of an answer at most, streamed or whole."""
CONNECT_S = 5.0
HOUR_S = 3600.0
_STATUS = {429: 429, 408: 504, 504: 504}

log = logging.getLogger("rag")


class Upstream(Exception):
    """The endpoint did not answer as it should; `status` is what this service answers for it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Remote:
    """A model behind an endpoint. Greedy, `new_tokens` tokens at most; a prompt goes as it is, its length is the endpoint's to limit."""

    url: str
    name: str
    new_tokens: int
    key: str = field(default="", repr=False)
    weights: str = "endpoint"

    def generate(self, prompts: Sequence[str], sinks: Sequence[Sink | None] = ()) -> list[Generated]:
        """The continuations of `prompts`, for whoever has a thread to wait in."""

        async def together() -> list[Generated]:
            async with Session(self) as session:
                padded = [*sinks, *[None] * (len(prompts) - len(sinks))]
                return await asyncio.gather(*map(session.generate, prompts, padded))

        return asyncio.run(together())

    def length(self, prompt: str) -> int:
        """Not known here."""
        return 0


def remote(settings: Mapping[str, Any], where: str) -> Remote:
    """The endpoint that `settings` name. Raises BadInput where the variable with its key is not set."""
    variable = settings.get("key_env")
    if variable and not os.environ.get(variable):
        raise BadInput(f"{where}.key_env: the environment variable {variable!r} is not set; it has to hold the endpoint's key")
    return Remote(settings["endpoint"].rstrip("/"), settings["model"], settings["new_tokens"], os.environ[variable] if variable else "")


class Session:
    """Connections to an endpoint; an async context manager."""

    def __init__(self, remote: Remote) -> None:
        self.remote = remote

    async def __aenter__(self) -> Session:
        headers = {"Authorization": f"Bearer {self.remote.key}"} if self.remote.key else {}
        timeout = aiohttp.ClientTimeout(total=HOUR_S, sock_connect=CONNECT_S)
        connector, cookies = aiohttp.TCPConnector(limit=0), aiohttp.DummyCookieJar()
        self._http = aiohttp.ClientSession(connector=connector, cookie_jar=cookies, headers=headers, timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def generate(self, prompt: str, sink: Sink | None = None) -> Generated:
        """The continuation of `prompt`, whose pieces go to `sink` as they come. Raises Upstream."""
        body: dict[str, Any] = {
            "model": self.remote.name,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": self.remote.new_tokens,
            "temperature": 0,
        }
        if sink is not None:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        try:
            async with self._http.post(f"{self.remote.url}/chat/completions", json=body, allow_redirects=False) as response:
                if response.status != 200:
                    raise self._refused(response.status, await _whole(response))
                return await (self._streamed(response, sink) if sink else self._complete(response))
        except (aiohttp.ServerTimeoutError, TimeoutError):
            raise Upstream(504, f"{self.remote.url} does not answer") from None
        except aiohttp.ClientError as error:
            raise Upstream(502, f"{self.remote.url}: {type(error).__name__}") from error

    async def _complete(self, response: aiohttp.ClientResponse) -> Generated:
        data = await _whole(response)
        body = self._parsed(data)
        text = _text(body, "message")
        if text is None:
            raise self._refused(200, data)
        return Generated(text, *_usage(body))

    async def _streamed(self, response: aiohttp.ClientResponse, sink: Sink) -> Generated:
        pieces, usage = list[str](), (0, 0)
        async for data in _events(response):
            if data == b"[DONE]":
                return Generated("".join(pieces), *usage)
            body = self._parsed(data)
            usage = _usage(body) if body.get("usage") else usage
            if piece := _text(body, "delta"):
                pieces.append(piece)
                sink(piece)
        raise Upstream(502, f"{self.remote.url} ended in the middle of an answer")

    def _parsed(self, data: bytes) -> dict[str, Any]:
        try:
            body = json.loads(data)
        except ValueError:
            body = None
        if not isinstance(body, dict) or "error" in body or not isinstance(body.get("choices"), list):
            raise self._refused(200, data)
        return body

    def _refused(self, status: int, said: bytes) -> Upstream:
        """The exception for an answer that is none. What the endpoint said goes to the log alone, and never with the key."""
        text = said[:500].decode(errors="replace")
        log.error("%s answered %d: %s", self.remote.url, status, text.replace(self.remote.key, "(key)") if self.remote.key else text)
        return Upstream(_STATUS.get(status, 502), f"{self.remote.url} answered {status}{' without an answer' if status == 200 else ''}")


class Endpoint:
    """The stage that writes answers at a remote model, in a batcher's place: `most` requests are there at once, each by itself."""

    def __init__(self, remote: Remote, most: int, name: str = "write") -> None:
        self.name, self._session, self._most, self._places = name, Session(remote), most, asyncio.Semaphore(most)
        self._pace = Pace()
        self.watchers: list[Callable[[Ran], None]] = []
        self.waiting = self.running = self.restarts = 0
        self._open = False

    async def __aenter__(self) -> Endpoint:
        await self._session.__aenter__()
        self._open = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self._open = False
        await self._session.__aexit__()

    def expected(self, ahead: int, seconds: float) -> float:
        """Seconds until the answer of a request that comes in `seconds` behind `ahead` others, by the pace of the last ones."""
        each = self._pace.seconds(1)
        return max(seconds, (ahead + self.running) // self._most * each) + each

    async def submit(self, found: Found, seconds: float | None = None) -> Done[Answer]:
        """The answer from the prompt that was `found`, within `seconds`. Raises Expired, Ended and Upstream."""
        now = asyncio.get_running_loop().time
        arrived = now()
        try:
            async with asyncio.timeout(seconds) as limit, self._place():
                if not self._open:
                    raise Ended("the service ends")
                started = now()
                text = await self._session.generate(found.prompt, found.sink)
        except TimeoutError:
            if limit.expired():
                raise Expired(f"no answer within {seconds:g} s") from None
            raise
        except Upstream:
            if not self._open:
                raise Ended("the service ends") from None
            raise
        took = now() - started
        self._pace.took(1, took)
        answer = Answer(text.text, found.chunks, text.tokens_in, text.tokens_out, {**found.stages, "generate_ms": took * 1e3})
        for watcher in self.watchers:
            watcher(Ran(1, took, [answer], None))
        return Done(answer, (started - arrived) * 1e3, 1)

    @contextlib.asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        self.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._places.release()


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    data = b""
    async for piece in response.content.iter_any():
        data += piece
        if len(data) > BYTES:
            raise Upstream(502, f"the endpoint's answer has more than {BYTES} bytes")
    return data


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """What a stream of server-sent events carries."""
    line, total = b"", 0
    async for piece in response.content.iter_any():
        total += len(piece)
        if total > BYTES:
            raise Upstream(502, f"the endpoint's answer has more than {BYTES} bytes")
        *lines, line = (line + piece).split(b"\n")
        for whole in lines:
            if whole.startswith(b"data:"):
                yield whole.removeprefix(b"data:").strip()


def _text(body: Mapping[str, Any], part: str) -> str | None:
    """The text of the first choice's message or delta, empty where it has none (as after a filter); None where there is no such part."""
    choice = body["choices"][0] if body["choices"] else None
    said = choice.get(part) if isinstance(choice, dict) else None
    if not isinstance(said, dict):
        return None
    text = said.get("content")
    return text if isinstance(text, str) else ""


def _usage(body: Mapping[str, Any]) -> tuple[int, int]:
    usage = body.get("usage")
    counts = [usage.get(name) if isinstance(usage, dict) else 0 for name in ("prompt_tokens", "completion_tokens")]
    sent, written = [count if isinstance(count, int) and count >= 0 else 0 for count in counts]
    return sent, written
