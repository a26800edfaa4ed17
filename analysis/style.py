"""How every figure looks: a column of a NeurIPS page, Times-like type, colours that the colour-blind and a grey printer can tell.

Files are the same bytes for the same records: no date, no version, no random ids in them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from analysis.cli import replacing

WIDTH = 5.5  # inches: the text width of a NeurIPS page
GREY = "#555555"
_COLORS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")  # Okabe and Ito's, without yellow
_MARKERS = ("s", "o", "^", "D", "v", "P", "X")
LINES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
_KNOWN = ("numpy", "torch", "triton", "cupy")  # the same colour in every figure
_RC: Any = {
    "font.family": "STIXGeneral",  # Times-like, and shipped with matplotlib: the same on every machine
    "mathtext.fontset": "stix",
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "figure.titlesize": 7.5,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "hatch.linewidth": 0.5,
    "pdf.fonttype": 42,  # TrueType: conferences refuse Type 3
    "svg.hashsalt": "blockwise",
    "savefig.dpi": 200,
}


def grid(panels: int, height: float = 2.3, columns: int = 2, width: float = WIDTH) -> tuple[Figure, list[Any]]:
    """A figure of text width with `panels` axes, at most `columns` a row, each row `height` inches high."""
    matplotlib.rcParams.update(_RC)
    columns = min(columns, panels)
    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(width, rows * height + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[panels:]:
        unused.remove()
    return figure, axes[:panels]


def some(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of `items`, spread evenly, the first and the last among them."""
    return [items[at] for at in np.unique(np.linspace(0, len(items) - 1, most).round().astype(int))]


def looks(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each name, in their order; the packaged backends have the same ones everywhere."""
    names = list(dict.fromkeys(names))
    known = [name for name in _KNOWN if name in names]
    free = [slot for slot in range(len(_COLORS)) if not known or slot >= len(_KNOWN)] or list(range(len(_COLORS)))
    others = [name for name in names if name not in known]
    slots = {name: _KNOWN.index(name) for name in known} | {name: free[i % len(free)] for i, name in enumerate(others)}
    return {name: {"color": _COLORS[slots[name]], "marker": _MARKERS[slots[name]]} for name in names}


def arms(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """As `looks`, with a line style for each name besides; more names than there are colours have shades, in their order."""
    found = looks(names)
    if len(found) > len(_COLORS):
        shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.88, len(found)))
        found = {name: look | {"color": to_hex(shade)} for (name, look), shade in zip(found.items(), shades, strict=True)}
    return {name: look | {"linestyle": LINES[number % len(LINES)]} for number, (name, look) in enumerate(found.items())}


def head(figure: Figure, *parts: str) -> None:
    """The line over the axes that says on what, of how many samples and with which interval the figure was drawn."""
    wide, lines = int(19 * figure.get_figwidth()), [""]
    for part in filter(None, parts):
        joined = f"{lines[-1]} · {part}" if lines[-1] else part
        lines[-1:] = [joined] if len(joined) <= wide or not lines[-1] else [lines[-1], part]
    figure.suptitle("\n".join(lines), color=GREY)


def message(text: str) -> Figure:
    """A figure that says why there is nothing to draw, so that a run without it still has its report."""
    figure, (axis,) = grid(1, height=0.8)
    axis.set_axis_off()
    axis.text(0.5, 0.5, text, ha="center", va="center", color=GREY, wrap=True)
    return figure


_HANDLE_INCHES, _LETTER_INCHES, _ROW_INCHES = 0.55, 0.05, 0.17  # of a legend's entry, and of a row of them


def legend(figure: Figure, handles: Sequence[Any], columns: int = 4) -> None:
    """One legend under all axes, of at most so many columns as there is room for; of many rows the figure is higher for it."""
    if not handles:
        return
    names = [len(str(handle.get_label())) for handle in handles]
    rows = next(rows for rows in range(math.ceil(len(names) / columns), len(names) + 1) if rows == len(names) or _fits(figure, names, rows))
    figure.set_figheight(figure.get_figheight() + _ROW_INCHES * max(0, rows - 2))
    balanced = math.ceil(len(handles) / rows)
    figure.legend(handles=handles, loc="outside lower center", ncols=balanced, columnspacing=1.4, handlelength=2.2)


def _fits(figure: Figure, names: Sequence[int], rows: int) -> bool:
    """Whether a legend of names of so many letters in so many rows is no wider than the figure."""
    widths = [_HANDLE_INCHES + _LETTER_INCHES * max(names[start : start + rows]) for start in range(0, len(names), rows)]
    return sum(widths) <= figure.get_figwidth()


def compact(value: float) -> str:
    """A size as people write it: 4M, 20k, 32768."""
    for unit, letter in ((1_000_000, "M"), (1_000, "k")):
        if value >= 10 * unit / (10 if letter == "M" else 1) and value % unit == 0:
            return f"{int(value // unit)}{letter}"
    return f"{value:g}" if value != int(value) else str(int(value))


def digits(value: float) -> str:
    """A measured value with three significant digits: 0.512, 1.00, 1230; with an exponent only below 0.0001."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "–"
    rounded = float(f"{value:.2e}")
    if rounded == 0 or abs(rounded) >= 100:
        return f"{value:.0f}"
    if abs(rounded) < 1e-4:
        return f"{value:.2e}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(rounded))))}f}"


def log_sizes(axis: Any, values: Iterable[float]) -> None:
    """A logarithmic x axis with a tick at each of `values`, and a label where there is room for one."""
    ticks = sorted(set(values))
    axis.set_xscale("log")
    low, high = ticks[0] / 1.25, ticks[-1] * 1.25
    axis.set_xlim(low, high)
    span, labelled = math.log(high / low), [ticks[-1]]
    for tick in reversed(ticks[:-1]):
        if math.log(labelled[-1] / tick) / span > 0.11:
            labelled.append(tick)
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(value) if value in labelled else ""))
    axis.xaxis.set_minor_locator(NullLocator())


