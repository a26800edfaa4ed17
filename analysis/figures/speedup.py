"""How much faster is each backend than the baseline? Bench records; speed over NumPy's against a field of the problem."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from analysis import style
from analysis.cli import run
from analysis.figures import command
from analysis.figures.curves import Series, over, panels
from analysis.measured import BASELINE, canonical, common, device, points, samples_text, timed, tuned
from analysis.statistics import ratio


def draw(records: Path | str, against: str = "d", baseline: str = BASELINE) -> Any:
    """The figure: ratios of medians with their 95 % intervals.

    Problems at which the baseline was not measured are left out, and counted; the figure says so where that is all of them.
    """
    frame = tuned(timed(points(records), records))
    base = {canonical(row.problem): row.samples_ms for row in frame[frame["backend"] == baseline].itertuples()}
    others = frame[frame["backend"] != baseline]
    paired = others[[canonical(problem) in base for problem in others["problem"]]]
    if paired.empty:
        return style.message(f"No speed-up: no problem was measured with both {_NAMES.get(baseline, baseline)} and another backend.")
    ratios = [ratio(base[canonical(row.problem)], row.samples_ms) for row in paired.itertuples()]
    paired = over(paired.assign(ratio=ratios), against, records)

    figure, each = panels(paired, against, height=2.0)
    series = Series(paired)
    for axis, rows in each:
        series.draw(axis, rows, lambda found: list(found["ratio"]))
        axis.axhline(1, color=style.GREY, linewidth=0.8, linestyle="--")
        axis.set_ylabel(f"speed over {_NAMES.get(baseline, baseline)}")
        style.log_sizes(axis, rows["x"])
    style.together(figure.axes, "×")
    left_out = len(others) - len(paired)
    style.head(
        figure,
        device(frame),
        common(list(paired["problem"]), against, "metric"),
        f"ratio of medians of {samples_text(ratios)}",
        "bars: 95 % bootstrap interval",
        f"{left_out} points without a {baseline} time left out" if left_out else "",
    )
    style.legend(figure, series.handles())
    return figure


_NAMES = {"numpy": "NumPy", "torch": "PyTorch"}


def main() -> int:
    return command(
        draw,
        "Draw the speed of each backend over a baseline's.",
        ("--against", {"default": "d", "help": "the problem's field on the x axis (default: d)"}),
        ("--baseline", {"default": BASELINE, "help": "the backend that is 1 (default: numpy)"}),
    )


if __name__ == "__main__":
    run(main)
