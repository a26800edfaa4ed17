"""An open-loop load: requests leave at scheduled times whatever became of those before, and latency counts from the schedule.

Nothing is retried, connections are not capped, and what was rejected, timed out or failed stays in the records. The
generator also measures itself: how late it sent, and whether what it saw agrees with Little's law.
"""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

NAN = float("nan")
SAMPLE_S = 0.005
KEPT_S = 4.0
"""How long an unused connection is kept: less than servers do (uvicorn 5 s), so that none is closed while a request goes out on it."""
DONE = "[DONE]"
Line = tuple[float, bytes]
"""A line of a streamed answer with the time when it came, or a whole answer."""


@dataclass
class Outcome:
    """What became of one request; times in seconds from the start of the load. `body` is the answer's JSON, empty without one.

    status: "ok", "rejected" (429), "timeout" (504, or no answer by the deadline) or "error"; http: 0 where nothing was answered.
    first_token_s: when the first text of a streamed answer came.
    """

    scheduled_s: float
    sent_s: float = NAN
    first_token_s: float = NAN
    end_s: float = NAN
    status: str = "error"
    http: int = 0
    reason: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """All outcomes of a load, in the order of the schedule, and the mean number of requests in flight, sampled while it ran."""

    outcomes: list[Outcome]
    in_flight: float
    seconds: float

    @property
    def expected(self) -> float:
        """The mean number in flight by Little's law: throughput times mean time in the system."""
        return sum(outcome.end_s - outcome.sent_s for outcome in self.outcomes) / self.seconds

    @property
    def little_ratio(self) -> float:
        """Sampled over expected number in flight: 1 where no request was lost from sight."""
        return self.in_flight / self.expected

    @property
    def lag_p99_ms(self) -> float:
        """99th percentile of how late the generator sent its requests."""
        return float(np.percentile([outcome.sent_s - outcome.scheduled_s for outcome in self.outcomes], 99) * 1e3)


def session() -> ClientSession:
    """A client without limits, time-outs or retries of its own."""
    import aiohttp

    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT_S)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None), cookie_jar=aiohttp.DummyCookieJar())


async def offer(
    url: str,
    times: Sequence[float],
    bodies: Sequence[Mapping[str, Any]],
    deadline_s: float,
    stream: bool = False,
    start: float | None = None,
) -> Measured:
    """POST `bodies[i]` to `url` at `times[i]`, counted from `start` on the monotonic clock (without one, from now).

    Each request is given up `deadline_s` after its scheduled time. With `stream` answers are server-sent events as OpenAI's.
    """
    outcomes, answers = [Outcome(at) for at in times], [list[Line]() for _ in times]
    async with session() as client:
        load = _Load(client, url, deadline_s, stream, time.monotonic() if start is None else start)
        await _until(load.start)
        with _Flight() as flight:

            async def send(number: int) -> None:
                answers[number] = await _sent(load, bodies[number], outcomes[number], flight)

            async with asyncio.TaskGroup() as sends:
                for number, outcome in enumerate(outcomes):
                    await _until(load.start + outcome.scheduled_s)
                    sends.create_task(send(number))
    for outcome, answer in zip(outcomes, answers, strict=True):  # the load is over: this delays no request
        _read(outcome, answer, stream)
    return Measured(outcomes, flight.mean, flight.seconds)


@dataclass(frozen=True)
class _Load:
    client: ClientSession
    url: str
    deadline_s: float
    stream: bool
    start: float


async def _until(at: float) -> None:
    await asyncio.sleep(max(0.0, at - time.monotonic()))


async def _sent(load: _Load, body: Mapping[str, Any], outcome: Outcome, flight: _Flight) -> list[Line]:
    """What was answered to a request that leaves now."""
    from aiohttp import ClientError

    outcome.sent_s = time.monotonic() - load.start
    flight.number += 1
    try:
        async with (
            asyncio.timeout_at(load.start + outcome.scheduled_s + load.deadline_s),
            load.client.post(load.url, json=body) as response,
        ):
            outcome.http = response.status
            return await received(response, load.stream, load.start)
    except TimeoutError:
        outcome.status, outcome.reason = "timeout", f"no answer {load.deadline_s:g} s after the scheduled time"
    except (ClientError, OSError, ValueError) as error:  # ValueError: a line of a stream that has no end
        outcome.status, outcome.reason = "error", f"{type(error).__name__}: {error}"[:200]
    finally:
        flight.number -= 1
        outcome.end_s = time.monotonic() - load.start
    return []


async def received(response: ClientResponse, stream: bool, start: float = 0.0) -> list[Line]:
    """An answer as it comes: line by line where it is a stream, with times from `start`, else at once."""
    if stream:
        return [(time.monotonic() - start, line) async for line in response.content]
    return [(NAN, await response.read())]


def _read(outcome: Outcome, answer: Sequence[Line], stream: bool) -> None:
    """Complete an outcome by what was answered, if anything was."""
    if outcome.reason:
        return
    outcome.status = {200: "ok", 429: "rejected", 504: "timeout"}.get(outcome.http, "error")
    content = b"".join(line for _, line in answer)
    if outcome.http != 200:
        outcome.reason = content.decode(errors="replace")[:200]
        return
    try:
        outcome.body = _joined(outcome, answer) if stream else dict(json.loads(content))
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # what no service of ours answers
        outcome.status, outcome.reason = "error", f"{type(error).__name__}: {error}"[:200]


def _joined(outcome: Outcome, answer: Sequence[Line]) -> dict[str, Any]:
    """What the events of a stream say together, with the plain answer's names for it; the time of the first text goes into `outcome`.

    Raises ValueError for a stream that failed or ended early, and whatever reading raises for what is no stream.
    """
    found: dict[str, Any] = {}
    over = False
    for at, line in answer:
        text = line.decode().strip().removeprefix("data: ")
        over = over or text == DONE
        event = json.loads(text) if text and not over else {}
        if "error" in event:
            raise ValueError(event["error"]["message"])
        if math.isnan(outcome.first_token_s) and any(choice["delta"].get("content") for choice in event.get("choices", ())):
            outcome.first_token_s = at
        found |= {name: event[name] for name in ("retrieved", "batch", "stages") if name in event}
        if usage := event.get("usage"):
            found |= {"tokens_in": usage["prompt_tokens"], "tokens_out": usage["completion_tokens"]}
    if not over:
        raise ValueError("the stream ended before its end")
    return found


class _Flight:
    """The number of requests in flight, and its mean over time by sampling, which knows nothing of the requests' own times.

    A thread takes the samples: the event loop itself would look only when it has nothing to do for a request.
    """

    def __init__(self) -> None:
        self.number = 0
        self._area = 0.0
        self._start = self._last = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> _Flight:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        """How long it was sampled."""
        return self._last - self._start

    @property
    def mean(self) -> float:
        return self._area / self.seconds

    def _sample(self) -> None:
        over = False
        while not over:
            over = self._over.wait(SAMPLE_S)
            now = time.monotonic()
            self._area += self.number * (now - self._last)
            self._last = now
