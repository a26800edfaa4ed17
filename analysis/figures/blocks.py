"""Which block configuration is fastest, and what could not run? Sweep records; a heat map a backend and problem."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import NullFormatter

from analysis import style
from analysis.cli import run
from analysis.figures import command
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
    spaces = [every[at] for at in np.unique(np.linspace(0, len(every) - 1, MOST_MAPS).round().astype(int))]
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
            axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, edgecolor="#999999", linewidth=0, zorder=1, **_CELL[worst["status"]]))
            text = axis.text(column, row, used[-1][0], ha="center", va="center", fontsize=7)
            text.set_bbox({"facecolor": "#EEEEEE", "edgecolor": "none", "pad": 0.8})
        elif cell["status"][cell["median"].idxmin()] == "stopped":
            signs[row, column] = STOPPED
    _color(figure, axis, values, signs, small)
    _label(axis, shown, xs, ys)
    return used


def _color(figure: Any, axis: Any, values: np.ndarray, signs: np.ndarray, small: bool) -> None:
    """The measured cells in colour with their signs and medians written in, and the outline of the smallest."""
    colors = matplotlib.colormaps["cividis_r"]
    low, high = np.nanmin(values, initial=np.inf), np.nanmax(values, initial=-np.inf)
    if low > high:
        axis.set_xlim(-0.5, values.shape[1] - 0.5)
        axis.set_ylim(-0.5, values.shape[0] - 0.5)
        return
    norm = LogNorm(low, max(high, low * 1.01))
    image = axis.imshow(values, cmap=colors, norm=norm, origin="lower", aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            dark = sum(colors(norm(value))[:3]) < 1.5
            size = 5 if small or values.shape[1] > 6 else 7
            text, color = signs[row, column] + style.digits(value), "white" if dark else "black"
            axis.text(column, row, text, ha="center", va="center", fontsize=size, color=color)
    row, column = np.unravel_index(np.nanargmin(values), values.shape)
    inside = Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, fill=False, edgecolor="#D55E00", linewidth=2, zorder=3)
    axis.add_patch(inside)
    if small:  # no room for a scale, and every cell has its number
        return
    bar = figure.colorbar(image, ax=axis, pad=0.02, fraction=0.06)
    style.log_values(bar.ax.yaxis)
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)


def _label(axis: Any, shown: list[str], xs: list[int], ys: list[int]) -> None:
    axis.grid(visible=False)
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
    axis.set_xticks(range(len(xs)), [_size(value) for value in xs])
    axis.set_yticks(range(len(ys)), [_size(value) for value in ys])
    axis.set_xlabel(shown[0] if shown else "no block parameters")
    if not shown:
        axis.set_xticks([])
    if len(shown) > 1:
        axis.set_ylabel(shown[1])
    else:
        axis.set_yticks([])


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
