"""What was compiled for which architecture, and what does it take of a GPU? Compile records; a row an operator and architecture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.cli import run
from analysis.measured import Frame, label, mapping, read
from analysis.tables import command

NEEDS = (
    *("operator", "backend", "architecture", "kernel", "block", "registers", "spills"),
    *("shared_static", "shared_dynamic", "seconds", "verdict", "reason"),
)


def table(records: Sequence[Path], full: bool = False) -> Frame:
    """Counts and ranges; with `full`, a row a variant. A file without variants gives no row."""
    frame = pd.concat([read(path, NEEDS)[list(NEEDS)] for path in records], ignore_index=True).astype({"verdict": "object"})
    frame["shared"] = frame[["shared_static", "shared_dynamic"]].apply(pd.to_numeric).fillna(0).sum(axis=1)
    return pd.DataFrame(_variants(frame) if full else _counts(frame))


def _counts(frame: Frame) -> dict[str, list[Any]]:
    rows = [group for _, group in frame.groupby(["operator", "architecture"])]
    return {
        "operator": [group["operator"].iloc[0] for group in rows],
        "architecture": [group["architecture"].iloc[0] for group in rows],
        "variants": [len(group) for group in rows],
        **{verdict: [int((group["verdict"] == verdict).sum()) for group in rows] for verdict in ("ok", "pruned", "failed")},
        "registers": [_range(group["registers"]) for group in rows],
        "with spills": [int((pd.to_numeric(group["spills"]) > 0).sum()) for group in rows],
        "shared memory, most (KiB)": [float(group["shared"].max() / 1024) for group in rows],
        "compiling (s)": [float(pd.to_numeric(group["seconds"]).sum()) for group in rows],
    }


def _range(values: Any) -> str:
    known = pd.to_numeric(values).dropna().astype(int)
    if known.empty:
        return "–"
    return str(known.min()) if known.min() == known.max() else f"{known.min()}–{known.max()}"


def _variants(frame: Frame) -> dict[str, list[Any]]:
    def whole(name: str) -> Any:
        return pd.to_numeric(frame[name]).astype("Int64")  # whole, though some may be missing

    return {
        **{name: list(frame[name]) for name in ("operator", "backend", "architecture", "kernel")},
        "block": [label(mapping(block)) for block in frame["block"]],
        "registers": whole("registers"),
        "spills (B)": whole("spills"),
        "shared memory (B)": whole("shared"),
        "compiling (s)": [float(value) for value in pd.to_numeric(frame["seconds"])],
        "verdict": list(frame["verdict"]),
        "reason": frame["reason"].fillna(""),
    }


def main() -> int:
    return command(
        table,
        "Tabulate compiled variants by operator and architecture.",
        ("--full", {"action": "store_true", "help": "a row a variant instead"}),
    )


if __name__ == "__main__":
    run(main)
