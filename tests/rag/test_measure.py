"""What is said of a load before and after it: that it can be offered, and whether what came of it says anything of the service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from analysis.cli import BadInput
from rag import config
from rag.config import Experiment
from rag.load import Measured, Outcome
from rag.measure import LAG_LIMIT_MS, _broke, _invalid, _restarts, arrivals, asked, check, idle
from rag.questions import Question

from .serving import served


def experiment(**load: Any) -> Experiment:
    settings = config.checked({"arms": {"a": {"service": "echo"}}, "load": {"seconds": 1, **load}, "repeats": 2}, "here")
    return Experiment("x", 1, settings, "here")


@pytest.fixture
def trace(tmp_path: Path) -> dict[str, Any]:
    """A trace of 100 requests."""
    path = tmp_path / "trace.csv"
    path.write_text("Timestamp\n" + "".join(f"{number}\n" for number in range(100)))
    return {"arrivals": "trace", "trace": {"path": str(path)}}


def test_loads_that_can_be_offered_pass(trace: dict[str, Any]):
    check(experiment(rates=[20, 40]))
    check(experiment(search={"start": 20}, times=[4]))
    check(experiment(rates=[100], **trace))
    check(experiment(search={"start": 5, "most": 50}, times=[0.5, 2], **trace))


@pytest.mark.parametrize(
    ("load", "traced", "message"),
    [
        pytest.param({"rates": [20, 0.001]}, False, "no request in 1 s at 0.001 a second", id="a rate"),
        pytest.param({"search": {"start": 0.001}}, False, "no request in 1 s at 0.001 a second", id="the start of a search"),
        pytest.param({"rates": [101]}, True, "the trace has 100 requests", id="a trace"),
        pytest.param({"search": {"start": 5, "most": 101}}, True, "the trace has 100 requests", id="a trace, at most"),
        pytest.param({"search": {"start": 5, "most": 50}, "times": [3]}, True, "the trace has 100 requests", id="a trace, overload"),
    ],
)
def test_a_load_that_cannot_be_offered_is_refused_before_anything_starts(
    load: dict[str, Any], traced: bool, message: str, trace: dict[str, Any]
):
    with pytest.raises(BadInput) as refused:
        check(experiment(**load, **(trace if traced else {})))
    assert str(refused.value).startswith("here: the load ") and message in str(refused.value) and "\n" not in str(refused.value)


def test_repeats_and_rates_have_schedules_of_their_own():
    one = experiment(rates=[20, 40])
    schedules = [tuple(arrivals(one, "poisson", rate, repeat)) for rate in (20, 40) for repeat in (1, 2)]
    assert len(set(schedules)) == 4 and tuple(arrivals(one, "poisson", 20, 1)) == schedules[0]


def test_every_question_is_asked_as_often_as_any_other():
    questions = [Question(f"{number}?", str(number)) for number in range(5)]
    chosen = asked(questions, 23, [1, 2])
    counts = sorted(chosen.count(question) for question in questions)
    assert counts == [4, 4, 5, 5, 5] and len(set(chosen[:5])) == 5
    assert chosen == asked(questions, 23, [1, 2]) != asked(questions, 23, [1, 3])


def measured(late_s: float = 0.0, in_flight: float = 1.0) -> Measured:
    """Ten requests of a second each, one after the other: one in flight."""
    return Measured([Outcome(float(at), sent_s=at + late_s, end_s=at + late_s + 1) for at in range(10)], in_flight, 10.0)


@pytest.mark.parametrize(
    ("load", "rate", "reason"),
    [
        pytest.param(measured(), 1, "", id="valid"),
        pytest.param(measured(in_flight=1.4), 1, "", id="few samples"),
        pytest.param(measured(in_flight=1.6), 1, "Little's law does not hold: 1.6 in flight, 1.0 expected", id="Little"),
        pytest.param(measured(late_s=LAG_LIMIT_MS / 1e3 + 0.01), 1, "sent 60 ms late", id="late"),
        pytest.param(measured(), 501, "the load generator can send 1000 a second, and only 50%", id="ceiling"),
    ],
)
def test_a_load_that_says_nothing_of_the_service_is_named(load: Measured, rate: float, reason: str):
    found = _invalid(load, rate, 1000.0)
    assert found.startswith(reason) and bool(found) == bool(reason)


def health(status: int, restarts: dict[str, Any]) -> Any:
    """A service that says this of its health, and nothing else."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps({"restarts": restarts}).encode()})

    return app


def test_restarts_are_those_of_all_instances_and_stages():
    with served(health(200, {"instances": 2, "stages": {"find": 1, "write": 3}})) as url:
        assert _restarts(url) == 6
        assert _broke(url, 6) == (0, "")
        assert _broke(url, 4) == (2, "the service was started anew 2 times")


def test_a_service_that_listens_and_does_not_answer_was_started_anew_and_one_that_is_gone_was_not():
    with served(health(503, {"instances": 0, "stages": {}})) as url:
        assert _restarts(url) is None
        assert _broke(url, 0) == (1, "the service listens and does not answer")
    assert _broke(url, 0) == (0, "")


def test_idle_waits_for_what_runs_and_not_for_what_is_gone():
    running = iter([2, 1, 0])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b'{"running": %d}' % next(running)})

    with served(app) as url:
        assert idle(url)
    assert next(running, None) is None and not idle(url)
