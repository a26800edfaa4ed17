"""What does a request wait for? RAG records; the mean time of each stage of answered requests, stacked, by offered rate or a factor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.patches import Patch

from analysis import style
from analysis.cli import run
from analysis.factors import NAMES, of_loads, over
from analysis.figures import command, serving
from analysis.load import latencies, offered, only_valid
from analysis.measured import Frame, requests

STAGES: dict[str, dict[str, Any]] = {
    "queue": {"facecolor": "#BBBBBB"},
    "embed": {"facecolor": "#0072B2"},
    "retrieve": {"facecolor": "#E69F00"},
    "generate": {"facecolor": "#009E73"},
    "outside the service": {"facecolor": "#FFFFFF", "hatch": "///"},
}
"""From the bottom up; the last is what is left of the latency: HTTP, and the generator's own lag."""
_EDGE: dict[str, Any] = {"edgecolor": "#555555", "linewidth": 0.4}
_OFFERED = {True: "offered requests/s", False: "offered / highest rate"}
MOST_PANELS = 12
"""Panels beyond which those drawn are some of them, spread evenly."""


def draw(records: Path | str, against: str | None = None) -> Any:
    """The figure: a panel an arm and load with a bar an offer; or `against` a factor, a panel an arm without it, load and offer."""
    frame = requests(records)
    valid = offered(only_valid(frame))
    valid = valid[valid["status"] == "ok"]
    if valid.empty:
        return style.message("No stages: the records have no valid point with an answer at a rate that arms share.")
    if against is None:
        valid = valid.assign(series=valid["arm"], x=valid["multiple"].fillna(valid["rate"]), at="")
    else:
        valid = over(valid, against, records).assign(at=lambda rows: rows["offer"])
        valid = valid.assign(load="") if of_loads(valid, against) else valid
    every = list(valid.groupby(["load", "series", "at"], sort=False))
    chosen = style.some(every, MOST_PANELS)
    figure, axes = style.grid(len(chosen), height=2.0 if len(chosen) > 2 else 2.3, columns=min(3, len(chosen)))
    loads, offers = serving.several(valid["load"]), serving.several(valid["at"])
    for number, (axis, ((load, series, at), rows)) in enumerate(zip(axes, chosen, strict=True)):
        _bars(axis, rows)
        axis.set_title(serving.wrapped(serving.load_of(load, loads), series, at if len(offers) > 1 else ""), fontsize=8)
        axis.set_xlabel(NAMES[against] if against else _OFFERED[bool(rows["multiple"].isna().iloc[0])])
        if number % 3 == 0:
            axis.set_ylabel("mean time (ms)")
    offer = serving.at(offers[0]) if against and len(offers) == 1 else ""
    drawn = f"{len(chosen)} of {len(every)} panels, spread evenly" if len(chosen) < len(every) else ""
    serving.head(figure, frame, "means over the answered requests, from the scheduled time", offer, drawn, invalid_are="left out")
    style.legend(figure, [Patch(label=name, **_EDGE, **look) for name, look in STAGES.items()], 5)
    return figure


def means(rows: Frame) -> dict[str, float]:
    """Milliseconds that answered requests spent on average in each stage."""
    *inside, outside = STAGES
    found = {name: float(rows[f"{name}_ms"].mean()) for name in inside}
    return {**found, outside: max(0.0, float(latencies(rows).mean()) - sum(found.values()))}


def _bars(axis: Any, rows: Frame) -> None:
    """A stacked bar each value of the column x, with the total on top."""
    found = {value: means(its) for value, its in rows.groupby("x")}
    below = np.zeros(len(found))
    for name, look in STAGES.items():
        heights = np.array([its[name] for its in found.values()])
        axis.bar(range(len(found)), heights, bottom=below, width=0.72, label=name, **_EDGE, **look)
        below = below + heights
    for place, total in enumerate(below):
        axis.text(place, total, style.digits(total), ha="center", va="bottom", fontsize=6.5)
    axis.set_xticks(range(len(found)), [style.compact(value) for value in found])
    axis.tick_params(axis="x", length=0, labelsize=7)
    axis.grid(visible=False, axis="x")
    serving.from_zero(axis, below)


def main() -> int:
    return command(draw, "Draw what the time of a RAG experiment's requests went into.", serving.AGAINST)


if __name__ == "__main__":
    run(main)
