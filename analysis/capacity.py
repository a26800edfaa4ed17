"""What the searches of a RAG experiment found: the highest rate that meets the objective, of each arm under each load.

Whether a rate met it stands in the records: the search that chose the rates decided it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.load import latencies, over_repeats
from analysis.measured import Frame
from analysis.statistics import Summary, ratio
from analysis.style import digits


@dataclass(frozen=True)
class Capacity:
    """One arm under one load; lists have a value a repeat.

    repeats:    those whose searches are over
    found:      the highest rate that met the objective; 0 where none did
    failing:    the lowest rate above it that did not; NaN where the search ended before one failed
    probes:     rates tried, in all repeats
    highest:    the median of `found`, with its interval
    at_least:   whether that is a lower bound: a `failing` point is not valid, so that it says nothing of the service
    over_first: its ratio to that of the experiment's first arm under the same load, a lower bound too then; None of that arm itself, and
                where that found no rate or has a lower bound alone
    """

    arm: str
    load: str
    repeats: list[int]
    found: list[float]
    failing: list[float]
    probes: int
    highest: Summary
    at_least: bool
    over_first: Summary | None


def capacities(frame: Frame) -> list[Capacity]:
    """Of all searches that are over, in the order of the records; empty where nothing was searched."""
    firsts: dict[str, Capacity] = {}
    every = list[Capacity]()
    for (arm, load), rows in _over(frame).groupby(["arm", "load"], sort=False):
        repeats = {int(repeat): its for repeat, its in rows.groupby("repeat")}
        found = [float(its["found_rps"].iloc[0]) for its in repeats.values()]
        failing = [float(its["rate"][its["rate"] > rate].min()) for its, rate in zip(repeats.values(), found, strict=True)]
        ends = [its["valid"][its["rate"] == rate] for its, rate in zip(repeats.values(), failing, strict=True)]
        probes = sum(its["rate"].nunique() for its in repeats.values())
        at_least, first = not all(valid.all() for valid in ends), firsts.get(load)
        over_first = ratio(found, first.found) if first and min(first.found) > 0 and not first.at_least else None
        every.append(Capacity(arm, load, list(repeats), found, failing, probes, over_repeats(found), at_least, over_first))
        if arm == frame["arm"].iloc[0]:
            firsts[load] = every[-1]
    return every


def at(frame: Frame, its: Capacity, rates: Sequence[float]) -> list[Frame]:
    """The requests at a rate of each repeat, without those repeats that have none at it."""
    mine = frame[(frame["arm"] == its.arm) & (frame["load"] == its.load)]
    found = [mine[(mine["repeat"] == repeat) & (mine["rate"] == rate)] for repeat, rate in zip(its.repeats, rates, strict=True)]
    return [rows for rows in found if len(rows)]


def lower_bounds(found: Sequence[Capacity]) -> str:
    """How many of the highest rates are lower bounds, as text; empty where none is."""
    number = sum(each.at_least for each in found)
    return f"{number} lower bound{'s' * (number > 1)} (what failed above is not valid)" if number else ""


def unfinished(frame: Frame) -> int:
    """How many searches are not over."""
    searched = frame[frame["probe"] == "search"]
    return len(searched[searched["found_rps"].isna()].groupby(["arm", "load", "repeat"]))


def why_not(frame: Frame, its: Capacity) -> str:
    """What became of the lowest rates above the highest: the shares that were not in time, or why the points are not valid."""
    points = at(frame, its, its.failing)
    wrong = [f"not valid: {found['invalid'].iloc[0]}" for found in points if not found["valid"].iloc[0]]
    late = [100 * float((latencies(found) > found["slo_ms"]).mean()) for found in points if found["valid"].iloc[0]]
    span = " to ".join(dict.fromkeys(digits(share) for share in (min(late), max(late)))) if late else ""
    return "; ".join(([f"{span} % not in time"] if late else []) + list(dict.fromkeys(wrong)))


def _over(frame: Frame) -> Frame:
    return frame[(frame["probe"] == "search") & frame["found_rps"].notna()]
