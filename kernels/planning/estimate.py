"""What measuring will take, in seconds, from what earlier jobs took. Pure functions.

A configuration of a problem and backend that was measured before takes what it took then, on average over the configurations of that
problem ("measured"). Where the problem was not measured on this device, the one whose limit is nearest is scaled by the ratio of
the two limits ("scaled"): a configuration takes a fixed multiple of the hardware's limit. Where nothing of the backend was measured
there, defaults stand in ("assumed").
"""

from __future__ import annotations

import bisect
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kernels.contract import Cost
from kernels.roofline import limit

MEASURED, SCALED, ASSUMED = "measured", "scaled", "assumed"
POINT_S = 0.5
"""Assumed of a configuration: 30 samples with their flushes took 0.02 to 2 s on an H200 for problems of 0.02 to 50 ms."""
BESIDE_S = 2.0
"""Assumed of a backend's part of a problem, beside its configurations: drawing and placing inputs, writing records, an oracle."""
FIXED_S = 30.0
"""Assumed of a job's start: the interpreter and its libraries, the device's context, caches and ceilings."""
FIXED = ("start-up", "caches", "planning", "ceilings")
"""The phases of a job (`kernels.phases`) that do not grow with what it measures."""


@dataclass(frozen=True)
class Spent:
    """What an earlier job spent on a backend's part of a problem: `points` configurations took `spent_s`, all else `beside_s`."""

    problem: str
    points: int
    spent_s: float
    beside_s: float
    limit_ms: float
    ceilings: Mapping[str, Any]


@dataclass(frozen=True)
class Estimate:
    """Seconds, and those of them that were measured, scaled and assumed."""

    by: Mapping[str, float]

    @classmethod
    def of(cls, basis: str, seconds: float) -> Estimate:
        return cls({basis: seconds})

    @property
    def seconds(self) -> float:
        return sum(self.by.values())

    def times(self, factor: float) -> Estimate:
        return Estimate({basis: factor * seconds for basis, seconds in self.by.items()})


def total(estimates: Iterable[Estimate]) -> Estimate:
    """The sum, each basis by itself."""
    by: dict[str, float] = {}
    for estimate in estimates:
        for basis, seconds in estimate.by.items():
            by[basis] = by.get(basis, 0.0) + seconds
    return Estimate(by)


class Known:
    """What is known of a backend's parts of problems on a device, the latest last."""

    def __init__(self, spent: Sequence[Spent]) -> None:
        self._of = {each.problem: each for each in spent if each.points}
        self._by_limit = sorted((each for each in self._of.values() if each.limit_ms > 0), key=lambda each: each.limit_ms)

    def part(self, problem: str, cost: Cost, points: int) -> Estimate:
        """What `points` configurations of a problem take, all beside them included."""
        if same := self._of.get(problem):
            return Estimate.of(MEASURED, same.beside_s + points * same.spent_s / same.points)
        ms = limit(cost, self._by_limit[-1].ceilings)[0] if self._by_limit else 0.0
        if ms > 0:
            place = bisect.bisect(self._by_limit, ms, key=lambda each: each.limit_ms)
            nearest = min(self._by_limit[max(0, place - 1) : place + 1], key=lambda each: abs(math.log(ms / each.limit_ms)))
            return Estimate.of(SCALED, nearest.beside_s + points * nearest.spent_s / nearest.points * ms / nearest.limit_ms)
        return Estimate.of(ASSUMED, BESIDE_S + points * POINT_S)


def fixed(jobs: Sequence[Mapping[str, float]]) -> Estimate:
    """A job's fixed cost, from the seconds by phase of earlier ones: the median of their fixed phases."""
    if not jobs:
        return Estimate.of(ASSUMED, FIXED_S)
    return Estimate.of(MEASURED, statistics.median(sum(job.get(phase, 0.0) for phase in FIXED) for job in jobs))
