"""What does faster retrieval cost in quality? RAG records; hit@k and mean reciprocal rank against the time to retrieve, an arm a marker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from analysis import style
from analysis.cli import run
from analysis.factors import without
from analysis.figures import command, serving
from analysis.load import only_valid
from analysis.measured import Frame, requests
from analysis.retrieval import Quality, quality
from analysis.statistics import Summary, summary


def draw(records: Path | str) -> Any:
    """The figure: arms that differ in `nprobe` alone are joined, and each has its value beside it."""
    frame = requests(records)
    good = only_valid(frame)
    found = {arm: (quality(rows), _time(rows)) for arm, rows in good.groupby("arm", sort=False)}
    known: dict[str, tuple[Quality, Summary]] = {
        arm: (its, time) for arm, (its, time) in found.items() if its is not None and time is not None
    }
    if not known:
        return style.message("No quality: the records do not say which document a question is about, or which were retrieved.")
    families = {arm: without(arm, "nprobe") for arm in known}
    looks = style.arms(families.values())
    figure, axes = style.grid(2, height=2.4)
    for axis, name in zip(axes, ("hits", "reciprocal"), strict=True):
        for family in looks:
            mine = sorted((arm for arm in known if families[arm] == family), key=lambda arm: known[arm][1].median)
            _family(axis, [(arm, getattr(known[arm][0], name), known[arm][1]) for arm in mine], looks[family])
        axis.set_xlabel("median time to retrieve (ms)")
        axis.set_ylim(top=min(1.02, axis.get_ylim()[1] + 0.02))
        if serving.spans([time.median for _, time in known.values()], 8):
            style.log_values(axis.xaxis)
        else:
            axis.set_xlim(left=0)
    axes[0].set_ylabel(f"hit@{next(iter(known.values()))[0].k}")
    axes[1].set_ylabel("mean reciprocal rank")
    questions = sorted({its.hits.n for its, _ in known.values()})
    n = f"{questions[0]}" if len(questions) == 1 else f"{questions[0]} to {questions[-1]}"
    serving.head(figure, good, f"{n} questions an arm", "bars: 95 % bootstrap interval, of quality over questions", invalid_are="left out")
    style.legend(figure, serving.handles(looks))
    return figure


def _time(rows: Frame) -> Summary | None:
    """The median time to retrieve of the answered requests; None where it is not known."""
    times = rows["retrieve_ms"][rows["status"] == "ok"].dropna() if "retrieve_ms" in rows else []
    return summary(list(times)) if len(times) else None


def _family(axis: Any, points: list[tuple[str, Summary, Summary]], look: dict[str, Any]) -> None:
    """Points joined by a line, with both intervals, and the value of `nprobe` above each."""
    xs, ys = [time for *_, time in points], [value for _, value, _ in points]
    spread = {"xerr": _bars(xs), "yerr": _bars(ys), "capsize": 2, "capthick": 0.8, "elinewidth": 0.8}
    axis.errorbar([x.median for x in xs], [y.median for y in ys], **spread, **look)
    for arm, value, time in points:
        probes = next((word.removeprefix("nprobe=") for word in arm.split() if word.startswith("nprobe=")), "")
        axis.annotate(probes, (time.median, value.median), (4, -9), textcoords="offset points", fontsize=6.5, color=look["color"])


def _bars(summaries: list[Summary]) -> list[list[float]]:
    return [[each.median - each.low for each in summaries], [each.high - each.median for each in summaries]]


def main() -> int:
    return command(draw, "Draw the retrieval quality of a RAG experiment's arms against their time to retrieve.")


if __name__ == "__main__":
    run(main)
