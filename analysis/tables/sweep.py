"""Which block configuration is fastest, and does it surely beat the default? Sweep records; a row a backend and problem."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.cli import run
from analysis.measured import Frame, canonical, common, device, label, mapping, points, samples_text, timed, varying
from analysis.statistics import Summary, beats, ratio
from analysis.tables import command, fixed


def table(records: Sequence[Path]) -> Frame:
    """The fastest block and the default with their intervals, the gain (the ratio of the two), and whether it is outside the noise.

    The default is the block that was measured twice, for the noise floor. Raises BadInput for records of several devices.
    """
    rows: list[dict[str, Any]] = []
    for path in records:
        frame = points(path)
        measured = timed(frame, path)
        fields = varying(list(frame["problem"]))
        for (operator, backend, problem), every in frame.groupby(["operator", "backend", frame["problem"].map(canonical)], sort=False):
            counts = every["status"].value_counts()
            rows.append(
                {
                    "operator": operator,
                    "backend": backend,
                    **({"problem": label(mapping(problem), fields)} if fields else {}),
                    **_outcome(measured[measured.index.isin(every.index)]),
                    **{status: int(counts.get(status, 0)) for status in ("measured", "stopped", "pruned", "failed")},
                    "device": device(frame),
                }
            )
        same = common(list(frame["problem"]))
        counts = samples_text(list(measured["summary"]))
    sentences = {"operator": "Operator {}.", "device": "{}."}
    return fixed(
        pd.DataFrame(rows),
        sentences,
        f"Problems: {same}." if len(records) == 1 else "",
        f"Medians of {counts}, in brackets the 95 % bootstrap interval.",
    )


def default(found: Frame) -> Any:
    """The index of the default block among the timed points of one backend and problem; None where nothing was measured twice."""
    if "aa_samples_ms" not in found:
        return None
    twice = found.index[[samples is not None and len(samples) > 0 for samples in found["aa_samples_ms"]]]
    return twice[0] if len(twice) else None


def noise(found: Frame) -> float:
    """The noise floor, a relative difference; NaN where no A/A pair was measured."""
    return float(pd.to_numeric(found["noise"]).max()) if "noise" in found else math.nan


def gain(found: Frame) -> Summary | None:
    """The default's time over that of the fastest block; None without a default."""
    usual = default(found)
    return None if usual is None else ratio(found["samples_ms"][usual], found["samples_ms"][found["median"].idxmin()])


def _outcome(found: Frame) -> dict[str, Any]:
    if found.empty:
        return {"fastest block": "none measured", "median (ms)": None, "default (ms)": None, "gain": None, "verdict": "–"}
    fastest, usual, factor = found["median"].idxmin(), default(found), gain(found)
    if factor is None:
        verdict = "no default measured"
    elif fastest == usual:
        verdict = "the default"
    else:
        verdict = "faster" if beats(factor, noise(found)) else "within noise"
    return {
        "fastest block": label(found["block"][fastest]) or "no parameters",
        "median (ms)": found["summary"][fastest],
        "default (ms)": None if usual is None else found["summary"][usual],
        "gain": factor,
        "verdict": verdict,
    }


def main() -> int:
    return command(table, "Tabulate the fastest blocks of sweeps.")


if __name__ == "__main__":
    run(main)
