"""What `vary` and `loads` stand for, and one clear line for every mistake in them."""

from __future__ import annotations

from typing import Any

import pytest

from analysis.cli import BadInput
from rag import config

ARMS = {"course": {"service": "course"}, "batched": {"service": "batched", "queue": 8}, "echo": {"service": "echo"}}


def checked(**block: Any) -> dict[str, Any]:
    return config.checked({"arms": ARMS, "load": {"rates": [1]}, **block}, "here: rag.x")


def test_vary_crosses_the_arms_that_may_have_its_keys():
    arms = checked(vary={"max_batch": [1, 8], "overlap": [True, False]})["arms"]
    assert list(arms) == [
        "course",
        *(f"{arm} max_batch={size} overlap={overlap}" for arm in ("batched", "echo") for size in (1, 8) for overlap in ("true", "false")),
    ]
    assert arms["course"] == {"service": "course"}
    assert arms["batched max_batch=8 overlap=false"] == {"service": "batched", "queue": 8, "max_batch": 8, "overlap": False}


def test_vary_reaches_the_course_with_what_it_has_too():
    arms = {"course": ARMS["course"], "batched": ARMS["batched"]}
    assert list(checked(arms=arms, vary={"instances": [1, 2]})["arms"]) == [f"{arm} instances={n}" for arm in arms for n in (1, 2)]


def test_vary_reaches_ivf_alone_with_what_only_ivf_has():
    arms = {"exact": {"service": "batched"}, "ivf": {"service": "batched", "retrieval": "ivf"}}
    assert list(checked(arms=arms, vary={"nprobe": [1, 4]})["arms"]) == ["exact", "ivf nprobe=1", "ivf nprobe=4"]


def test_one_load_is_named_after_its_arrivals():
    assert checked()["loads"] == {"poisson": checked()["load"]}
    assert list(checked(load={"arrivals": "constant", "rates": [1]})["loads"]) == ["constant"]


def test_loads_differ_from_the_load_in_what_they_say():
    bursty = {"arrivals": "gamma", "burstiness": 4, "search": {"start": 2}, "times": [2]}
    loads = checked(load={"seconds": 3}, loads={"plain": {"rates": [1, 2]}, "bursty": bursty})["loads"]
    shared = {"seconds": 3, "deadline_s": 5, "stream": False}
    assert loads == {
        "plain": {"arrivals": "poisson", "rates": [1, 2], **shared},
        "bursty": {**bursty, "search": {"start": 2, "precision": 1.1, "most": 10000}, **shared},
    }


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "rates and search": ({"load": {"rates": [1], "search": {"start": 1}}}, "load: exactly one of rates, search is needed"),
    "no rates": ({"load": {}}, "load: exactly one of rates, search is needed"),
    "times without search": ({"load": {"rates": [1], "times": [2]}}, "load: times needs search beside it"),
    "search without start": ({"load": {"search": {}}}, "load.search: 'start' is a required property"),
    "start not below most": ({"load": {"search": {"start": 9, "most": 9}}}, "load.search.start: 9 is not below most (9)"),
    "no precision": ({"load": {"search": {"start": 9, "precision": 1}}}, "load.search.precision: 1 is less than or equal to the minimum"),
    "gamma without burstiness": ({"load": {"arrivals": "gamma", "rates": [1]}}, "load: 'burstiness' is a required property"),
    "burstiness of poisson": ({"load": {"burstiness": 2, "rates": [1]}}, "load: burstiness does not go with arrivals: poisson"),
    "burstiness of one load": (
        {"load": {"rates": [1]}, "loads": {"a": {}, "b": {"arrivals": "gamma"}}},
        "loads.b: 'burstiness' is a required property",
    ),
    "rate of one load": ({"load": {}, "loads": {"a": {"rates": [0]}}}, "loads.a.rates[0]: 0 is less than or equal to the minimum"),
    "deadline of one load": ({"loads": {"a": {"deadline_s": 3}}}, "loads.a: 'deadline_s' is not one of"),
    "unknown key in vary": ({"vary": {"batch": [1]}}, "vary: unknown key 'batch'; one of max_batch, queue"),
    "value in vary": ({"vary": {"max_batch": [1, 0]}}, "vary.max_batch: 0 is less than the minimum of 1"),
    "type in vary": ({"vary": {"overlap": ["yes"]}}, "vary.overlap: 'yes' is not of type 'boolean'"),
    "no value in vary": ({"vary": {"max_batch": []}}, "vary.max_batch: [] should be non-empty"),
    "too many instances": ({"vary": {"instances": [65]}}, "vary.instances: 65 is greater than the maximum of 64"),
    "vary of what no arm has": ({"arms": {"a": {"service": "course"}}, "vary": {"max_batch": [1]}}, "vary.max_batch: none of the arms a"),
    "vary of what an arm says": ({"vary": {"queue": [8]}}, "arms.batched.queue: vary has it too"),
}


@pytest.mark.parametrize(("block", "message"), BAD.values(), ids=BAD)
def test_mistakes_are_named(block: dict[str, Any], message: str):
    with pytest.raises(BadInput) as refused:
        checked(**block)
    assert str(refused.value).startswith(f"here: rag.x.{message}") and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("arm", "generator", "why"),
    [
        pytest.param({"overlap": False}, {"architecture": "opt"}, "without overlap", id="no overlap"),
        pytest.param({}, {"model": "x", "endpoint": "http://x/v1"}, "an endpoint's prompts", id="an endpoint"),
    ],
)
def test_a_budget_of_tokens_that_nothing_would_keep_to_is_refused(arm: dict[str, Any], generator: dict[str, Any], why: str):
    with pytest.raises(BadInput, match=rf"here: rag\.x\.arms\.a\.tokens: 60, but {why}"):
        checked(arms={"a": {"service": "batched", "tokens": 60, **arm}}, generator=generator)
