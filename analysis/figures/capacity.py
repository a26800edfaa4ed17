"""Up to which rate does each arm meet the objective? RAG records of searches; the highest rates found, and the lowest that failed above."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from analysis import style
from analysis.capacity import Capacity, capacities, lower_bounds, unfinished
from analysis.cli import run
from analysis.factors import NAMES, of_loads, over
from analysis.figures import command, serving
from analysis.load import over_repeats
from analysis.measured import Frame, requests
from analysis.tables import interval

_WIDE = 8.0
"""The ratio of the largest to the smallest value from which on an axis is logarithmic."""
_BRACKET: dict[str, Any] = {"color": style.GREY, "linewidth": 0.9}
_NOTHING = "No highest rate: no search of these records is over."


def draw(records: Path | str, against: str | None = None) -> Any:
    """The figure: an arm a row, with the ratio to the first arm; or `against` a key of arms or loads, an arm a line."""
    frame = requests(records)
    found = capacities(frame)
    if not found:
        return style.message(_NOTHING)
    figure = _rows(found) if against is None else _over(frame, found, against, records)
    text, open_searches, bounds = serving.repeats([each.highest for each in found]), unfinished(frame), lower_bounds(found)
    serving.head(
        figure,
        frame,
        f"at least 99 % answered within {frame['slo_ms'].iloc[0]:g} ms",
        text,
        "grey: up to the lowest rate that failed",
        "" if against else f"right: ratio to {found[0].arm}",
        f"hollow: {bounds}" if bounds else "",
        f"{open_searches} searches not over, left out" if open_searches else "",
        invalid_are="counted as not in time",
    )
    return figure


def _rows(found: list[Capacity]) -> Any:
    """An arm a row, the first on top; a panel a load."""
    loads, arms = serving.several(each.load for each in found), serving.several(each.arm for each in found)
    figure, axes = style.grid(len(loads), height=max(1.0, 0.24 * len(arms) + 0.5), columns=1)
    looks = style.looks(loads)
    every = [rate for each in found for rate in [*each.found, *each.failing] if rate > 0]
    for axis, load in zip(axes, loads, strict=True):
        mine = [each for each in found if each.load == load]
        for each in mine:
            _row(axis, arms.index(each.arm), each, looks[load])
        axis.set_yticks(range(len(arms)), arms)
        axis.set_ylim(len(arms) - 0.4, -0.6)
        axis.grid(visible=False, axis="y")
        axis.set_title(serving.load_of(load, loads))
        if serving.spans(every, _WIDE):
            axis.set_xlim(min(every) / 1.5, max(every) * 1.5)
            style.log_values(axis.xaxis)
        else:
            axis.set_xlim(0, max(every) * 1.1)
    axes[-1].set_xlabel("highest rate that meets the objective (requests/s)")
    return figure


def _row(axis: Any, row: int, its: Capacity, look: dict[str, Any]) -> None:
    """An arm's median with its interval, below it the bracket of each repeat, and the ratio to the first arm at the right edge."""
    for rate, failing in zip(its.found, its.failing, strict=True):
        if np.isfinite(failing):
            axis.plot([rate or failing, failing], [row + 0.25, row + 0.25], marker="|", markersize=4, **_BRACKET)
    highest = its.highest
    if highest.median > 0:
        spread = [[highest.median - highest.low], [highest.high - highest.median]]
        axis.errorbar(highest.median, row, xerr=spread, capsize=2.5, marker="o", linestyle="none", zorder=3, color=look["color"])
        if its.at_least:
            axis.plot(highest.median, row, marker="o", color=look["color"], **serving.HOLLOW)
    axis.annotate(_ratio(its), (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize=7.5, annotation_clip=False)


def _ratio(its: Capacity) -> str:
    if its.highest.median == 0:
        return "none is known to meet it" if its.at_least else "none met it"
    return (
        ""
        if its.over_first is None
        else "≥ " * its.at_least + interval(its.over_first).replace(" [", " × [") + " ×" * bool(np.isnan(its.over_first.low))
    )


def _over(frame: Frame, found: list[Capacity], against: str, path: Path | str) -> Any:
    """The highest rate over a factor, a line an arm; of instances beside what twice as many would answer at best."""
    placed = over(frame, against, path).drop_duplicates(["arm", "load"]).set_index(["arm", "load"])
    rows = pd.DataFrame(
        [
            {"x": place["x"], "series": place["series"], "load": each.load, "rate": rate, "failing": failing, "valid": not each.at_least}
            for each in found
            if (each.arm, each.load) in placed.index
            for place in [placed.loc[[(each.arm, each.load)]].iloc[0]]
            for rate, failing in zip(each.found, each.failing, strict=True)
        ]
    )
    if of_loads(frame, against):
        rows = rows.assign(load="")
    loads = serving.several(rows["load"])
    figure, axes = style.grid(len(loads), height=2.3)
    looks = style.arms(rows["series"].unique())
    for axis, load in zip(axes, loads, strict=True):
        mine = rows[rows["load"] == load]
        for name, its in mine.groupby("series", sort=False):
            if against == "instances":
                _ideal(axis, its)
            serving.series(axis, its, "rate", looks[str(name)], str(name))
            tops = its.dropna(subset="failing")
            axis.vlines(tops["x"], tops["rate"], tops["failing"], zorder=1, **_BRACKET)
        axis.set_xlabel(NAMES[against])
        axis.set_title(serving.load_of(load, loads))
        axis.set_ylabel("highest rate (requests/s)")
        _scale(axis, mine)
    ideal = [Line2D([], [], label="in proportion to the instances", **serving.GUIDE)] if against == "instances" else []
    style.legend(figure, serving.handles(looks) + ideal)
    return figure


def _ideal(axis: Any, its: Frame) -> None:
    xs = np.array(sorted(its["x"].unique()))
    first = over_repeats(its[its["x"] == xs[0]]["rate"]).median
    axis.plot(xs, first * xs / xs[0], **serving.GUIDE)


def _scale(axis: Any, rows: Frame) -> None:
    if serving.spans(rows["x"], _WIDE / 2):
        style.log_sizes(axis, rows["x"])
    if serving.spans(rows["rate"], _WIDE / 2):
        style.log_values(axis.yaxis)
    else:
        serving.from_zero(axis, [*rows["rate"], *rows["failing"]])


def main() -> int:
    return command(draw, "Draw the highest rates at which the arms of a RAG experiment meet the objective.", serving.AGAINST)


if __name__ == "__main__":
    run(main)
