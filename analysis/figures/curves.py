"""What speed-ups and scaling share: series over one field of the problem, a panel a metric, one legend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from matplotlib.lines import Line2D

from analysis import style
from analysis.cli import BadInput
from analysis.measured import Frame, label, varying

AXES = {"d": "dimension D", "n": "collection size N", "q": "queries Q", "k": "neighbours k", "m": "rows M"}

METRICS = {"l2": "L2", "l1": "L1 (Manhattan)", "dot": "dot product"}


def over(frame: Frame, against: str, path: Path | str) -> Frame:
    """`frame` with the columns x (the value of `against`), panel (the metric) and rest (the other fields that vary, as text)."""
    problems = list(frame["problem"])
    values = [problem.get(against) for problem in problems]
    if any(isinstance(value, bool) or not isinstance(value, int | float) or value <= 0 for value in values):
        known = [name for name, value in problems[0].items() if isinstance(value, int | float) and not isinstance(value, bool)]
        raise BadInput(f"--against {against}: not a positive number in every problem of {path}; one of {', '.join(known)}")
    rest = [name for name in varying(problems) if name not in (against, "metric")]
    return frame.assign(
        x=values,
        panel=[str(problem.get("metric", "")) for problem in problems],
        rest=[label(problem, rest) for problem in problems],
    )


def panels(frame: Frame, against: str, height: float) -> tuple[Any, Iterator[tuple[Any, Frame]]]:
    """A figure with a panel for each metric, and each panel's axes with its rows."""
    names = list(dict.fromkeys(frame["panel"]))
    figure, axes = style.grid(len(names), height=height if len(names) > 1 else height + 0.3)

    def each() -> Iterator[tuple[Any, Frame]]:
        for axis, name in zip(axes, names, strict=True):
            axis.set_title(METRICS.get(name, name))
            axis.set_xlabel(AXES.get(against, against))
            yield axis, frame[frame["panel"] == name]

    return figure, each()


class Series:
    """The look of each series, colour and marker by backend and line by the other fields, and the legend they make."""

    def __init__(self, frame: Frame) -> None:
        self.backends = style.looks(sorted(frame["backend"].unique()))
        self.rests = {rest: style.LINES[number % len(style.LINES)] for number, rest in enumerate(dict.fromkeys(frame["rest"]))}

    def draw(self, axis: Any, rows: Frame, summaries: Callable[[Frame], list[Any]]) -> None:
        """Each backend's line in `axis`, through what `summaries` gives for its rows in the order of x."""
        for (backend, rest), found in rows.groupby(["backend", "rest"], sort=False):
            found = found.sort_values("x")
            style.intervals(axis, found["x"], summaries(found), linestyle=self.rests[rest], label=backend, **self.backends[backend])

    def handles(self) -> list[Line2D]:
        named = [Line2D([], [], label=name, **look) for name, look in self.backends.items()]
        if len(self.rests) > 1:
            named += [Line2D([], [], color=style.GREY, linestyle=line, label=rest) for rest, line in self.rests.items()]
        return named
