"""How much of the offered load is answered, and how much in time? RAG records; achieved rate and goodput against offered rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.lines import Line2D

from analysis import style
from analysis.cli import run
from analysis.figures import command, serving
from analysis.load import rates
from analysis.measured import Frame, requests
from analysis.statistics import Summary

_FAR_APART = 50.0
"""The ratio of the highest offered rate to the lowest from which on the axes are logarithmic."""


def draw(records: Path | str, slo_ms: float | None = None) -> Any:
    """The figure: answered requests a second, and beside it those within the objective where there is one; a row a load.

    A rate that a search tried is a rate like any other.
    """
    frame = requests(records)
    found = rates(frame, slo_ms).assign(x=lambda rows: rows["rate"])
    columns = {"achieved": "all answers"} | ({} if slo_ms is None else {"goodput": f"answers within {slo_ms:g} ms"})
    loads = serving.several(found["load"])
    panels = [(load, column) for load in loads for column in columns]
    figure, axes = style.grid(len(panels), height=2.4 if len(loads) == 1 else 2.0)
    looks = style.arms(found["arm"].unique())
    shown: list[Summary] = []
    for axis, (load, column) in zip(axes, panels, strict=True):
        shown += _panel(axis, found[found["load"] == load], column, looks)
        axis.set_title(serving.titled(serving.load_of(load, loads), columns[column]))
    for load in loads:
        _scale([axis for axis, panel in zip(axes, panels, strict=True) if panel[0] == load], found[found["load"] == load])
    serving.head(figure, frame, serving.repeats(shown))
    style.legend(figure, [*serving.handles(looks), Line2D([], [], label="all that was offered", **serving.GUIDE)])
    return figure


def _panel(axis: Any, rows: Frame, column: str, looks: dict[str, dict[str, Any]]) -> list[Summary]:
    offered = sorted(rows["rate"].unique())
    axis.plot(offered, offered, marker="" if len(offered) > 1 else "_", **serving.GUIDE)
    shown = []
    for arm, its in rows.groupby("arm", sort=False):
        shown += serving.series(axis, its, column, looks[arm], arm)
    axis.set_xlabel("offered requests/s")
    axis.set_ylabel("answered requests/s")
    return shown


def _scale(axes: list[Any], found: Frame) -> None:
    """The same axes on all panels of a load: from zero, or logarithmic where arms are orders of magnitude apart."""
    if serving.spans(found["rate"], _FAR_APART):
        low = found["achieved"][found["achieved"] > 0].min()
        for axis in axes:
            axis.set_xlim(found["rate"].min() / 1.3, found["rate"].max() * 1.3)
            axis.set_ylim(low / 1.5, found["rate"].max() * 1.3)
            style.log_values(axis.xaxis)
            style.log_values(axis.yaxis)
        return
    for axis in axes:
        axis.set_xlim(0, found["rate"].max() * 1.05)
    top = max(axis.get_ylim()[1] for axis in axes)
    for axis in axes:
        axis.set_ylim(0, top)


def main() -> int:
    return command(draw, "Draw achieved against offered rate of a RAG experiment.", serving.SLO_MS)


if __name__ == "__main__":
    run(main)
