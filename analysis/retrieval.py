"""How well a RAG experiment's arms retrieve: the share of questions whose source is among the k, and the mean reciprocal rank."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from analysis.measured import Frame
from analysis.statistics import Summary, mean


@dataclass(frozen=True)
class Quality:
    """Means over requests, of which `n` is the number of different questions, which are what the intervals are drawn over.

    hits:       the share of answers that retrieved their source (hit@k)
    reciprocal: the mean reciprocal rank of the source, 0 where it was not retrieved
    """

    k: int | str
    hits: Summary
    reciprocal: Summary


def quality(found: Frame) -> Quality | None:
    """Of the answered requests of `found`; None where their sources' ranks are not known."""
    answered = found[found["status"] == "ok"]
    if "rank" not in answered or answered["rank"].isna().all():
        return None
    answered = answered[answered["rank"].notna()]
    ranks = pd.to_numeric(answered["rank"])
    questions = answered["question"] if "question" in answered else pd.Series(answered.index, index=answered.index)
    sizes = [len(names) for names in answered["retrieved"] if names is not None] if "retrieved" in answered else []
    hits = [group.to_numpy(dtype=float) for _, group in (ranks > 0).groupby(questions)]
    reciprocal = [group.to_numpy(dtype=float) for _, group in (1 / ranks.where(ranks > 0)).fillna(0).groupby(questions)]
    return Quality(max(sizes) if sizes else "k", mean(hits), mean(reciprocal))
