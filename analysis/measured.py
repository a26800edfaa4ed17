"""Record files as figures, tables and numbers read them: the latest attempt of every point, of one device, with its median."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.cli import BadInput
from analysis.records import read_parquet
from analysis.statistics import Summary, summary

Frame = Any
"""A pandas DataFrame. Typed loosely: pandas' stubs refuse much of what its columns do."""

POINT = ("point", "experiment", "operator", "backend", "status", "reason", "problem", "block", "device", "device_kind", "samples_ms")
REQUEST = ("arm", "rate", "repeat", "request", "scheduled_s", "end_s", "status", "device")
LOADED = ("arm", "load", "rate", "repeat")
"""What tells the points of a RAG experiment apart."""
_UNSAID = {
    **{"load": "", "arm_settings": "{}", "load_settings": "{}", "probe": "rate", "multiple": math.nan, "found_rps": math.nan},
    **{"valid": True, "invalid": "", "slo_ms": math.inf},
}
"""What a RAG experiment's records mean that lack one of these columns."""
BASELINE = "numpy"


def read(path: Path | str, needs: Sequence[str]) -> Frame:
    """The records of one file. A file of no records is an empty frame with the columns of `needs`."""
    frame = read_parquet(path)
    if frame.empty:
        return pd.DataFrame(columns=list(dict.fromkeys([*frame.columns, *needs])))
    read_parquet(path, needs)
    return frame


def mapping(text: Any) -> dict[str, Any]:
    """A record's JSON field; empty where the record has none."""
    if isinstance(text, dict):
        return text
    return json.loads(text) if isinstance(text, str) and text else {}


def points(path: Path | str) -> Frame:
    """The sweep or bench records of one file: `problem` and `block` as dicts, the latest attempt of each point.

    Raises BadInput for a file without records, or of two GPUs or two CPUs: their rows share no comparison.
    """
    frame = read(path, POINT)
    if frame.empty:
        raise BadInput(f"{path}: no records in it; run its stage again")
    _one_device(frame, path)
    order = [name for name in ("attempt", "started") if name in frame]
    frame = frame.sort_values(order, kind="stable") if order else frame
    frame = frame.drop_duplicates(["experiment", "operator", "backend", "problem", "block"], keep="last").sort_index()
    for name in ("problem", "block"):
        frame[name] = frame[name].map(mapping)
    return without_wrong(frame).reset_index(drop=True)


def without_wrong(frame: Frame) -> Frame:
    """The frame with `status` "wrong" where a result deviates from the oracle's by more than the tolerance: its time says nothing."""
    if "error" in frame and "reason" in frame:
        error = pd.to_numeric(frame["error"], errors="coerce")
        wrong = (frame["status"] == "measured") & (error > 1)
        said = error.map(lambda units: f"deviates from the oracle by {units:.3g} tolerances").astype(object)
        frame = frame.assign(status=frame["status"].mask(wrong, "wrong"), reason=frame["reason"].astype(object).mask(wrong, said))
    return frame


def timed(frame: Frame, path: Path | str) -> Frame:
    """The measured points of `points`, with a `summary` of each. Raises BadInput where there are none."""
    found = frame[frame["status"] == "measured"].copy()
    if found.empty:
        raise BadInput(f"{path}: none of its {len(frame)} points was measured; see the column reason")
    found["summary"] = [summary(samples) for samples in found["samples_ms"]]
    found["median"] = [each.median for each in found["summary"]]
    return found


def tuned(frame: Frame) -> Frame:
    """One row a backend and problem of bench's timed points: the tuned block where one is marked, else the fastest."""
    frame = frame.assign(winner=frame["winner"].eq(True) if "winner" in frame else False, key=frame["problem"].map(canonical))
    ordered = frame.sort_values(["winner", "median"], ascending=[False, True], kind="stable")
    return ordered.drop_duplicates(["backend", "key"]).sort_index()


def requests(path: Path | str) -> Frame:
    """The requests of one RAG experiment's file, the latest attempt of each point and of each search. Raises BadInput as `points` does."""
    frame = read(path, REQUEST)
    if frame.empty:
        raise BadInput(f"{path}: no records in it; run its stage again")
    _one_device(frame, path)
    frame = frame.assign(**{name: value for name, value in _UNSAID.items() if name not in frame})
    if "attempt" in frame:
        by_itself = frame["rate"].where(frame["probe"] == "rate", 0)  # a search's rates are one measurement
        latest = frame.groupby(["arm", "load", "repeat", by_itself])["attempt"].transform("max")
        frame = frame[frame["attempt"] == latest]
    return frame.reset_index(drop=True)


def _one_device(frame: Frame, path: Path | str) -> None:
    """A GPU beside the processor of its host is one machine; two GPUs, or two processors, are two."""
    kinds = frame["device_kind"] if "device_kind" in frame else pd.Series("", index=frame.index)
    for _, names in frame["device"].groupby(kinds):
        found = sorted(names.unique())
        if len(found) > 1:
            raise BadInput(f"{path}: records of {len(found)} devices ({', '.join(found)}); one comparison takes one, so split the file")


def device(frame: Frame) -> str:
    """The device's name; a GPU first, then the host's processor if rows of both are there."""
    kinds = frame.get("device_kind", "")
    names = frame.assign(kind=kinds).sort_values("kind", ascending=False)["device"]  # "gpu" before "cpu"
    return " and ".join(dict.fromkeys(names))


def canonical(fields: dict[str, Any]) -> str:
    return json.dumps(fields, sort_keys=True)


def varying(problems: Sequence[dict[str, Any]]) -> list[str]:
    """Names of the fields that differ among `problems`, in the order in which the fields stand."""
    names = dict.fromkeys(name for problem in problems for name in problem)
    return [name for name in names if len({canonical({"": problem.get(name)}) for problem in problems}) > 1]


def label(fields: dict[str, Any], names: Sequence[str] | None = None) -> str:
    """`name=value` of the named fields, or of all."""
    return ", ".join(f"{name}={fields[name]}" for name in (fields if names is None else names) if name in fields)


def common(problems: Sequence[dict[str, Any]], *shown: str) -> str:
    """`name=value` of the fields that are the same in all `problems`, but for those `shown` elsewhere."""
    other = {*varying(problems), *shown}
    return label(problems[0], [name for name in problems[0] if name not in other])


def samples_text(summaries: Sequence[Summary]) -> str:
    """How many samples stand behind each of `summaries`: "30 samples", or "5 to 30 samples"."""
    counts = sorted({each.n for each in summaries})
    return f"{counts[0]} samples" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} samples"
