"""What was varied in a RAG experiment: the settings in which its arms or its loads differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from analysis.cli import BadInput
from analysis.measured import Frame, mapping

NAMES = {
    "max_batch": "largest batch (requests)",
    "queue": "places in the queue",
    "wait_ms": "wait for a fuller batch (ms)",
    "limit_ms": "limit on the time to an answer (ms)",
    "tokens": "tokens of a batch, at most",
    "nprobe": "lists searched, nprobe",
    "lists": "lists of the index",
    "chunks": "chunks in the index",
    "instances": "instances",
    "burstiness": "burstiness of arrivals (standard deviation of the gaps over their mean)",
}
"""What an axis over a factor says."""


def settings(frame: Frame) -> dict[str, dict[str, Any]]:
    """The settings of each arm, in the order of the records; `chunks` is how many the index has."""
    firsts = frame.drop_duplicates("arm")
    found = {arm: mapping(text) for arm, text in zip(firsts["arm"], firsts["arm_settings"], strict=True)}
    if "chunks" in firsts:
        for arm, chunks in zip(firsts["arm"], firsts["chunks"], strict=True):
            found[arm] = {**found[arm], "chunks": int(chunks)}
    return found


def over(frame: Frame, against: str, path: Path | str) -> Frame:
    """`frame` with the columns x, what `against` is in a row's arm or load, and series, the arm's name without it.

    Arms and loads without it are left out; Poisson arrivals have the burstiness 1. Raises BadInput where that is all of them, and for
    what is none of `NAMES`.
    """
    arms, loads = settings(frame), _loads(frame)
    x = [arms[arm].get(against, loads[load].get(against)) for arm, load in zip(frame["arm"], frame["load"], strict=True)]
    frame = frame.assign(x=x, series=[without(arm, against) for arm in frame["arm"]])
    frame = frame[[number(value) for value in x]]
    if frame.empty or against not in NAMES:
        known = [name for name in NAMES if any(number(its.get(name)) for its in [*arms.values(), *loads.values()])]
        why = f"no arm or load of {path} has it as a number" if frame.empty else "nothing is drawn over it"
        raise BadInput(f"--against {against}: {why}; one of {', '.join(known)}")
    return frame.assign(x=frame["x"].astype(float)).reset_index(drop=True)


def of_loads(frame: Frame, factor: str | None) -> bool:
    """Whether a factor is one of the loads, not of the arms."""
    return factor is not None and any(number(its.get(factor)) for its in _loads(frame).values())


def _loads(frame: Frame) -> dict[str, dict[str, Any]]:
    """The settings of each load."""
    firsts = frame.drop_duplicates("load")
    found = {load: mapping(text) for load, text in zip(firsts["load"], firsts["load_settings"], strict=True)}
    return {load: ({"burstiness": 1} if its.get("arrivals") == "poisson" else {}) | its for load, its in found.items()}


def without(arm: str, *factors: str) -> str:
    """An arm's name, which says what was varied, without these factors."""
    return " ".join(word for word in arm.split() if word.partition("=")[0] not in factors or "=" not in word)


def number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
