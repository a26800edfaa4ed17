"""Does every backend give what the oracle gives? Validate records; a row an operator, backend, mode and device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.cli import run
from analysis.measured import Frame, canonical, label, mapping, read
from analysis.tables import command, fixed

NEEDS = ("operator", "backend", "mode", "device", "problem", "block", "ok", "error", "message")


def table(records: Sequence[Path]) -> Frame:
    """Checks made and failed, the largest deviation in tolerances (1 is the most allowed), and the first failure."""
    frame = pd.concat([read(path, NEEDS)[list(NEEDS)] for path in records], ignore_index=True)
    rows = []
    for (operator, backend, mode, device), found in frame.groupby(["operator", "backend", "mode", "device"]):
        failed = found[~found["ok"].eq(True)]
        first = "" if failed.empty else f"{label(mapping(failed['problem'].iloc[0]))}: {failed['message'].iloc[0]}"
        rows.append(
            {
                "operator": operator,
                "backend": backend,
                "mode": mode,
                "device": device,
                "problems": found["problem"].map(mapping).map(canonical).nunique(),
                "checks": len(found),
                "failed": len(failed),
                "largest error": float(pd.to_numeric(found["error"]).max()),
                "first failure": first,
            }
        )
    return fixed(pd.DataFrame(rows), {"device": "{}.", "first failure": "First failure: {}."})


def main() -> int:
    return command(table, "Tabulate the checks of every backend against its oracle.")


if __name__ == "__main__":
    run(main)
