"""What a load test's requests say: latency from the schedule, achieved rate and goodput.

Latency is counted from when a request was due, not from when it was sent, and a request that got no answer took for ever:
neither a slow generator nor a service that sheds load looks better for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.measured import LOADED, Frame
from analysis.statistics import Summary, rank, summary


def latencies(frame: Frame, until: str = "end_s") -> Any:
    """Milliseconds from a request's scheduled time to its end, or another time of it; infinite where it was not answered or has none."""
    took = (frame[until].astype(float) - frame["scheduled_s"].astype(float)) * 1000
    return took.where(frame["status"] == "ok", np.inf).fillna(np.inf)


def only_valid(frame: Frame) -> Frame:
    return frame[frame["valid"].astype(bool)]


def telling(frame: Frame) -> Frame:
    """The valid points of an offer's repeats, or all of them where none is: what figures and tables show of it."""
    good = only_valid(frame)
    return frame if good.empty else good


def unanswered(frame: Frame) -> str:
    """How many requests were rejected, timed out or failed, as text; empty where all were answered."""
    counts = frame["status"].value_counts()
    names = {"rejected": "rejected", "timeout": "timed out", "error": "errors"}
    return ", ".join(f"{counts[status]} {name}" for status, name in names.items() if status in counts)


def weights(frame: Frame) -> str:
    """Whether the weights are random or a model's, the generator's first; empty where the records do not say."""
    generators, embedders = (
        ", ".join(sorted(set(frame[name].dropna()))) if name in frame else "" for name in ("weights", "embedder_weights")
    )
    return f"{generators}, the embedder's {embedders}" if embedders not in ("", generators) else generators


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that at least so large a `share` of them do not exceed; infinite where it falls on such a one."""
    return float(np.sort(np.asarray(values, dtype=float))[rank(len(values), share)])


def offered(frame: Frame) -> Frame:
    """`frame` without the rates that a search tried on its way, and with the column `offer`: what the arms were offered, as text.

    That is a rate of the config, or a multiple of the highest rate that a search found; arms compare at the same offer. Rows are in
    the order of loads and offers.
    """
    frame = frame[(frame["probe"] == "rate") | frame["multiple"].notna()]
    by_rate = frame["multiple"].isna()
    texts = {True: "{:g} requests/s", False: "{:g} × the highest rate"}
    sizes = frame["rate"].where(by_rate, frame["multiple"])
    offer = [texts[plain].format(size).removeprefix("1 × ") for plain, size in zip(by_rate, sizes, strict=True)]
    loads = {load: number for number, load in enumerate(dict.fromkeys(frame["load"]))}
    ordered = frame.assign(offer=offer, _load=frame["load"].map(loads), _multiple=~by_rate, _size=sizes)
    by = ["_load", "_multiple", "_size"]
    return ordered.sort_values(by, kind="stable").drop(columns=by).reset_index(drop=True)


def rates(frame: Frame, slo_ms: float | None = None) -> Frame:
    """One row a point of the load, with what became of its requests.

    achieved: answered requests a second
    goodput:  those within `slo_ms` (NaN without one)
    p50, p99: percentiles of the latency in ms
    rejected: share of the requests that the service refused
    lost:     share of those that timed out or failed

    The seconds run from the first scheduled request to the last answer, and are at least as many as the offered rate takes to send
    so many requests.
    """
    frame = frame.assign(latency=latencies(frame))
    kept = [*LOADED, "probe", "multiple", "found_rps", "valid", *(name for name in ("offer", "x", "series") if name in frame)]
    rows = []
    for _, found in frame.groupby(list(LOADED), sort=False):
        point = found[kept].iloc[0].to_dict()
        answered = found["status"] == "ok"
        seconds = max(len(found) / point["rate"], found["end_s"][answered].max() - found["scheduled_s"].min())
        rows.append(
            {
                **point,
                "achieved": answered.sum() / seconds,
                "goodput": np.nan if slo_ms is None else (found["latency"] <= slo_ms).sum() / seconds,
                "p50": percentile(found["latency"], 0.5),
                "p99": percentile(found["latency"], 0.99),
                "rejected": (found["status"] == "rejected").mean(),
                "lost": found["status"].isin(["timeout", "error"]).mean(),
            }
        )
    return pd.DataFrame(rows)


def over_peak(found: Frame) -> Frame:
    """The rows of `rates` at multiples of the highest rate, with `peak` and `over_peak`.

    The peak is the highest goodput of the same arm and load in the same repeat, at whichever rate; points that are not valid make none.
    """
    searched = only_valid(found[found["probe"] != "rate"])
    peaks = searched.groupby(["arm", "load", "repeat"], as_index=False).agg(peak=("goodput", "max"))
    multiples = found[found["multiple"].notna()].merge(peaks, on=["arm", "load", "repeat"])
    return multiples.assign(over_peak=multiples["goodput"] / multiples["peak"])


def over_repeats(values: Any) -> Summary:
    """The median over repeats, with its interval where there are two or more."""
    return summary(list(values))
