"""What the figures of RAG experiments share: what stands over them, series over a factor, and the marks of what says nothing."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from analysis import load, style
from analysis.load import over_repeats, telling, unanswered
from analysis.measured import LOADED, Frame, device
from analysis.statistics import Summary

SLO_MS: tuple[str, dict[str, Any]] = ("--slo-ms", {"type": float, "help": "the latency objective in ms (default: none)"})
AGAINST: tuple[str, dict[str, Any]] = ("--against", {"help": "the key of the arms or of the loads on the x axis (default: none)"})
GUIDE: dict[str, Any] = {"color": style.GREY, "linestyle": ":", "linewidth": 1.2}
"""A line that is no measurement: an objective, or what would be ideal."""
HOLLOW: dict[str, Any] = {"markerfacecolor": "white", "markeredgewidth": 0.9, "markersize": 5, "linestyle": "none", "zorder": 4}
_LETTERS = 26
"""Of a title over a third of the width."""
_ARROW: dict[str, Any] = {"marker": "$↑$", "markersize": 7, "linestyle": "none"}


def head(figure: Any, frame: Frame, *parts: str, invalid_are: str = "hollow") -> None:
    """The line over a figure: device, requests and those not answered, `parts`, weights, and what became of points that are not valid."""
    lost, wrong = unanswered(frame), invalid(frame)
    style.head(
        figure,
        device(frame),
        f"{len(frame)} requests" + (f" ({lost})" if lost else ""),
        *parts,
        weights(frame),
        f"{wrong} not valid, {invalid_are}" if wrong else "",
    )


def weights(frame: Frame) -> str:
    """The weights, for the line over a figure."""
    text = load.weights(frame)
    return f"weights: {text}" if "," in text else f"{text} weights" if text else ""


def invalid(frame: Frame) -> str:
    """How many points are not valid, as text; empty where all are."""
    wrong = len(frame[~frame["valid"].astype(bool)].drop_duplicates(list(LOADED)))
    return f"{wrong} point{'s' * (wrong > 1)}" if wrong else ""


def repeats(summaries: Sequence[Summary]) -> str:
    """Of how many repeats the medians are, and with which interval, as text."""
    counts = sorted({each.n for each in summaries}) or [0]
    text = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"medians of {text} repeats, bars: 95 % bootstrap interval" if counts[-1] > 1 else "1 repeat (no interval)"


def goodput(frame: Frame) -> str:
    """What counts as good by the objective of the records."""
    objective = frame["slo_ms"].iloc[0]
    return f"goodput: answers within {objective:g} ms" if np.isfinite(objective) else "goodput: all answers"


def series(axis: Any, rows: Frame, column: str, look: dict[str, Any], label: str) -> list[Summary]:
    """A line through the medians over repeats of `column`, at each `x` of `rows`; hollow where no repeat is valid; what was drawn.

    What is infinite has an arrow at the upper edge.
    """
    xs, summaries, hollow = [], [], []
    for x, found in rows.groupby("x"):
        xs.append(float(x))
        hollow.append(not found["valid"].any())
        summaries.append(over_repeats(telling(found)[column]))
    finite = [np.isfinite(each.median) for each in summaries]
    drawn = [each if fine else Summary(np.nan, np.nan, np.nan, each.n) for each, fine in zip(summaries, finite, strict=True)]
    style.intervals(axis, xs, drawn, label=label, **look)
    empty = {"color": look["color"], "marker": look["marker"], **HOLLOW}
    axis.plot(*_at(xs, [each.median for each in drawn], hollow), **empty)
    for x in [x for x, fine in zip(xs, finite, strict=True) if not fine]:
        (arrow,) = axis.plot(x, 0.94, transform=axis.get_xaxis_transform(), color=look["color"], **_ARROW)
        arrow.set_in_layout(False)
    return summaries


def _at(xs: list[float], ys: list[float], chosen: list[bool]) -> tuple[list[float], list[float]]:
    return [x for x, mine in zip(xs, chosen, strict=True) if mine], [y for y, mine in zip(ys, chosen, strict=True) if mine]


def handles(looks: dict[str, dict[str, Any]]) -> list[Line2D]:
    """The legend of the arms."""
    return [Line2D([], [], label=name, **look) for name, look in looks.items()]


def from_zero(axis: Any, values: Any) -> None:
    """A y axis from zero to above the largest finite value."""
    finite = [value for value in values if np.isfinite(value)]
    axis.set_ylim(0, 1.15 * max([*finite, 1e-9]))


def spans(values: Any, ratio: float) -> bool:
    """Whether the largest of positive values is more than `ratio` times the smallest, so that their axis is logarithmic."""
    values = np.asarray(list(values), dtype=float)
    values = values[np.isfinite(values)]
    return bool(len(values) and values.min() > 0 and values.max() > ratio * values.min())


def titled(*parts: str) -> str:
    """A panel's title from those of its parts that say something."""
    return ", ".join(filter(None, parts))


def wrapped(*parts: str) -> str:
    """As `titled`, in lines that fit a third of the width, broken between parts where that suffices."""
    lines = [""]
    for part in filter(None, parts):
        joined = titled(lines[-1], part)
        lines[-1:] = [joined] if len(joined) <= _LETTERS else [lines[-1], part]
    return "\n".join(broken for line in lines for broken in textwrap.wrap(line, _LETTERS))


def at(offer: str) -> str:
    """What arms were offered, for a title."""
    return f"{offer} offered" if offer.endswith("/s") else f"at {offer}"


def several(names: Any) -> list[str]:
    """The names in their order."""
    return list(dict.fromkeys(names))


def load_of(name: str, loads: Sequence[str]) -> str:
    """A load's name for a title, where there are several."""
    return name if len(loads) > 1 else ""
