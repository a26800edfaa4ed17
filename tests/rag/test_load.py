"""The load goes out by the schedule whatever comes back, and its records and self-measurements are right."""

import asyncio
import contextlib
import math
import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn

from rag.load import offer


@contextlib.contextmanager
def served(app) -> Iterator[str]:
    """A real HTTP server around an ASGI application, in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = server.force_exit = True
            thread.join()


def echo(seconds: float = 0.0, statuses: tuple[int, ...] = (200,)):
    """An application that answers each body with itself after `seconds`, with the statuses in turns."""
    count = iter(range(10**9))

    async def app(scope, receive, send):
        body = (await receive())["body"]
        status = statuses[next(count) % len(statuses)]
        await asyncio.sleep(seconds)
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})

    return app


def run(app, times, deadline_s=5.0):
    with served(app) as url:
        return asyncio.run(offer(url, times, [{"number": number} for number in range(len(times))], deadline_s))


def test_requests_leave_on_schedule_while_earlier_ones_are_open():
    """An open loop: with 0.4 s an answer, a load of 0.2 s is all sent before the first answer is there."""
    times = [number / 100 for number in range(20)]
    measured = run(echo(seconds=0.4), times)
    outcomes = measured.outcomes
    assert [outcome.scheduled_s for outcome in outcomes] == times
    assert [outcome.body for outcome in outcomes] == [{"number": number} for number in range(len(times))]
    assert all(outcome.status == "ok" and outcome.http == 200 for outcome in outcomes)
    assert all(outcome.sent_s >= outcome.scheduled_s and outcome.end_s - outcome.sent_s >= 0.4 for outcome in outcomes)
    assert min(outcome.end_s for outcome in outcomes) > max(outcome.sent_s for outcome in outcomes)
    assert measured.lag_p99_ms >= 0
    assert measured.little_ratio == pytest.approx(1, abs=0.1)
    assert measured.in_flight > 3


def test_what_the_service_says_stays_in_the_records():
    measured = run(echo(statuses=(200, 429, 504, 500)), [0.01 * number for number in range(8)])
    called = {200: "ok", 429: "rejected", 504: "timeout", 500: "error"}
    assert sorted(outcome.http for outcome in measured.outcomes) == sorted([*called] * 2)  # on a busy machine not as they were sent
    assert all(outcome.status == called[outcome.http] for outcome in measured.outcomes)


def test_the_deadline_counts_from_the_schedule():
    measured = run(echo(seconds=3), [0.0, 0.1], deadline_s=0.3)
    assert [outcome.status for outcome in measured.outcomes] == ["timeout", "timeout"]
    for outcome in measured.outcomes:
        assert outcome.http == 0 and outcome.end_s - outcome.scheduled_s == pytest.approx(0.3, abs=0.2)


def test_a_service_that_is_not_there_is_an_error_of_every_request():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    measured = asyncio.run(offer(url, [0.0, 0.05], [{}, {}], 2))
    assert [outcome.status for outcome in measured.outcomes] == ["error", "error"]
    assert all("ConnectError" in outcome.reason and not math.isnan(outcome.end_s) for outcome in measured.outcomes)
