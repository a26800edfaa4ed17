"""What a job asks for covers what the experiment may take, and grows with each of its factors."""

from __future__ import annotations

from typing import Any

import pytest

from rag import config, cost
from rag.search import most_probes


def minutes(**block: Any) -> int:
    load = {"rates": [1, 2, 4], "seconds": 60, "deadline_s": 5}
    return cost.minutes(config.checked({"arms": {"a": {"service": "echo"}}, "load": load, **block}, "here"))


def test_three_loads_of_a_minute():
    """Ten minutes for the corpus, two starts, and three times 70 s, with a fifth added."""
    assert minutes() == 10 + 7  # (120 s + 210 s) * 1.2 = 6.6 minutes


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"arms": {"a": {"service": "echo"}, "b": {"service": "echo"}}}, id="arms"),
        pytest.param({"vary": {"max_batch": [1, 2]}}, id="vary"),
        pytest.param({"loads": {"a": {}, "b": {}}}, id="loads"),
        pytest.param({"repeats": 2}, id="repeats"),
    ],
)
def test_every_factor_doubles_what_it_multiplies(more: dict[str, Any]):
    assert 10 + 1.5 * 7 < minutes(**more) <= 10 + 2 * 7


def test_a_search_is_bounded_by_the_rates_that_it_may_try():
    load = {"search": {"start": 1, "most": 1000}, "times": [2, 4], "seconds": 20, "deadline_s": 5}
    probes = most_probes(config.checked({"arms": {"a": {"service": "echo"}}, "load": load}, "here")["loads"]["poisson"])
    assert probes == 1 + 10 + 3
    assert minutes(load=load) == pytest.approx(10 + 1.2 * (2 + (probes + 2) * 30 / 60), abs=1)


def test_every_instance_has_its_memory():
    settings = config.checked({"arms": {"a": {"service": "echo"}}, "vary": {"instances": [1, 4]}, "load": {"rates": [1]}}, "here")
    assert cost.instances(settings) == 4 and cost.memory_mb(settings) == 5 * cost.INSTANCE_MB
