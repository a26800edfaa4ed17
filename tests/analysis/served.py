"""Made-up records of services whose capacity is known by construction: what figures, tables and numbers of searches are held to.

A service answers `capacity` requests a second at most and refuses the rest at once; an answer takes `BASE_MS` and as much again in the
queue at its capacity.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rag.search import probes
from tests.analysis import synthetic

BASE_MS = {"embed_ms": 10.0, "retrieve_ms": 5.0, "generate_ms": 80.0}
OUTSIDE_MS = 5.0
"""Between the service and whoever waits: HTTP."""
SLO_MS = 500.0
SEARCH = {"search": {"start": 4, "precision": 1.1, "most": 4096}, "seconds": 10}
REQUESTS = 100


def queue_ms(rate: float, capacity: float) -> float:
    return 100.0 * min(1.0, rate / capacity)


def latency_ms(rate: float, capacity: float) -> float:
    """What every answered request takes."""
    return queue_ms(rate, capacity) + sum(BASE_MS.values()) + OUTSIDE_MS


def point(arm: str, rate: float, capacity: float, repeat: int = 1, load: str = "poisson", **more: Any) -> list[dict[str, Any]]:
    """The requests of one point: evenly spaced, the share that the capacity allows answered, the others refused."""
    share = min(1.0, capacity / rate)
    took = latency_ms(rate, capacity) / 1000
    shared = {
        **{"load": load, "probe": "rate", "multiple": math.nan, "found_rps": math.nan, "slo_ms": SLO_MS, "valid": True, "invalid": ""},
        **{"arm_settings": json.dumps({"service": "batched"}), "load_settings": json.dumps({"arrivals": "poisson"}), "chunks": 1000},
        **{"point": f"{arm}-{load}-{rate}-{repeat}", "experiment": "searched", "embedder_weights": "pretrained"},
        **{"queue_ms": queue_ms(rate, capacity), **BASE_MS, "question": "What?"},
    }
    rows = []
    for number in range(REQUESTS):
        answered = math.floor((number + 1) * share + 1e-9) > math.floor(number * share + 1e-9)
        at = number / rate
        row = synthetic.request(arm, rate, repeat, number, at, at + took, "ok" if answered else "rejected")
        rows.append(row | shared | {"question": f"What is {number % 20}?"} | more)
    return rows


def searched(
    capacities: Mapping[str, float],
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    repeats: Sequence[float] = (1.0,),
    times: Sequence[float] = (),
    **more: Any,
) -> list[dict[str, Any]]:
    """What a search records of each arm with its capacity, times a factor a repeat, and then of `times` the rate that it found."""
    rows = []
    for arm, nominal in capacities.items():
        its = {"arm_settings": json.dumps((settings or {}).get(arm, {"service": "batched"})), **more}
        for repeat, factor in enumerate(repeats, 1):
            capacity, tried, steps = nominal * factor, list[float](), probes(SEARCH)
            try:
                rate = next(steps)
                while True:
                    tried.append(rate)
                    rate = steps.send(rate <= capacity)
            except StopIteration as end:
                found: float = end.value
            its, multiples = {**its, "found_rps": found}, {multiple * found: multiple for multiple in (1.0, *times) if found}
            for rate in tried:
                rows += point(arm, rate, capacity, repeat, probe="search", multiple=multiples.pop(rate, math.nan), **its)
            for rate, multiple in multiples.items():
                rows += point(arm, rate, capacity, repeat, probe="multiple", multiple=multiple, **its)
    return rows


def distorted(rows: Sequence[dict[str, Any]], above: float, why: str = "sent 60 ms late") -> list[dict[str, Any]]:
    """The rows with those at rates above one not valid."""
    return [row | ({"valid": False, "invalid": why} if row["rate"] > above else {}) for row in rows]


def one_repeat_open(arm: str, capacity: float) -> list[dict[str, Any]]:
    """A search that is over in the second of two repeats alone."""
    rows = searched({arm: capacity}, repeats=(1.0, 1.2))
    return [row | ({"found_rps": math.nan, "multiple": math.nan} if row["repeat"] == 1 else {}) for row in rows]


def highest(capacity: float) -> float:
    """The rate that the search finds for a capacity."""
    steps = probes(SEARCH)
    try:
        rate = next(steps)
        while True:
            rate = steps.send(rate <= capacity)
    except StopIteration as end:
        return float(end.value)


def varied(**lists: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """The settings of arms as `vary` names them, for lists of values."""
    import itertools

    found = {}
    for values in itertools.product(*lists.values()):
        chosen = dict(zip(lists, values, strict=True))
        found[" ".join(["batched", *(f"{key}={value}" for key, value in chosen.items())])] = {"service": "batched", **chosen}
    return found
