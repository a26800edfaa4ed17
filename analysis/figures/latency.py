"""How long do requests take, from when they were due? RAG records; the share of all requests answered within a time, an arm a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from analysis import style
from analysis.cli import run
from analysis.figures import command, serving
from analysis.load import latencies, offered, only_valid
from analysis.measured import Frame, requests

MOST_PANELS = 12
"""Panels beyond which those drawn are some of them, spread evenly."""


def draw(records: Path | str, slo_ms: float | None = None, until: str = "end_s") -> Any:
    """The figure: a panel a load and offer. Requests never answered count among all, so their curves end below 1.

    A latency ends at the column `until`: an answer's end, or its first token.
    """
    frame = offered(requests(records))
    looks = style.arms(frame["arm"].unique())
    valid = only_valid(frame)
    valid = valid.assign(latency=latencies(valid, until))
    if not np.isfinite(valid["latency"]).any():
        return style.message("No latencies: the records have no valid point with an answer at a rate that arms share.")
    every = [rows for _, rows in valid.groupby(["load", "offer"], sort=False)]
    panels = style.some(every, MOST_PANELS)
    figure, axes = style.grid(len(panels), height=1.9, columns=3)
    loads = serving.several(frame["load"])
    span = valid["latency"][np.isfinite(valid["latency"])]
    for number, (axis, rows) in enumerate(zip(axes, panels, strict=True)):
        for arm, found in rows.groupby("arm", sort=False):
            _curve(axis, found["latency"], looks[arm])
        if slo_ms is not None:
            axis.axvline(slo_ms, **serving.GUIDE)
        axis.set_title(serving.wrapped(serving.load_of(rows["load"].iloc[0], loads), serving.at(rows["offer"].iloc[0])))
        axis.set_xlabel("latency (ms)" if until == "end_s" else "time to first token (ms)")
        if number % 3 == 0:
            axis.set_ylabel("share of requests")
        axis.set_ylim(-0.02, 1.04)
        axis.set_xlim(min(span.min(), slo_ms or np.inf) / 1.3, max(span.max(), slo_ms or 0) * 1.3)
        style.log_values(axis.xaxis)
    _head(figure, frame, valid, f"{len(panels)} of {len(every)} panels, spread evenly" if len(panels) < len(every) else "")
    objective = [] if slo_ms is None else [Line2D([], [], label=f"objective: {slo_ms:g} ms", **serving.GUIDE)]
    style.legend(figure, serving.handles(looks) + objective)
    return figure


def _curve(axis: Any, values: Any, look: dict[str, Any]) -> None:
    """The empirical distribution over all requests; a dot where it ends."""
    finite = np.sort(values[np.isfinite(values)])
    if not len(finite):
        return
    share = np.arange(1, len(finite) + 1) / len(values)
    axis.step(np.r_[finite[0], finite], np.r_[0, share], where="post", color=look["color"], linestyle=look["linestyle"])
    axis.plot(finite[-1], share[-1], color=look["color"], marker=look["marker"])


def _head(figure: Any, frame: Frame, valid: Frame, drawn: str) -> None:
    counts = sorted({len(rows) for _, rows in valid.groupby(["arm", "load", "offer"])})
    n = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
    repeats = valid["repeat"].nunique()
    serving.head(
        figure,
        frame,
        f"{n} requests a curve" + (f", {repeats} repeats pooled" if repeats > 1 else ""),
        "latency counted from the scheduled time",
        "" if (valid["status"] == "ok").all() else "a curve ends below 1 where requests were not answered",
        drawn,
        invalid_are="left out",
    )


def main() -> int:
    return command(draw, "Draw the latency distributions of a RAG experiment.", serving.SLO_MS)


if __name__ == "__main__":
    run(main)
