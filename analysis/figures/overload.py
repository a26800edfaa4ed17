"""Does goodput hold when more is offered than can be served? RAG records; goodput and refused shares at multiples of the highest rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.lines import Line2D

from analysis import style
from analysis.cli import run
from analysis.figures import command, serving
from analysis.load import over_peak, rates
from analysis.measured import requests
from analysis.statistics import Summary

_PANELS = {"over_peak": "goodput over its peak", "rejected": "share rejected", "lost": "share timed out or failed"}


def draw(records: Path | str) -> Any:
    """The figure: a panel a quantity, an arm (and load) a line; goodput is within the objective of the records.

    The peak is the highest goodput of the same search or of its multiples, in the same repeat.
    """
    frame = requests(records)
    found = over_peak(rates(frame, frame["slo_ms"].iloc[0]))
    if found.empty:
        return style.message("No overload: the records have no multiples of a highest rate (the load's key times).")
    found = found.assign(x=found["multiple"])
    loads = serving.several(found["load"])
    found["series"] = [serving.titled(arm, serving.load_of(load, loads)) for arm, load in zip(found["arm"], found["load"], strict=True)]
    figure, axes = style.grid(len(_PANELS), height=2.3, columns=len(_PANELS))
    looks = style.arms(found["series"].unique())
    shown: list[Summary] = []
    for axis, (column, name) in zip(axes, _PANELS.items(), strict=True):
        for series, rows in found.groupby("series", sort=False):
            shown += serving.series(axis, rows, column, looks[series], str(series))
        if column == "over_peak":
            axis.axhline(1, **serving.GUIDE)
        axis.set_title(name)
        axis.set_xlabel("offered / highest rate")
        axis.set_ylim(0, 1.06)
        style.log_sizes(axis, found["x"])
    peaks = {name: style.digits(rows.groupby("repeat")["peak"].first().median()) for name, rows in found.groupby("series", sort=False)}
    serving.head(figure, frame[frame["multiple"].notna()], serving.goodput(frame), serving.repeats(shown))
    named = {f"{name} (peak {peaks[name]}/s)": look for name, look in looks.items()}
    style.legend(figure, [*serving.handles(named), Line2D([], [], label="the peak", **serving.GUIDE)], 3)
    return figure


def main() -> int:
    return command(draw, "Draw what a RAG experiment's arms do under overload.")


if __name__ == "__main__":
    run(main)
