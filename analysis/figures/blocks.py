"""Which block configuration is fastest, and what could not run? Sweep records; a heat map a backend and problem."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.patches import Patch

from analysis import style
from analysis.cli import run
from analysis.figures import command, maps
from analysis.measured import Frame, canonical, common, device, label, points, samples_text, timed, varying

_CLASSES = (
    ("S", "shared memory", r"shared"),
    ("R", "registers or spills", r"regist|spill"),
    ("T", "threads", r"thread|warps"),
    ("M", "out of memory", r"memory|oom"),
    ("C", "does not compile", r"compil|ptxas|nvrtc"),
    ("W", "wrong result", r"oracle|wrong|differ|toleranc|nan"),
    ("V", "invalid for the problem", r""),
)
_CELL: dict[str, dict[str, Any]] = {"pruned": {"facecolor": "#EEEEEE", "hatch": "///"}, "failed": {"facecolor": "#EEEEEE", "hatch": "xxx"}}
MOST_MAPS = 18
"""Heat maps beyond which those drawn are some of them, spread evenly over the problems."""
STOPPED = "≈"
"""Stands before the median of what stopped early as a sure loser."""


def reason_class(reason: Any) -> tuple[str, str]:
    """The letter and the name of the class that a record's `reason` belongs to."""
    text = str(reason or "").lower()
    return next((letter, name) for letter, name, pattern in _CLASSES if re.search(pattern, text))


def draw(records: Path | str) -> Any:
    """The figure: each cell the best median over the axes not shown, in ms.

    Cells where nothing could be measured are hatched, with the class of the reason; what stopped early as a sure loser has the
    median of its few samples, after a sign; the fastest is outlined.
    """
    frame = points(records)
    best = timed(frame, records)
    stopped = frame["samples_ms"][frame["status"] == "stopped"].map(np.median)
    frame = frame.assign(median=best["median"].reindex(frame.index).fillna(stopped), key=frame["problem"].map(canonical))
    frame = frame[frame["block"].map(bool)] if frame["block"].map(bool).any() else frame
    backends = list(dict.fromkeys(frame["backend"]))
    groups = (rows for _, rows in frame.groupby(["key", "backend"], sort=False))
    every = sorted(groups, key=lambda rows: backends.index(rows["backend"].iloc[0]))
    spaces = style.some(every, MOST_MAPS)
    small = len(spaces) > 6
    height = (1.75 if small else 2.2) if any(len(_shown(rows)) > 1 for rows in spaces) else 1.3
    figure, axes = style.grid(len(spaces), height=height, columns=3 if small else 2)
    fields = varying(list(frame["problem"]))
    classes: dict[tuple[str, str], None] = {}
    for axis, rows in zip(axes, spaces, strict=True):
        classes |= dict.fromkeys(_map(figure, axis, rows, small))
        sizes = {name: style.compact(value) if isinstance(value, int) else value for name, value in rows["problem"].iloc[0].items()}
        axis.set_title("\n".join(filter(None, [str(rows["backend"].iloc[0]), label(sizes, fields)])), fontsize=7)
    counts = ", ".join(f"{count} {status}" for status, count in frame["status"].value_counts().items())
    medians = f"best medians of {samples_text(list(best['summary']))}, in ms"
    drawn = f"{len(spaces)} of {len(every)} maps, spread evenly" if len(spaces) < len(every) else ""
    style.head(figure, device(frame), common(list(frame["problem"])), f"points: {counts}", medians, "outlined: the fastest", drawn)
    style.legend(figure, _legend(frame, classes), columns=3)
    return figure


def _shown(rows: Frame) -> list[str]:
    """The two axes with the most values, the one with more across; a space of one axis has that one."""
    names = dict.fromkeys(name for block in rows["block"] for name in block)
    counts = {name: len({block.get(name) for block in rows["block"]}) for name in names}
    most = sorted(counts, key=lambda name: -counts[name])[:2]
    return most if len(most) < 2 or counts[most[1]] > 1 else most[:1]


def _map(figure: Any, axis: Any, rows: Frame, small: bool) -> list[tuple[str, str]]:
    """One heat map; the classes of reasons that it marks."""
    shown = _shown(rows)
    across = [block.get(shown[0], 0) if shown else 0 for block in rows["block"]]
    up = [block.get(shown[1], 0) if len(shown) > 1 else 0 for block in rows["block"]]
    xs, ys = sorted(set(across)), sorted(set(up))
    rows = rows.assign(column=[xs.index(value) for value in across], row=[ys.index(value) for value in up])
    values, signs = np.full((len(ys), len(xs)), np.nan), np.full((len(ys), len(xs)), "")
    used = []
    for (column, row), cell in rows.groupby(["column", "row"]):
        values[row, column] = cell["median"].min()
        if np.isnan(values[row, column]):
            worst = cell.sort_values("status").iloc[0]  # "failed" before "pruned"
            used.append(reason_class(worst["reason"]))
            maps.hatch(axis, column, row, used[-1][0], _CELL[worst["status"]])
        elif cell["status"][cell["median"].idxmin()] == "stopped":
            signs[row, column] = STOPPED
    maps.color(figure, axis, values, signs, small)
    texts = [_size(value) for value in xs] if shown else [""] * len(xs)
    maps.label(axis, texts, [_size(value) for value in ys], [*shown, "no block parameters"][0], shown[1] if len(shown) > 1 else "")
    return used


def _size(value: int) -> str:
    """A block's size, which tends to be a power of two: 4Ki, 64Ki, 1Mi."""
    for unit, prefix in ((1 << 20, "Mi"), (1 << 10, "Ki")):
        if value >= unit and value % unit == 0:
            return f"{value // unit}{prefix}"
    return style.compact(value)


def _legend(frame: Frame, classes: dict[tuple[str, str], None]) -> list[Patch]:
    unmeasured = {status for status in _CELL if (frame["status"] == status).any()} if classes else set()
    handles = [Patch(label=status, edgecolor="#999999", **_CELL[status]) for status in _CELL if status in unmeasured]
    if (frame["status"] == "stopped").any():
        handles.append(Patch(label=f"{STOPPED}: stopped early, surely slower", facecolor="none", edgecolor="none"))
    return handles + [Patch(label=f"{letter}: {name}", facecolor="none", edgecolor="none") for letter, name in classes]


def main() -> int:
    return command(draw, "Draw the block-size heat maps of a sweep.")


if __name__ == "__main__":
    run(main)
