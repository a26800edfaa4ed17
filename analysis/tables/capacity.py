"""Up to which rate does each arm of a RAG experiment meet the objective? RAG records of searches; a row an arm and load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.capacity import Capacity, at, capacities, lower_bounds, unfinished, why_not
from analysis.cli import run
from analysis.load import latencies, over_repeats, percentile, weights
from analysis.measured import Frame, device, requests
from analysis.tables import command, fixed

_SENTENCES = {"load": "", "bound": "", "device": "{}.", "weights": "Weights: {}."}


def table(records: Sequence[Path]) -> Frame:
    """The highest rates found, beside the latency there and what failed above."""
    rows: list[dict[str, Any]] = []
    notes = ["Not one search is over."]
    for path in records:
        frame = requests(path)
        found, missing = capacities(frame), unfinished(frame)
        rows += [{**_row(frame, each), "device": device(frame)} for each in found]
        if found:
            slo_ms, repeats = frame["slo_ms"].iloc[0], max(each.highest.n for each in found)
            notes = [
                f"The objective: at least 99 % answered within {slo_ms:g} ms of their scheduled time.",
                f"Medians of {repeats} repeats, in brackets the 95 % bootstrap interval." if repeats > 1 else "1 repeat.",
                f"The ratio is to {found[0].arm}, under the same load.",
                f"{bounds}." if (bounds := lower_bounds(found)) else "",
                f"{missing} searches are not over." if missing else "",
            ]
    return fixed(pd.DataFrame(rows), _SENTENCES, *notes)


def _row(frame: Frame, its: Capacity) -> dict[str, Any]:
    there = at(frame, its, its.found)
    failing = [rate for rate in its.failing if np.isfinite(rate)]
    return {
        "arm": its.arm,
        "load": its.load,
        "highest rate (1/s)": its.highest,
        "bound": "at least" if its.at_least else "",
        "ratio": its.over_first,
        "p99 there (ms)": over_repeats([percentile(latencies(rows), 0.99) for rows in there]) if there else None,
        "fails at (1/s)": over_repeats(failing) if failing else None,
        "why": why_not(frame, its) or "the search went no higher",
        "probes": its.probes,
        "weights": weights(frame[(frame["arm"] == its.arm) & (frame["load"] == its.load)]) or "–",
    }


def main() -> int:
    return command(table, "Tabulate the highest rates at which the arms of a RAG experiment meet the objective.")


if __name__ == "__main__":
    run(main)