_LABEL_INCHES = 0.35  # of a tick label such as "5000", with space around it


def log_values(axis: Any, unit: str = "") -> None:
    """A logarithmic axis (`axes.xaxis` or `axes.yaxis`) with plain labels: every decade, or 1, 2, 5 where they have room.

    Call it when everything is plotted: the ticks follow from what the axis spans.
    """
    axis._set_axes_scale("log")
    low, high = axis.get_view_interval()
    decades = math.log10(high / low) if 0 < low < high else 1
    if decades < 0.5:
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    else:
        box = axis.axes.get_window_extent().transformed(axis.axes.figure.dpi_scale_trans.inverted())
        room = decades < 2.2 and (axis.axis_name == "y" or 3 * decades * _LABEL_INCHES < box.width)
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if room else (1.0,), numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{compact(value)}{unit}"))
    axis.set_minor_formatter(NullFormatter())


def together(axes: Sequence[Any], unit: str = "") -> None:
    """The same logarithmic y axis on all `axes`, so that their panels compare by eye."""
    for axis in axes:
        axis.set_yscale("log")
    low, high = min(axis.get_ylim()[0] for axis in axes), max(axis.get_ylim()[1] for axis in axes)
    for axis in axes:
        axis.set_ylim(low, high)
        log_values(axis.yaxis, unit)


def intervals(axis: Any, x: Sequence[float], summaries: Sequence[Any], **look: Any) -> None:
    """Medians over `x` joined by a line, each with its interval as a bar (none where a summary has none)."""
    middle = np.array([each.median for each in summaries])
    below = middle - np.array([each.low for each in summaries])
    above = np.array([each.high for each in summaries]) - middle
    axis.errorbar(x, middle, yerr=[below, above], capsize=2, capthick=0.8, elinewidth=0.8, **look)


def save(figure: Figure, stem: Path | str) -> None:
    """Write `<stem>.pdf` (vectors) and `<stem>.png` (200 dots an inch)."""
    with replacing(f"{stem}.pdf") as path:
        figure.savefig(path, format="pdf", metadata={"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None})
    with replacing(f"{stem}.png") as path:
        figure.savefig(path, format="png", metadata={"Software": None})
