"""The search finds what a service keeps up with, tries few rates, and goes on where a kill left it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.points import NAN, Point, Series
from rag.search import LEAST, most_probes, probes

rates = st.floats(0.01, 50_000)
loads = st.builds(
    lambda start, factor, precision, seconds: {
        "search": {"start": start, "most": start * factor, "precision": precision},
        "seconds": seconds,
    },
    rates,
    st.floats(1.01, 10_000),
    st.floats(1.001, 2),
    st.floats(0.1, 1000),
)


def searched(load: Mapping[str, Any], passes: Callable[[float], bool]) -> tuple[float, list[float]]:
    """What the search finds for a service that passes at these rates, and the rates that it tried."""
    steps, tried = probes(load), list[float]()
    try:
        rate = next(steps)
        while True:
            tried.append(rate)
            rate = steps.send(passes(rate))
    except StopIteration as end:
        return end.value, tried


@given(loads, rates)
def test_the_rate_found_is_the_capacity_within_the_precision(load: dict[str, Any], capacity: float):
    found, tried = searched(load, lambda rate: rate <= capacity)
    search = load["search"]
    assert len(tried) == len(set(tried)) <= most_probes(load)
    assert tried[0] == search["start"] and max(tried) <= search["most"]
    if found == 0:
        assert min(tried) > capacity and min(tried) / 2 < LEAST / load["seconds"]
    elif found == search["most"]:
        assert found <= capacity
    else:
        failing = min(rate for rate in tried if rate > capacity)
        closest = math.nextafter(found, math.inf) if search["precision"] > 1.01 else found * 1.01  # rates have four digits
        assert found <= capacity < failing and failing <= max(found * search["precision"], closest) * (1 + 1e-9)


@given(loads, st.lists(st.booleans(), min_size=60, max_size=60))
def test_a_service_in_no_order_ends_the_search_too(load: dict[str, Any], outcomes: list[bool]):
    """One that passes here and fails there: what is found has passed, and the number of rates keeps its bound."""
    answers = dict[float, bool]()
    found, tried = searched(load, lambda rate: answers.setdefault(rate, outcomes[len(answers)]))
    assert len(tried) <= most_probes(load)
    assert found == 0 or answers[found]


def series(**load: Any) -> Series:
    return Series("arm", "load", 1, {"seconds": 10, **load}, {"what": "determines"})


SEARCH = {"search": {"start": 10, "precision": 1.2, "most": 1000}}


def measured(one: Series, capacity: float, order: list[float] | None = None) -> dict[str, bool]:
    """Outcomes by point, measured as the series asks for them; `order` takes the rates."""
    outcomes = dict[str, bool]()
    while point := one.progress(lambda point: outcomes.get(point.id)).next:
        assert point.id not in outcomes
        outcomes[point.id] = point.rate <= capacity
        if order is not None:
            order.append(point.rate)
    return outcomes


def test_a_series_of_rates_is_measured_in_its_order():
    order = list[float]()
    one = series(rates=[5, 2, 9])
    outcomes = measured(one, 4, order)
    progress = one.progress(lambda point: outcomes.get(point.id))
    assert order == [5, 2, 9] == [point.rate for point in progress.points]
    assert {point.probe for point in progress.points} == {"rate"} and math.isnan(progress.found) and progress.next is None


def test_a_search_is_resumed_at_every_point():
    """The next rate follows from the records, whichever process made them."""
    whole = list[float]()
    measured(series(**SEARCH, times=[0.5, 2]), 47, whole)
    assert whole[:4] == [10, 20, 40, 80]
    for kept in range(len(whole)):
        known = {series(**SEARCH).point(rate).id: rate <= 47 for rate in whole[:kept]}
        progress = series(**SEARCH, times=[0.5, 2]).progress(lambda point, known=known: known.get(point.id))
        assert progress.next is not None and progress.next.rate == whole[kept]


@pytest.mark.parametrize("capacity", [0.01, 3, 47, 5000])
def test_multiples_follow_a_search_and_nothing_is_measured_twice(capacity: float):
    one = series(**SEARCH, times=[0.5, 1, 2, 4])
    outcomes = measured(one, capacity)
    progress = one.progress(lambda point: outcomes.get(point.id))
    assert [point.id for point in progress.points] == list(outcomes)
    multiples = {point.multiple: point.rate for point in progress.points if not math.isnan(point.multiple)}
    assert multiples == ({times: times * progress.found for times in (0.5, 1, 2, 4)} if progress.found else {})
    assert all(point.probe == "search" for point in progress.points if point.multiple == 1)
    assert (progress.found == 0) == (capacity < 1)


def test_a_point_is_the_same_however_it_is_asked_for():
    """So that a rate of a list, a search and a multiple share their record."""
    assert series(rates=[10]).point(10).id == series(**SEARCH).point(10.0, "search", 2.0).id
    assert series().point(10).multiple is NAN and isinstance(series().point(10), Point)
