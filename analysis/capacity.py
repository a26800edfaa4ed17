"""What the searches of a RAG experiment found: the highest rate that meets the objective, of each arm under each load.

Whether a rate met it stands in the records: the search that chose the rates decided it.
"""

from __future__ import annotations

from dataclasses import dataclass

from analysis.load import latencies, over_repeats
from analysis.measured import Frame
from analysis.statistics import Summary, ratio
from analysis.style import digits


@dataclass(frozen=True)
class Capacity:
    """One arm under one load; lists have a value a repeat.

    found:      the highest rate that met the objective; 0 where none did
    failing:    the lowest rate above it that did not; NaN where the search ended before one failed
    probes:     rates tried, in all repeats
    highest:    the median of `found`, with its interval
    over_first: its ratio to that of the experiment's first arm under the same load; None of that arm itself, and where that found no rate
    """

    arm: str
    load: str
    found: list[float]
    failing: list[float]
    probes: int
    highest: Summary
    over_first: Summary | None


def capacities(frame: Frame) -> list[Capacity]:
    """Of all searches that are over, in the order of the records; empty where nothing was searched."""
    firsts: dict[str, list[float]] = {}
    every = []
    for (arm, load), rows in _over(frame).groupby(["arm", "load"], sort=False):
        repeats = [its for _, its in rows.groupby("repeat")]
        found = [float(its["found_rps"].iloc[0]) for its in repeats]
        failing = [float(its["rate"][its["rate"] > rate].min()) for its, rate in zip(repeats, found, strict=True)]
        first = firsts.setdefault(load, found) if arm == frame["arm"].iloc[0] else firsts.get(load)
        over_first = ratio(found, first) if first and first is not found and min(first) > 0 else None
        probes = sum(its["rate"].nunique() for its in repeats)
        every.append(Capacity(arm, load, found, failing, probes, over_repeats(found), over_first))
    return every


def unfinished(frame: Frame) -> int:
    """How many searches are not over."""
    searched = frame[frame["probe"] == "search"]
    return len(searched[searched["found_rps"].isna()].groupby(["arm", "load", "repeat"]))


def why_not(frame: Frame, its: Capacity) -> str:
    """What became of the lowest rates above the highest: the shares that were not in time, or why the points are not valid."""
    mine = frame[(frame["arm"] == its.arm) & (frame["load"] == its.load)]
    points = [rows[rows["rate"] == rate] for (_, rows), rate in zip(mine.groupby("repeat"), its.failing, strict=True)]
    wrong = [found["invalid"].iloc[0] for found in points if len(found) and not found["valid"].iloc[0]]
    late = [100 * float((latencies(found) > found["slo_ms"]).mean()) for found in points if len(found) and found["valid"].iloc[0]]
    span = " to ".join(dict.fromkeys(digits(share) for share in (min(late), max(late)))) if late else ""
    return "; ".join(([f"{span} % not in time"] if late else []) + list(dict.fromkeys(wrong)))


def _over(frame: Frame) -> Frame:
    return frame[(frame["probe"] == "search") & frame["found_rps"].notna()]
