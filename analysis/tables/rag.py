"""What does each arm of a RAG experiment answer at each rate, how fast and how well? RAG records; a row an arm, load and offered rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.cli import run
from analysis.load import latencies, offered, over_repeats, rates, telling, weights
from analysis.measured import Frame, device, requests
from analysis.retrieval import quality
from analysis.statistics import summary
from analysis.tables import command, fixed

_SENTENCES = {
    **{"load": "", "times the highest": "", "device": "{}.", "weights": "Weights: {}.", "not valid": "Not valid, all rows: {}."},
    **{"rejected": "{} rejected.", "timeout": "{} timed out.", "error": "{} errors."},
}


def table(records: Sequence[Path], slo_ms: float | None = None) -> Frame:
    """Latency percentiles are over all requests, from the scheduled time, with those not answered as infinite.

    Rates that a search tried on its way are left out. What is not valid says why, and counts only where no repeat is valid.
    """
    rows: list[dict[str, Any]] = []
    for path in records:
        frame = requests(path)
        shared = offered(frame)
        points = rates(shared, slo_ms)
        for arm in frame["arm"].unique():  # in the order of the config
            for (load, offer), found in shared[shared["arm"] == arm].groupby(["load", "offer"], sort=False):
                mine = points[(points["arm"] == arm) & (points["load"] == load) & (points["offer"] == offer)]
                rows.append({"arm": arm, "load": load, **_row(found, mine, slo_ms), "device": device(frame)})
        repeats = frame["repeat"].nunique()
    said = "Latency from the scheduled time over all requests; those not answered are infinite."
    notes = ([f"{repeats} repeat{'s' if repeats > 1 else ''}."] if rows else ["No rate that arms share."]) + [said]
    return fixed(pd.DataFrame(rows), _SENTENCES, *notes)


def _row(found: Frame, points: Frame, slo_ms: float | None) -> dict[str, Any]:
    wrong = _wrong(found)
    found, points = telling(found), telling(points)
    took, counts, its = latencies(found), found["status"].value_counts(), quality(found)
    return {
        "offered (1/s)": float(points["rate"].median()),
        "times the highest": float(points["multiple"].iloc[0]) if points["multiple"].notna().all() else None,
        "achieved (1/s)": over_repeats(points["achieved"]),
        **({f"within {slo_ms:g} ms (1/s)": over_repeats(points["goodput"])} if slo_ms is not None else {}),
        "p50 (ms)": summary(took, 0.5),
        "p99 (ms)": summary(took, 0.99),
        **{status: int(counts.get(status, 0)) for status in ("ok", "rejected", "timeout", "error")},
        f"hit@{its.k if its else 'k'}": its.hits.median if its else None,
        "MRR": its.reciprocal.median if its else None,
        "weights": weights(found) or "–",
        "not valid": wrong,
    }


def _wrong(found: Frame) -> str:
    """Why repeats are not valid, and how many of them where the row is of the others; empty where all are."""
    wrong = found[~found["valid"].astype(bool)]
    count = f"{wrong['repeat'].nunique()} of {found['repeat'].nunique()} repeats left out: " if 0 < len(wrong) < len(found) else ""
    return count + "; ".join(dict.fromkeys(wrong["invalid"]))


def main() -> int:
    return command(
        table,
        "Tabulate a RAG experiment by arm and offered rate.",
        ("--slo-ms", {"type": float, "help": "the latency objective in ms: adds the goodput within it (default: none)"}),
    )


if __name__ == "__main__":
    run(main)
