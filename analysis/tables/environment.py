"""On what, and with what, was the run measured? Records of any stage; a row a device, driver and commit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.cli import run
from analysis.measured import Frame, mapping, read
from analysis.tables import MISSING, command, fixed

KEY = ("device", "driver", "commit")


def table(records: Sequence[Path]) -> Frame:
    """Hosts, jobs, clocks and versions of each device, driver and commit that the records name, and how many records it made."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for path in records:
        frame = read(path, ("versions",))
        columns = [frame.get(name, pd.Series("", index=frame.index)) for name in ("device", "versions", "provenance")]
        for device, versions, provenance in zip(*columns, strict=True):
            if not provenance:
                continue
            row = _environment(device, mapping(versions), mapping(provenance))
            kept = found.setdefault(tuple(row[name] for name in KEY), {"records": 0} | {name: {} for name in row if name not in KEY})
            kept["records"] += 1
            for name in kept.keys() - {"records"}:
                kept[name] |= dict.fromkeys(row[name])
    sentences = {"driver": "Driver {}.", "commit": "Commit {}.", "hosts": "Host {}.", "Slurm jobs": "Slurm jobs: {}."}
    return fixed(pd.DataFrame([_text(key, kept) for key, kept in found.items()]), sentences | {"SM clock (MHz)": "SM clock {} MHz."})


def _environment(device: Any, versions: dict[str, Any], provenance: dict[str, Any]) -> dict[str, Any]:
    """The environment of one record: text for each of KEY, lists for what is collected over records."""
    gpu = provenance.get("gpu") or {}
    commit = str(provenance.get("commit", MISSING))
    clock = gpu.get("clock_sm_mhz")
    return {
        "device": str(device or "compiling"),
        "driver": str(gpu.get("driver") or MISSING),
        "commit": (commit[:12] if len(commit) == 40 else commit) + (" with changes" if provenance.get("dirty") else ""),
        "hosts": [str(provenance["host"])] if provenance.get("host") else [],
        "jobs": [str(provenance["slurm_job_id"])] if provenance.get("slurm_job_id") else [],
        "clocks": [int(clock)] if clock else [],
        "versions": [f"{name} {version}" for name, version in sorted(versions.items()) if version],
    }


def _text(key: tuple[str, ...], kept: dict[str, Any]) -> dict[str, Any]:
    clocks = sorted(kept["clocks"])
    jobs = list(kept["jobs"])
    return {
        **dict(zip(KEY, key, strict=True)),
        "hosts": ", ".join(kept["hosts"]) or MISSING,
        "Slurm jobs": ", ".join(jobs) or MISSING if len(jobs) < 4 else f"{len(jobs)} jobs, {jobs[0]} to {jobs[-1]}",
        "SM clock (MHz)": MISSING if not clocks else f"{clocks[0]}" if len(clocks) == 1 else f"{clocks[0]}–{clocks[-1]}",
        "versions": ", ".join(sorted(kept["versions"])),
        "records": kept["records"],
    }


def main() -> int:
    return command(table, "Tabulate devices, drivers, commits and versions of a run.")


if __name__ == "__main__":
    run(main)
