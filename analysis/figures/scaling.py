"""How does the time grow with the problem, and how far is it from the limit? Bench records; time against a field, log-log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.lines import Line2D

from analysis import style
from analysis.cli import run
from analysis.figures import command
from analysis.figures.curves import Series, over, panels
from analysis.measured import Frame, common, device, points, samples_text, timed, tuned

_LIMIT: dict[str, Any] = {"color": style.GREY, "linewidth": 2.2, "alpha": 0.55}


def draw(records: Path | str, against: str = "n") -> Any:
    """The figure: medians with their 95 % intervals, and the hardware's limit (a GPU's where rows of both kinds are there)."""
    frame = over(tuned(timed(points(records), records)), against, records)
    figure, each = panels(frame, against, height=2.3)
    series = Series(frame)
    limits = False
    for axis, rows in each:
        limits |= _limit(axis, rows, series)
        series.draw(axis, rows, lambda found: list(found["summary"]))
        axis.set_ylabel("time (ms)")
        style.log_sizes(axis, rows["x"])
    style.together(figure.axes)
    handles: list[Any] = series.handles()
    if limits:
        handles.append(Line2D([], [], label="limit of the hardware", **_LIMIT))
    same = common(list(frame["problem"]), against, "metric")
    style.head(figure, device(frame), same, f"medians of {samples_text(list(frame['summary']))}", "bars: 95 % bootstrap interval")
    style.legend(figure, handles)
    return figure


def _limit(axis: Any, rows: Frame, series: Series) -> bool:
    """The line below which no time can be; whether the records know one."""
    if "limit_ms" not in rows:
        return False
    known = rows[pd.to_numeric(rows["limit_ms"]).notna() & (rows["device_kind"] == rows["device_kind"].max())]  # "gpu" before "cpu"
    for rest, found in known.groupby("rest", sort=False):
        line = found.groupby("x")["limit_ms"].min()
        marker = "_" if len(line) == 1 else ""
        axis.plot(line.index, line.values, linestyle=series.rests[rest], marker=marker, markersize=12, zorder=1, **_LIMIT)
    return not known.empty


def main() -> int:
    return command(
        draw,
        "Draw the time of each backend against a field of the problem, with the hardware's limit.",
        ("--against", {"default": "n", "help": "the problem's field on the x axis (default: n)"}),
    )


if __name__ == "__main__":
    run(main)
