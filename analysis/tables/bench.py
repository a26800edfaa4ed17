"""How fast is each backend, beside the hardware's limit and NumPy? Bench records; a row a problem and backend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.cli import run
from analysis.measured import BASELINE, Frame, canonical, common, device, label, points, samples_text, timed, tuned, varying
from analysis.statistics import ratio
from analysis.tables import command, fixed

_ORDER = (
    *("problem", "backend", "median (ms)", "limit (ms)", "of the limit (%)", "over NumPy"),
    *("error (tolerances)", "includes", "device"),
)


def table(records: Sequence[Path]) -> Frame:
    """Medians with intervals, the share of the limit reached, and the speed over NumPy on the same problem where it was measured.

    Rows of several files stay apart: each is compared with its own file's baseline, on its own device. What could not run
    stands in the note, with the reason.
    """
    rows: list[dict[str, Any]] = []
    failed: list[str] = []
    for path in records:
        frame = points(path)
        fields = varying(list(frame["problem"]))
        measured = tuned(timed(frame, path))
        base = {canonical(row.problem): row.samples_ms for row in measured[measured["backend"] == BASELINE].itertuples()}
        for row in measured.itertuples():
            rows.append(_row(row, fields, base.get(canonical(row.problem))))
        failed += list(_unmeasured(frame, measured))
        for row in rows:
            row.setdefault("device", device(frame))
        same = common(list(frame["problem"]))
        counts = samples_text(list(measured["summary"]))
    found = pd.DataFrame(rows)
    at = {text: number for number, text in enumerate(dict.fromkeys(found["problem"]))}
    found = found.sort_values("problem", key=lambda column: column.map(at), kind="stable").reset_index(drop=True)
    found = found[[name for name in _ORDER if name in found]]
    sentences = {"problem": "", "device": "{}.", "includes": "The time: {}."}
    return fixed(
        found,
        sentences,
        f"Problems: {same}." if len(records) == 1 else "",
        f"Medians of {counts}, in brackets the 95 % bootstrap interval.",
        *failed,
    )


def _unmeasured(frame: Frame, measured: Frame) -> Iterator[str]:
    """A sentence for each backend and reason for which problems have no time."""
    done = set(zip(measured["backend"], measured["problem"].map(canonical), strict=True))
    lacking = frame[[pair not in done for pair in zip(frame["backend"], frame["problem"].map(canonical), strict=True)]]
    for (backend, status, reason), rows in lacking.fillna({"reason": "no reason given"}).groupby(["backend", "status", "reason"]):
        yield f"{backend}: {len(rows)} {status} ({reason})."


def _row(row: Any, fields: list[str], base: Any) -> dict[str, Any]:
    limit: Any = getattr(row, "limit_ms", None)
    known = pd.notna(limit)
    return {
        "problem": label(row.problem, fields),
        "backend": row.backend,
        "median (ms)": row.summary,
        "limit (ms)": float(limit) if known else None,
        "of the limit (%)": 100 * float(limit) / row.median if known else None,
        "over NumPy": ratio(base, row.samples_ms) if base is not None else None,
        "error (tolerances)": float(row.error) if getattr(row, "error", None) is not None else None,
        "includes": getattr(row, "includes", ""),
    }


def main() -> int:
    return command(table, "Tabulate tuned kernels beside their peers, NumPy and the limit.")


if __name__ == "__main__":
    run(main)
