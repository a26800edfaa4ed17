"""What did the jobs' time go into, and what was it spent on? Accounts of sweep and bench jobs; a row an experiment and device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.accounts import CAUSES, NONE, Account, accounts, minutes_of, spent, wall_s
from analysis.cli import run
from analysis.measured import Frame, mapping, read, without_wrong
from analysis.tables import command

NEEDS = ("status", "reason", "provenance")
POINTS = {"measured": "measured", "stopped": "raced out", "pruned": "pruned", "failed": "failed", "wrong": "wrong", "copied": "copied"}
SHARES = ("kernels", *(cause for cause in CAUSES if cause != "kernels"))
_OPTIONAL = ("queued (min)", *(what for what in POINTS.values() if what != "measured"), "found compiled", "compiled again")
_MOST_EXPLAINED = 5


def table(records: Sequence[Path], points: bool = False) -> Frame:
    """Minutes, and shares of them by cause in percent; or `points` by what became of them, and kernels that were compiled again.

    A row of all experiments stands under those of each device that has several. Files without accounts give no row.
    """
    found = [(path, jobs) for path in records if (jobs := accounts([path]))]
    if not found:
        empty = pd.DataFrame()
        empty.attrs["note"] = NONE
        return empty
    every = [job for _, jobs in found for job in jobs]
    rows = [_row(jobs[0].name, [path], jobs, points, minutes_of(every)) for path, jobs in found]
    for device in dict.fromkeys(row["device"] for row in rows):
        its = [each for each, row in zip(found, rows, strict=False) if row["device"] == device]
        if len(its) > 1:
            rows.append(_row("all", [path for path, _ in its], [job for _, jobs in its for job in jobs], points, minutes_of(every)))
    return _thin(pd.DataFrame(rows), _explained(every) if points else "Shares of the minutes in %.")


def _row(name: str, paths: Sequence[Path], jobs: Sequence[Account], points: bool, held: str) -> dict[str, Any]:
    about = {"experiment": name, "device": " and ".join(dict.fromkeys(job.device for job in jobs)), "jobs": len(jobs)}
    return about | (_points(paths, jobs) if points else _minutes(jobs, held))


def _minutes(jobs: Sequence[Account], held: str) -> dict[str, Any]:
    seconds, total = spent(jobs), sum(job.held_s for job in jobs)
    known = [job.queued_s for job in jobs if job.queued is not None]
    return {
        "queued (min)": sum(known) / 60 if known else None,
        "wall (min)": wall_s(jobs) / 60,
        held: total / 60,
        **{cause: 100 * seconds[cause] / total for cause in SHARES},
    }


def _points(paths: Sequence[Path], jobs: Sequence[Account]) -> dict[str, Any]:
    """What became of the points of some record files, and how many kernels their jobs found compiled, and did not."""
    counts: Counter[str] = Counter()
    for path in paths:
        frame = without_wrong(read(path, NEEDS))
        copied = frame["provenance"].map(lambda text: bool(mapping(text).get("copied")))
        counts.update(frame["status"].mask(copied, "copied"))
    compiled = {"found compiled": sum(job.hits for job in jobs), "compiled again": sum(len(job.missed) for job in jobs)}
    return {name: counts[status] for status, name in POINTS.items()} | compiled


def _thin(frame: Frame, note: str) -> Frame:
    """The frame without columns of nothing but zeros, or of nothing known, which the note names, and without the device where it is one."""
    optional = [name for name in _OPTIONAL if name in frame]
    unknown = [name for name in optional if frame[name].isna().all()]
    nothing = [name for name in optional if name not in unknown and not frame[name].any()]
    one = frame["device"].nunique() == 1
    kept = frame.drop(columns=[*nothing, *unknown, *(["device"] if one else [])])
    said = [f"{frame['device'].iloc[0]}." if one else "", f"Zero throughout: {', '.join(nothing)}." if nothing else ""]
    said.append(f"Unknown: {', '.join(unknown)}." if unknown else "")
    kept.attrs["note"] = " ".join(filter(None, [*said, note]))
    return kept


def _explained(jobs: Iterable[Account]) -> str:
    """Why kernels were compiled anew, the most frequent reasons first."""
    reasons = Counter(reason for job in jobs for reason in job.missed)
    said = [f"{count} × {reason}" for reason, count in reasons.most_common(_MOST_EXPLAINED)]
    if len(reasons) > _MOST_EXPLAINED:
        said.append(f"and {len(reasons) - _MOST_EXPLAINED} other reasons")
    return f"Compiled again: {'; '.join(said)}." if said else ""


def main() -> int:
    return command(
        table,
        "Tabulate what the time of a run's measuring jobs went into.",
        ("--points", {"action": "store_true", "help": "the points that it was spent on instead, and the kernels compiled"}),
    )


if __name__ == "__main__":
    run(main)
