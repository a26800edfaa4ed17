"""What do bursts cost? RAG records of several loads; latency and goodput by load, or over a key of the loads, an arm a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from analysis import style
from analysis.cli import run
from analysis.factors import NAMES, of_loads, over
from analysis.figures import command, serving
from analysis.load import offered, rates
from analysis.measured import Frame, requests
from analysis.statistics import Summary

_COLUMNS = {"p50": "median latency (ms)", "p99": "99th percentile (ms)", "goodput": "goodput (requests/s)"}
_ROOM = 0.6
"""Of the space of a load that its arms take, side by side."""
MOST_ROWS = 4
"""Offers beyond which those drawn are some of them, spread evenly."""


def draw(records: Path | str, against: str | None = None) -> Any:
    """The figure: a row an offer, which are the rates of the config or multiples of the highest that searches found.

    The panels are the median latency, its 99th percentile, and the goodput within the objective of the records. Loads stand side by
    side, unless `against` is a number in their settings.
    """
    frame = requests(records)
    shared = offered(frame)
    if shared.empty:
        return style.message("No comparison of loads: the records have no rate that arms share.")
    if not of_loads(shared, against):
        against = None
    if against is None:
        names, arms = serving.several(frame["load"]), serving.several(frame["arm"])
        beside = {arm: _ROOM * ((number + 0.5) / len(arms) - 0.5) for number, arm in enumerate(arms)}
        shared = shared.assign(x=shared["load"].map(names.index) + shared["arm"].map(beside), series=shared["arm"])
    else:
        names, shared = [], over(shared, against, records)
    found, columns = rates(shared, frame["slo_ms"].iloc[0]), list(_COLUMNS)
    offers = _offers(found)
    rows = style.some(offers, MOST_ROWS)
    figure, axes = style.grid(len(rows) * len(columns), height=2.0 if len(rows) == 1 else 1.8, columns=len(columns))
    looks = style.arms(found["series"].unique())
    shown: list[Summary] = []
    for number, axis in enumerate(axes):
        column, (offer, its) = columns[number % len(columns)], rows[number // len(columns)]
        for name, mine in its.groupby("series", sort=False):
            shown += serving.series(axis, mine, column, looks[name] | ({"linestyle": "none"} if names else {}), str(name))
        axis.set_title(_COLUMNS[column] if len(rows) == 1 else f"{_COLUMNS[column]},\n{offer}", fontsize=8.5 if len(rows) == 1 else 7.5)
        _axis(axis, its, column, names, against)
        if column == "p99" and np.isfinite(frame["slo_ms"].iloc[0]):
            axis.axhline(frame["slo_ms"].iloc[0], **serving.GUIDE)
    serving.head(
        figure,
        frame,
        serving.at(rows[0][0]) if len(rows) == 1 else "",
        serving.repeats(shown),
        serving.goodput(frame),
        "arrow: infinite, too few were answered" if any(np.isinf(each.median) for each in shown) else "",
        f"{len(rows)} of {len(offers)} offers" if len(rows) < len(offers) else "",
    )
    style.legend(figure, serving.handles({name: look | ({"linestyle": "none"} if names else {}) for name, look in looks.items()}))
    return figure


def _offers(found: Frame) -> list[tuple[str, Frame]]:
    """The points of each offer."""
    return [(str(offer), rows) for offer, rows in found.groupby("offer", sort=False)]


def _axis(axis: Any, rows: Frame, column: str, names: list[str], against: str | None) -> None:
    if against is None:
        crowded = sum(map(len, names)) > 20
        axis.set_xticks(range(len(names)), names, rotation=35 if crowded else 0, ha="right" if crowded else "center")
        axis.set_xlim(-0.5, len(names) - 0.5)
        axis.tick_params(axis="x", labelsize=7)
    else:
        axis.set_xlabel(NAMES[against].partition(" (")[0])
        if serving.spans(rows["x"], 4):
            style.log_sizes(axis, rows["x"])
    if column != "goodput" and serving.spans(rows[column], 8):
        style.log_values(axis.yaxis)
    else:
        serving.from_zero(axis, rows[column])


def main() -> int:
    return command(draw, "Draw a RAG experiment's latency and goodput by load.", serving.AGAINST)


if __name__ == "__main__":
    run(main)
