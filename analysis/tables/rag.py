"""What does each arm of a RAG experiment answer at each rate, how fast and how well? RAG records; a row an arm and rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.cli import run
from analysis.load import latencies, over_repeats, rates
from analysis.measured import Frame, device, requests
from analysis.statistics import summary
from analysis.tables import command, fixed


def table(records: Sequence[Path], slo_ms: float | None = None) -> Frame:
    """Latency percentiles are over all requests, from the scheduled time, with those not answered as infinite."""
    rows: list[dict[str, Any]] = []
    for path in records:
        frame = requests(path)
        achieved = rates(frame, slo_ms).groupby(["arm", "rate"])
        for (arm, rate), found in frame.groupby(["arm", "rate"]):
            its = _row(found, achieved.get_group((arm, rate)), slo_ms)
            rows.append({"arm": arm, "offered (1/s)": float(rate), **its, "device": device(frame)})
        repeats = frame["repeat"].nunique()
    sentences = {"device": "{}.", "weights": "Weights: {}.", "rejected": "{} rejected.", "timeout": "{} timed out.", "error": "{} errors."}
    said = "Latency from the scheduled time over all requests; those not answered are infinite."
    return fixed(pd.DataFrame(rows), sentences, f"{repeats} repeat{'s' if repeats > 1 else ''}.", said)


def _row(found: Frame, achieved: Frame, slo_ms: float | None) -> dict[str, Any]:
    took, counts = latencies(found), found["status"].value_counts()
    name, hits, mrr = quality(found)
    return {
        "achieved (1/s)": over_repeats(achieved["achieved"]),
        **({f"within {slo_ms:g} ms (1/s)": over_repeats(achieved["goodput"])} if slo_ms is not None else {}),
        "p50 (ms)": summary(took, 0.5),
        "p99 (ms)": summary(took, 0.99),
        **{status: int(counts.get(status, 0)) for status in ("ok", "rejected", "timeout", "error")},
        name: hits,
        "MRR": mrr,
        "weights": ", ".join(sorted(set(found["weights"].dropna()))) if "weights" in found else "–",
    }


def quality(found: Frame) -> tuple[str, float | None, float | None]:
    """The name hit@k with the run's k, the share of answers that found their source, and the mean reciprocal rank."""
    answered = found[found["status"] == "ok"]
    if "rank" not in answered or answered["rank"].isna().all():
        return "hit@k", None, None
    ranks = pd.to_numeric(answered["rank"]).dropna()
    sizes = [len(names) for names in answered["retrieved"] if names is not None] if "retrieved" in answered else []
    reciprocal = (1 / ranks.where(ranks > 0)).fillna(0)
    return f"hit@{max(sizes)}" if sizes else "hit@k", float((ranks > 0).mean()), float(reciprocal.mean())


def main() -> int:
    return command(
        table,
        "Tabulate a RAG experiment by arm and offered rate.",
        ("--slo-ms", {"type": float, "help": "the latency objective in ms: adds the goodput within it (default: none)"}),
    )


if __name__ == "__main__":
    run(main)
