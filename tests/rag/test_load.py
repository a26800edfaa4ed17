"""The load goes out by the schedule whatever comes back, and its records and self-measurements are right."""

from __future__ import annotations

import asyncio
import json
import math
import os
import socket
import time
from typing import Any

import pytest

from analysis.cli import BadInput
from rag.ceiling import ANSWER, _saturated, answering, ceiling
from rag.load import Measured, Outcome, offer
from rag.senders import senders

from .serving import echo, said, served


def run(app: Any, times: list[float], deadline_s: float = 5.0, stream: bool = False) -> Measured:
    with served(app) as url:
        return asyncio.run(offer(url, times, [{"number": number} for number in range(len(times))], deadline_s, stream))


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
    assert all(bool(outcome.reason) == (outcome.http != 200) for outcome in measured.outcomes)


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
    assert all("ClientConnectorError" in outcome.reason and not math.isnan(outcome.end_s) for outcome in measured.outcomes)


def test_an_answer_that_is_no_json_is_an_error():
    (outcome,) = run(said(b"<html>"), [0.0]).outcomes
    assert (outcome.status, outcome.http) == ("error", 200) and "JSONDecodeError" in outcome.reason


def event(content: str = "", **more: Any) -> bytes:
    return b"data: %s\n\n" % json.dumps({"choices": [{"delta": {"content": content}}], **more}).encode()


END = b"data: [DONE]\n\n"
STAGES = {"retrieved": ["a#0"], "batch": 3, "stages": {"queue_ms": 1.5}}
USAGE = {"usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}}


def test_a_streamed_answer_has_its_first_text_and_its_stages():
    pieces = event(), event("one"), event("two") + event(**STAGES) + event(**USAGE) + END
    (outcome,) = run(said(*pieces, last=0.3), [0.0], stream=True).outcomes
    assert outcome.status == "ok" and outcome.body == {**STAGES, "tokens_in": 7, "tokens_out": 2}
    assert outcome.sent_s < outcome.first_token_s < outcome.end_s - 0.2


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        pytest.param([event("one")], "the stream ended before its end", id="cut"),
        pytest.param([event("one"), b'data: {"error": {"message": "too slow"}}\n\n', END], "too slow", id="failed"),
        pytest.param([b"data: {1\n\n", END], "JSONDecodeError", id="no json"),
        pytest.param([b'data: {"choices": [3]}\n\n', END], "TypeError", id="other json"),
    ],
)
def test_a_stream_that_fails_is_an_error(pieces: list[bytes], reason: str):
    (outcome,) = run(said(*pieces), [0.0], stream=True).outcomes
    assert (outcome.status, outcome.http) == ("error", 200) and reason in outcome.reason
    assert not math.isnan(outcome.end_s)


def test_several_processes_send_one_schedule():
    times = [number / 50 for number in range(25)]
    bodies = [{"number": number} for number in range(len(times))]
    with served(echo(seconds=0.3)) as url, senders(3) as processes:
        measured = processes.offer(url, times, bodies, 5.0)
        again = processes.offer(url, times[:2], bodies[:2], 5.0)  # fewer requests than processes
    assert [outcome.scheduled_s for outcome in measured.outcomes] == times
    assert [outcome.body for outcome in measured.outcomes] == bodies
    assert all(outcome.sent_s >= outcome.scheduled_s for outcome in measured.outcomes)
    assert measured.in_flight == pytest.approx(measured.expected, abs=1) and measured.expected > 3
    assert [outcome.body for outcome in again.outcomes] == bodies[:2]


def die(start: float) -> None:
    os._exit(3)


def test_a_process_that_dies_ends_the_load():
    with senders(2) as processes, pytest.raises(BadInput, match="a process of the load generator was killed"):
        processes.run([die, die])


def test_the_ceiling_is_that_of_all_processes():
    with senders(1) as processes:
        assert ceiling(processes, 0.2) > 50
        with answering() as url:
            (outcome,) = processes.offer(url, [0.0], [{}], 5.0).outcomes
            (streamed,) = processes.offer(url, [0.0], [{"stream": True}], 5.0, stream=True).outcomes
    assert (outcome.status, outcome.body) == ("ok", ANSWER)
    assert streamed.status == "ok" and streamed.sent_s < streamed.first_token_s <= streamed.end_s
    assert streamed.body == {name: ANSWER[name] for name in ("retrieved", "batch", "stages", "tokens_in", "tokens_out")}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_a_ceiling_is_measured_with_the_answers_that_its_loads_ask_for(stream: bool):
    bodies = list[dict[str, Any]]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        bodies.append(json.loads((await receive())["body"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    with served(app) as url:
        assert _saturated(url, 0.1, stream, time.monotonic()) == len(bodies) > 0
    assert all(body.get("stream", False) is stream for body in bodies)


def test_littles_law_on_paper():
    """Two requests of 1 s and 3 s in 4 s: one in flight on average."""
    outcomes = [Outcome(0.0, sent_s=0.5, end_s=1.5), Outcome(0.0, sent_s=1.0, end_s=4.0)]
    assert Measured(outcomes, 1.0, 4.0).little_ratio == 1 and Measured(outcomes, 0.5, 4.0).little_ratio == 0.5
    assert Measured(outcomes, 1.0, 4.0).lag_p99_ms == pytest.approx(995)
