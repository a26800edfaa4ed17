"""What a load test's requests say: latency from the schedule, achieved rate and goodput.

Latency is counted from when a request was due, not from when it was sent, and a request that got no answer took for ever:
neither a slow generator nor a service that sheds load looks better for it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.measured import Frame
from analysis.statistics import Summary, summary


def latencies(frame: Frame) -> Any:
    """Milliseconds from a request's scheduled time to its end; infinite where it was not answered."""
    took = (frame["end_s"].astype(float) - frame["scheduled_s"].astype(float)) * 1000
    return took.where(frame["status"] == "ok", np.inf)


def unanswered(frame: Frame) -> str:
    """How many requests were rejected, timed out or failed, as text; empty where all were answered."""
    counts = frame["status"].value_counts()
    names = {"rejected": "rejected", "timeout": "timed out", "error": "errors"}
    return ", ".join(f"{counts[status]} {name}" for status, name in names.items() if status in counts)


def rates(frame: Frame, slo_ms: float | None = None) -> Frame:
    """One row an (arm, rate, repeat): `achieved`, answered requests a second, and `goodput`, those within `slo_ms` (NaN without one).

    The seconds run from the first scheduled request to the last end, and are at least as many as the offered rate takes to
    send so many requests.
    """
    frame = frame.assign(latency=latencies(frame))
    rows = []
    for (arm, rate, repeat), found in frame.groupby(["arm", "rate", "repeat"], sort=False):
        seconds = max(found["end_s"].max() - found["scheduled_s"].min(), len(found) / rate)
        good = np.nan if slo_ms is None else (found["latency"] <= slo_ms).sum() / seconds
        rows.append({"arm": arm, "rate": rate, "repeat": repeat, "achieved": (found["status"] == "ok").sum() / seconds, "goodput": good})
    return pd.DataFrame(rows)


def over_repeats(values: Any) -> Summary:
    """The median over repeats, with its interval where there are two or more."""
    return summary(list(values))
