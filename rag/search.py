"""The highest rate that a service keeps up with, found by trying rates: which to try follows from what became of those before."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from typing import Any

LEAST = 10
"""Requests that a load has at least for the search to go on to still lower rates."""
DIGITS = 4


def probes(load: Mapping[str, Any]) -> Generator[float, bool, float]:
    """The rates to try, one after the other; sent whether the last one passed, it returns the highest that did, 0 without one.

    `load["search"]` has `start`, `precision` and `most`. Rates double from `start` until one fails or `most` passes; where already
    `start` fails they halve, down to `LEAST` requests in `load["seconds"]`. Then the geometric middle is tried until a rate that
    fails is at most `precision` times one that passes.
    """
    search, least = load["search"], LEAST / load["seconds"]
    passing, failing, rate = 0.0, math.inf, float(search["start"])
    while not passing or math.isinf(failing):
        if (yield rate):
            passing = rate
            rate = min(2 * rate, float(search["most"]))
            if rate == passing:
                return passing
        else:
            failing = rate
            rate /= 2
            if not passing and rate < least:
                return 0.0
    while failing > passing * search["precision"]:
        rate = float(f"{math.sqrt(passing * failing):.{DIGITS}g}")
        if not passing < rate < failing:
            break  # their digits do not tell them apart
        if (yield rate):
            passing = rate
        else:
            failing = rate
    return passing


def most_probes(load: Mapping[str, Any]) -> int:
    """A bound on the number of rates that `probes` tries."""
    search = load["search"]
    up = math.ceil(math.log2(search["most"] / search["start"]))
    down = math.ceil(math.log2(max(1.0, search["start"] * load["seconds"] / LEAST)))
    middles = math.ceil(math.log2(max(2.0, math.log(2) / math.log(search["precision"]))))
    return 1 + max(up, down) + middles
