"""Which settings of the batcher serve the highest rate, or answer first? RAG records; a heat map over two settings of the arms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.patches import Patch

from analysis import style
from analysis.capacity import capacities, lower_bounds
from analysis.cli import run
from analysis.factors import NAMES, number, settings, without
from analysis.figures import command, maps, serving
from analysis.load import latencies, offered, only_valid, over_repeats, percentile
from analysis.measured import Frame, requests, varying

MOST_MAPS = 12
"""Heat maps beyond which those drawn are some of them, spread evenly."""
_HATCHED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "never": ("0", "no rate met the objective", {"facecolor": "#EEEEEE", "hatch": "///"}),
    "lost": ("∞", "more than 1 % not answered", {"facecolor": "#EEEEEE", "hatch": "///"}),
    "invalid": ("?", "not valid", {"facecolor": "#EEEEEE", "hatch": "xxx"}),
}


@dataclass(frozen=True)
class Map:
    """A heat map: its title and the value of each arm that it has, NaN of an arm that is not valid."""

    title: str
    values: dict[str, float]


def draw(records: Path | str) -> Any:
    """The figure: each cell the highest rate of an arm where rates were searched, else the 99th percentile of its latency.

    The two settings are those of the arms that have the most values; arms that differ in others are in maps of their own, and arms
    without them left out.
    """
    frame = requests(records)
    every = settings(frame)
    shown = _shown(every)
    if not shown:
        return style.message("No policy map: the arms differ in fewer than two settings that are numbers.")
    placed = {arm: its for arm, its in every.items() if all(number(its.get(name)) for name in shown)}
    frame = frame[frame["arm"].isin(placed)]
    highest = capacities(frame)
    searched = bool(highest)
    found = list(_searched(frame, shown) if searched else _timed(frame, shown))
    drawn = style.some(found, MOST_MAPS)
    small = len(drawn) > 2
    figure, axes = style.grid(len(drawn), height=1.9 if small else 2.2, columns=3 if small else 2)
    used: set[str] = set()
    for axis, its in zip(axes, drawn, strict=True):
        used |= _map(figure, axis, its, placed, shown, small, searched)
    what = "highest rate that meets the objective (requests/s)" if searched else "99th percentile of the latency (ms)"
    serving.head(
        figure,
        frame,
        f"{what}, medians over {frame['repeat'].nunique()} repeats" if frame["repeat"].nunique() > 1 else what,
        f"outlined: the {'highest' if searched else 'lowest'}",
        lower_bounds(highest),
        f"{len(drawn)} of {len(found)} maps, spread evenly" if len(drawn) < len(found) else "",
        f"{len(every) - len(placed)} arms without these settings left out" if len(every) > len(placed) else "",
        invalid_are="left out",
    )
    looks = [(f"{text}: {meaning}", look) for name, (text, meaning, look) in _HATCHED.items() if name in used]
    style.legend(figure, [Patch(label=label, edgecolor="#999999", **look) for label, look in looks])
    return figure


def _shown(every: dict[str, dict[str, Any]]) -> list[str]:
    """The two settings with the most values, the one with more across; empty where fewer than two vary."""
    names = [name for name in varying(list(every.values())) if any(number(its.get(name)) for its in every.values())]
    counts = {name: len({its[name] for its in every.values() if number(its.get(name))}) for name in names}
    most = [name for name in sorted(counts, key=lambda name: -counts[name]) if counts[name] > 1][:2]
    return most if len(most) == 2 else []


def _groups(frame: Frame, shown: list[str]) -> Iterator[tuple[str, Frame]]:
    """The rows of each map: of one load, of arms that differ in the two settings alone."""
    rests = frame["arm"].map(lambda arm: without(arm, *shown))
    loads, others = serving.several(frame["load"]), serving.several(rests)
    for (load, rest), rows in frame.groupby(["load", rests], sort=False):
        yield serving.titled(serving.load_of(load, loads), rest if len(others) > 1 else ""), rows


def _searched(frame: Frame, shown: list[str]) -> Iterator[Map]:
    for title, rows in _groups(frame, shown):
        yield Map(title, {each.arm: each.highest.median for each in capacities(rows)})


def _timed(frame: Frame, shown: list[str]) -> Iterator[Map]:
    frame = offered(frame).assign(latency=lambda rows: latencies(rows))
    for title, rows in _groups(frame, shown):
        for offer, found in rows.groupby("offer", sort=False):
            yield Map(serving.titled(title, serving.at(str(offer))), {arm: _p99(its) for arm, its in found.groupby("arm", sort=False)})


def _p99(its: Frame) -> float:
    """The median over the valid repeats of the 99th percentile; NaN without one."""
    good = only_valid(its)
    return over_repeats([percentile(found["latency"], 0.99) for _, found in good.groupby("repeat")]).median if len(good) else np.nan


def _map(figure: Any, axis: Any, its: Map, placed: dict[str, Any], shown: list[str], small: bool, searched: bool) -> set[str]:
    """Draw one heat map; which kinds of hatched cells it has."""
    xs, ys = (sorted({each[name] for each in placed.values()}) for name in shown)
    values, used = np.full((len(ys), len(xs)), np.nan), set()
    for arm, value in its.values.items():
        column, row = xs.index(placed[arm][shown[0]]), ys.index(placed[arm][shown[1]])
        values[row, column] = value if np.isfinite(value) and value > 0 else np.nan
        if np.isnan(values[row, column]):
            kind = "invalid" if np.isnan(value) else "never" if searched else "lost"
            used.add(kind)
            text, _, look = _HATCHED[kind]
            maps.hatch(axis, column, row, text, look)
    maps.color(figure, axis, values, np.full(values.shape, ""), small, largest=searched)
    across, up = (NAMES.get(name, name) for name in shown)
    maps.label(axis, list(map(style.compact, xs)), list(map(style.compact, ys)), across, up)
    axis.set_title(serving.wrapped(its.title) if small else its.title, fontsize=7.5 if small else 9)
    return used


def main() -> int:
    return command(draw, "Draw heat maps of a RAG experiment over two settings of its arms.")


if __name__ == "__main__":
    run(main)
