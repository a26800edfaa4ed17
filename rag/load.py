"""An open-loop load: requests leave at scheduled times whatever became of those before, and latency counts from the schedule.

Nothing is retried, connections are not capped, and what was rejected, timed out or failed stays in the records. The
generator also measures itself: how late it sent, and whether what it saw agrees with Little's law.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

NAN = float("nan")
SAMPLE_S = 0.005


@dataclass
class Outcome:
    """What became of one request; times in seconds from the start of the load. `body` is the answer's JSON, empty without one.

    status: "ok", "rejected" (429), "timeout" (504, or no answer by the deadline) or "error"; http: 0 where nothing was answered.
    """

    scheduled_s: float
    sent_s: float = NAN
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
    def little_ratio(self) -> float:
        """Sampled mean in flight over throughput times mean time in the system: 1 where no request was lost from sight."""
        spent = sum(outcome.end_s - outcome.sent_s for outcome in self.outcomes)
        return self.in_flight * self.seconds / spent if spent else NAN

    @property
    def lag_p99_ms(self) -> float:
        """99th percentile of how late the generator sent its requests."""
        return float(np.percentile([outcome.sent_s - outcome.scheduled_s for outcome in self.outcomes], 99) * 1e3)


async def offer(url: str, times: Sequence[float], bodies: Sequence[Mapping[str, Any]], deadline_s: float, client: Any = None) -> Measured:
    """POST `bodies[i]` to `url` at `times[i]`; each request is given up `deadline_s` after its scheduled time.

    `client` is an httpx.AsyncClient; without one, one without limits or time-outs of its own is made.
    """
    import httpx

    if client is None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx.AsyncClient(limits=limits, timeout=None, trust_env=False) as own:
            return await offer(url, times, bodies, deadline_s, own)
    outcomes = [Outcome(at) for at in times]
    flight = _Flight()
    start = time.monotonic()
    sampler = asyncio.create_task(flight.sample())
    try:
        async with asyncio.TaskGroup() as sends:
            for outcome, body in zip(outcomes, bodies, strict=True):
                await asyncio.sleep(max(0.0, start + outcome.scheduled_s - time.monotonic()))
                sends.create_task(_send(client, url, body, outcome, start, deadline_s, flight))
    finally:
        sampler.cancel()
    return Measured(outcomes, *flight.mean())


async def _send(client: Any, url: str, body: Mapping[str, Any], outcome: Outcome, start: float, deadline_s: float, flight: _Flight) -> None:
    import httpx

    outcome.sent_s = time.monotonic() - start
    flight.number += 1
    try:
        async with asyncio.timeout(start + outcome.scheduled_s + deadline_s - time.monotonic()):
            response = await client.post(url, json=body)
            outcome.http = response.status_code
            outcome.status = {200: "ok", 429: "rejected", 504: "timeout"}.get(response.status_code, "error")
            outcome.body = response.json() if response.status_code == 200 else {}
            outcome.reason = "" if response.status_code == 200 else response.text[:200]
    except TimeoutError:
        outcome.status, outcome.reason = "timeout", f"no answer {deadline_s:g} s after the scheduled time"
    except (httpx.HTTPError, ValueError) as error:
        outcome.status, outcome.reason = "error", f"{type(error).__name__}: {error}"[:200]
    finally:
        flight.number -= 1
        outcome.end_s = time.monotonic() - start


class _Flight:
    """The number of requests in flight, and its mean over time by sampling, which knows nothing of the requests' own times."""

    def __init__(self) -> None:
        self.number = 0
        self._area = 0.0
        self._start = self._last = time.monotonic()

    async def sample(self) -> None:
        while True:
            before = self.number
            await asyncio.sleep(SAMPLE_S)
            self._add((before + self.number) / 2)

    def mean(self) -> tuple[float, float]:
        """The mean number in flight and the seconds it was sampled over."""
        self._add(self.number)
        seconds = self._last - self._start
        return self._area / seconds, seconds

    def _add(self, number: float) -> None:
        now = time.monotonic()
        self._area += number * (now - self._last)
        self._last = now
