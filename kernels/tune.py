"""Tune stage: the fastest block of each backend and problem, derived from a sweep's records.

    python -m kernels.tune knn.cpu.parquet --out knn.cpu.json

A block wins only if its median beats the default's by more than the noise floor of that job and their intervals are apart.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from analysis.cli import BadInput, replacing, run
from analysis.records import read_parquet
from analysis.statistics import beats, ratio, summary
from kernels.tuned import FOLDER, SCHEMA, file_name, read

COLUMNS = (
    "point",
    "attempt",
    "operator",
    "backend",
    "problem",
    "block",
    "status",
    "samples_ms",
    "aa_samples_ms",
    "noise",
    "device",
    "device_kind",
)


def winners(frame: Any) -> list[dict[str, Any]]:
    """An entry for each (operator, backend, problem) with a noise floor; see `kernels.tuned` for its fields."""
    entries = []
    timed = frame[frame.status.isin(["measured", "stopped"]) & (frame.attempt == frame.groupby("point").attempt.transform("max"))]
    for (operator, backend, problem), group in timed.groupby(["operator", "backend", "problem"], sort=True):
        rows = list(group[group.status == "measured"].itertuples())
        medians = {row.point: summary(row.samples_ms).median for row in rows}
        default = next((row for row in rows if len(row.aa_samples_ms)), None)  # the default block is the one measured twice
        if default is None:
            continue
        best = min(rows, key=lambda row: medians[row.point])
        noise = float(group.noise.max())
        gain = ratio(default.samples_ms, best.samples_ms)
        if best.point != default.point and not beats(gain, noise):
            best = default
        entries.append(
            {
                "operator": operator,
                "backend": backend,
                "problem": json.loads(problem),
                "block": json.loads(best.block),
                "median_ms": medians[best.point],
                "default_block": json.loads(default.block),
                "default_ms": medians[default.point],
                "noise": noise,
                "candidates": len(group),
                "points": [best.point, default.point],
            }
        )
    return entries


def table(frame: Any, source: str) -> dict[str, Any]:
    """The tuned table of one sweep. Raises BadInput where its rows are of several devices."""
    devices = sorted(set(frame.device))
    if len(devices) != 1:
        raise BadInput(f"{source}: rows of {len(devices)} devices ({', '.join(devices)}); a tuned table is of one")
    return {"schema": SCHEMA, "device": devices[0], "device_kind": frame.device_kind.iloc[0], "entries": winners(frame)}


def promote(paths: list[Path], folder: Path = FOLDER) -> list[Path]:
    """Merge tuned tables of a run into the shipped ones, a file a GPU; entries of the same problem are replaced."""
    by_device: dict[str, dict[str, Any]] = {}
    for path in paths:
        if not path.is_file():
            raise BadInput(f"{path}: no such tuned table; name one that the tune stage made")
        made = read(path)
        if made.get("device_kind") == "gpu":
            target = by_device.setdefault(made["device"], {**made, "entries": []})
            target["entries"] += made["entries"]
    written = []
    for device, merged in by_device.items():
        path = folder / file_name(device)
        both = [*read(path)["entries"], *merged["entries"]]
        keyed = {json.dumps([e["operator"], e["backend"], e["problem"]], sort_keys=True): e for e in both}
        merged["entries"] = [keyed[key] for key in sorted(keyed)]
        write(path, merged)
        written.append(path)
    return written


def write(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", nargs="+", type=Path, help="a sweep's record file, or with --promote the tuned tables of a run")
    parser.add_argument("--out", type=Path, help="tuned table to write (JSON)")
    parser.add_argument("--promote", action="store_true", help=f"merge tuned tables of GPUs into {FOLDER.name}/ beside the kernels")
    options = parser.parse_args()
    if options.promote:
        written = promote(options.records)
        print("promoted: " + ", ".join(map(str, written)) if written else "nothing to promote: no table of a GPU among them")
        return 0
    if not options.out or len(options.records) != 1:
        raise BadInput("tune: give one record file and --out, or --promote with tuned tables")
    write(options.out, table(read_parquet(options.records[0], COLUMNS), str(options.records[0])))
    return 0


if __name__ == "__main__":
    run(main)
