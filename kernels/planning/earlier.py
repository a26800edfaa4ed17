"""What the records of earlier runs say of the time that measuring took, as `kernels.planning.estimate` takes it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from analysis.records import read_notes
from cluster import models
from cluster.site import Gpu
from kernels.planning.estimate import BESIDE_S, FIXED, Spent

COLUMNS = ("operator", "backend", "problem", "status", "limit_ms", "ceilings", "device", "device_kind", "first_call_ms", "started")


@dataclass
class Earlier:
    """Of one device: what was spent by (stage, operator, backend), the latest last, and the seconds by phase of jobs, by stage."""

    spent: dict[tuple[str, str, str], list[Spent]] = field(default_factory=dict)
    jobs: dict[str, list[Mapping[str, float]]] = field(default_factory=dict)


def read(results: Path, run: str, device: str, gpu: Gpu | None) -> Earlier:
    """What the runs under `results` but for `run` recorded on a planned device; of a known `gpu` only what it recorded itself.

    A file that cannot be read is no reason to stop: it says nothing, and a note says so.
    """
    found, files = Earlier(), []
    for path in sorted(path for stage in ("sweep", "bench") for path in results.glob(f"*/{stage}/*.{device}.parquet")):
        if path.parent.parent.name != run:
            try:
                files.append((path, *_rows(path)))
            except Exception as error:  # of another version, damaged, no Parquet: by many types
                print(f"note: {path}: not used for estimates ({(str(error).splitlines() or [type(error).__name__])[0]})", file=sys.stderr)
    for path, rows, jobs in sorted(files, key=lambda file: max((row["started"] for row in file[1]), default="")):
        if gpu is None or all(models.same(row["device"], gpu.name) for row in rows if row["device_kind"] == "gpu"):
            stage = path.parent.name
            found.jobs.setdefault(stage, []).extend(jobs)
            for (operator, backend), spent in _spent(rows, jobs):
                found.spent.setdefault((stage, operator, backend), []).append(spent)
    return found


def _rows(path: Path) -> tuple[list[dict[str, Any]], list[Mapping[str, float]]]:
    """The rows with what was spent on each and how many measurements it stands for, and the seconds by phase of the jobs that made them."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    names = pq.read_schema(path).names
    exact = "spent_s" in names  # else of a version before it: the calls that were timed, without their flushes
    table = pq.read_table(path, columns=[*COLUMNS, "aa_samples_ms", "spent_s" if exact else "samples_ms"])
    twice = [bool(count) for count in pc.list_value_length(table["aa_samples_ms"]).to_pylist()]
    spent = table["spent_s"].to_pylist() if exact else [sum(samples or ()) / 1e3 for samples in table["samples_ms"].to_pylist()]
    rows = table.select(list(COLUMNS)).to_pylist()
    for row, seconds, aa in zip(rows, spent, twice, strict=True):
        seconds = (seconds or 0.0) if exact else seconds + (row["first_call_ms"] or 0.0) / 1e3
        row["points"] = (1 + aa) if row["status"] in ("measured", "stopped") else 0
        row["spent_s"] = seconds * (1 + aa)
    begun = min((datetime.fromisoformat(row["started"]).timestamp() for row in rows), default=0.0)
    jobs = [job["seconds"] for job in read_notes(path).get("jobs", ()) if job["ended"] >= begun]  # not those of points that are gone
    return rows, jobs


def _spent(rows: list[dict[str, Any]], jobs: list[Mapping[str, float]]) -> list[tuple[tuple[str, str], Spent]]:
    """The parts of a file: what its jobs did beside the configurations and their start is shared by all parts alike."""
    parts: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if row["points"]:
            parts.setdefault((row["operator"], row["backend"], row["problem"]), []).append(row)
    running = sum(seconds for job in jobs for phase, seconds in job.items() if phase not in FIXED)
    beside = max(0.0, running - sum(row["spent_s"] for row in rows)) / max(1, len(parts)) if jobs else BESIDE_S
    found = []
    for (operator, backend, problem), its in parts.items():
        points, seconds = sum(row["points"] for row in its), sum(row["spent_s"] for row in its)
        found.append(((operator, backend), Spent(problem, points, seconds, beside, its[0]["limit_ms"], json.loads(its[0]["ceilings"]))))
    return found
