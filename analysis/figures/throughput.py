"""How much of the offered load is answered, and how much in time? RAG records; achieved rate and goodput against offered rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.lines import Line2D

from analysis import style
from analysis.cli import run
from analysis.figures import command
from analysis.load import over_repeats, rates, unanswered
from analysis.measured import device, requests, samples_text

IDEAL: dict[str, Any] = {"color": style.GREY, "linestyle": ":", "linewidth": 1.2}


def draw(records: Path | str, slo_ms: float | None = None) -> Any:
    """The figure: answered requests a second, and beside it those within the objective where there is one."""
    frame = requests(records)
    found = rates(frame, slo_ms)
    panels = [("achieved", "all answers")]
    if slo_ms is not None:
        panels.append(("goodput", f"answers within {slo_ms:g} ms"))
    figure, axes = style.grid(len(panels), height=2.4)
    looks = style.arms(sorted(found["arm"].unique()))
    offered = sorted(found["rate"].unique())
    shown = []
    for axis, (column, name) in zip(axes, panels, strict=True):
        axis.plot(offered, offered, marker="" if len(offered) > 1 else "_", **IDEAL)
        for arm, rows in found.groupby("arm"):
            summaries = [over_repeats(values) for _, values in rows.groupby("rate")[column]]
            shown += summaries
            style.intervals(axis, sorted(rows["rate"].unique()), summaries, label=arm, **looks[arm])
        axis.set_xlabel("offered requests/s")
        axis.set_ylabel("answered requests/s")
        axis.set_title(name)
        axis.set_xlim(0, max(offered) * 1.05)
        axis.set_ylim(bottom=0)
    if len(axes) > 1:
        top = max(axis.get_ylim()[1] for axis in axes)
        for axis in axes:
            axis.set_ylim(0, top)
    lost = unanswered(frame)
    repeats = samples_text(shown).replace("samples", "repeats").replace("1 repeats", "1 repeat (no interval)")
    weights = sorted(set(frame["weights"].dropna())) if "weights" in frame else []
    style.head(
        figure,
        device(frame),
        f"{len(frame)} requests" + (f" ({lost})" if lost else ""),
        f"medians of {repeats}, bars: 95 % bootstrap interval",
        f"{', '.join(weights)} weights" if weights else "",
    )
    handles = [Line2D([], [], label=arm, **look) for arm, look in looks.items()]
    style.legend(figure, [*handles, Line2D([], [], label="all that was offered", **IDEAL)])
    return figure


def main() -> int:
    return command(
        draw,
        "Draw achieved against offered rate of a RAG experiment.",
        ("--slo-ms", {"type": float, "help": "the latency objective in ms: draws the goodput within it (default: none)"}),
    )


if __name__ == "__main__":
    run(main)
