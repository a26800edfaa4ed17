"""When requests are sent: the schedule of an open-loop load, made before its first request."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.cli import BadInput
from rag.traces import Trace


def schedule(load: Mapping[str, Any], rate: float, seed: Sequence[int], trace: Trace | None = None) -> list[float]:
    """Times (seconds from the start of the load, ascending, below `load["seconds"]`) of requests at `rate` a second on average.

    `load["arrivals"]` says how they are spaced: "constant", one each 1/rate seconds; "poisson", exponentially distributed gaps;
    "gamma", gaps whose standard deviation is `load["burstiness"]` times their mean (1 is Poisson); "trace", as in `trace`, whose
    time is stretched so that its mean rate is `rate`. Raises BadInput where the trace has too few requests for that.
    """
    kind, seconds = load["arrivals"], load["seconds"]
    if kind == "constant":
        return [number / rate for number in range(int(np.ceil(rate * seconds)))]
    if kind == "trace":
        assert trace is not None
        return _replayed(trace, rate, seconds)
    variation = load["burstiness"] if kind == "gamma" else 1.0
    return _drawn(np.random.default_rng(seed), rate, seconds, variation)


def _drawn(rng: np.random.Generator, rate: float, seconds: float, variation: float) -> list[float]:
    """Gamma-distributed gaps of mean 1/rate and coefficient of variation `variation`."""
    shape = variation**-2
    times: list[float] = []
    now = rng.gamma(shape, 1 / (rate * shape))
    while now < seconds:
        times.append(float(now))
        now += rng.gamma(shape, 1 / (rate * shape))
    return times


def _replayed(trace: Trace, rate: float, seconds: float) -> list[float]:
    own = (len(trace.times) - 1) / trace.times[-1]
    if len(trace.times) < rate * seconds:
        most = len(trace.times) / rate
        raise BadInput(
            f"the trace has {len(trace.times)} requests, which last {most:.3g} s at {rate:g} a second; {seconds:g} s are asked for"
        )
    stretched = [time * own / rate for time in trace.times]
    return stretched[: bisect.bisect_left(stretched, seconds)]
