"""How long do requests take, from when they were due? RAG records; the share of all requests answered within a time, an arm a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from analysis import style
from analysis.cli import run
from analysis.figures import command
from analysis.load import latencies, unanswered
from analysis.measured import Frame, device, requests

SLO: dict[str, Any] = {"color": style.GREY, "linestyle": ":", "linewidth": 1.2}


def draw(records: Path | str, slo_ms: float | None = None) -> Any:
    """The figure: a panel an offered rate. Requests never answered count among all, so their curves end below 1."""
    frame = requests(records)
    rates = sorted(frame["rate"].unique())
    figure, axes = style.grid(len(rates), height=1.9, columns=3)
    looks = style.arms(sorted(frame["arm"].unique()))
    answered = latencies(frame)
    span = answered[np.isfinite(answered)]
    for number, (axis, rate) in enumerate(zip(axes, rates, strict=True)):
        for arm, its in looks.items():
            _curve(axis, answered[(frame["rate"] == rate) & (frame["arm"] == arm)], its)
        if slo_ms is not None:
            axis.axvline(slo_ms, **SLO)
        axis.set_title(f"{rate:g} requests/s offered")
        axis.set_xlabel("latency (ms)")
        if number % 3 == 0:
            axis.set_ylabel("share of requests")
        axis.set_ylim(-0.02, 1.04)
        if len(span):
            axis.set_xlim(min(span.min(), slo_ms or np.inf) / 1.3, max(span.max(), slo_ms or 0) * 1.3)
        style.log_values(axis.xaxis)
    _head(figure, frame)
    handles = [Line2D([], [], label=arm, **look) for arm, look in looks.items()]
    if slo_ms is not None:
        handles.append(Line2D([], [], label=f"objective: {slo_ms:g} ms", **SLO))
    style.legend(figure, handles)
    return figure


def _curve(axis: Any, values: Any, look: dict[str, Any]) -> None:
    """The empirical distribution over all requests; a dot where it ends."""
    finite = np.sort(values[np.isfinite(values)])
    if not len(finite):
        return
    share = np.arange(1, len(finite) + 1) / len(values)
    axis.step(np.r_[finite[0], finite], np.r_[0, share], where="post", color=look["color"], linestyle=look["linestyle"])
    axis.plot(finite[-1], share[-1], color=look["color"], marker=look["marker"])


def _head(figure: Any, frame: Frame) -> None:
    counts = sorted({len(rows) for _, rows in frame.groupby(["arm", "rate"])})
    n = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
    lost, repeats = unanswered(frame), frame["repeat"].nunique()
    missing = f"not answered, counted as never: {lost}" if lost else "all answered"
    weights = sorted(set(frame["weights"].dropna())) if "weights" in frame else []
    style.head(
        figure,
        device(frame),
        f"{n} requests a curve" + (f", {repeats} repeats pooled" if repeats > 1 else ""),
        "latency counted from the scheduled time",
        missing,
        f"{', '.join(weights)} weights" if weights else "",
    )


def main() -> int:
    return command(
        draw,
        "Draw the latency distributions of a RAG experiment.",
        ("--slo-ms", {"type": float, "help": "the latency objective in ms, drawn as a line (default: none)"}),
    )


if __name__ == "__main__":
    run(main)
