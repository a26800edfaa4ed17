"""Which records made a number of the paper: where, when, by which code and job, on which device.

python -m analysis.provenance KnnCpuTorchBestMs --run results/smoke
"""

from __future__ import annotations

import argparse
import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from analysis import numbers
from analysis.cli import BadInput, run
from analysis.measured import label, mapping
from analysis.records import read_parquet


def lookup(name: str, folder: Path) -> dict[str, Any]:
    """The sidecar's entry of a number, with or without its backslash. Raises BadInput, naming the nearest there are."""
    path = folder / "numbers.json"
    if not path.is_file():
        raise BadInput(f"{path}: missing; make it with python -m analysis.numbers --run {folder} --out {folder / 'numbers.tex'}")
    known = json.loads(path.read_text(encoding="utf-8"))
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or list(known)[:3]
        raise BadInput(f"{name}: no such number in {path}; near it: {', '.join(near)}")
    return known[name]


def records(entry: dict[str, Any], folder: Path) -> dict[str, Any]:
    """For each record file of an entry, the frame of the rows that made the number."""
    found = {}
    for file, ids in entry["records"].items():
        frame = read_parquet(folder / file)
        found[file] = frame[frame["point"].isin(ids)] if ids else frame
        if found[file].empty and ids:
            raise BadInput(f"{folder / file}: none of the number's points is in it any more; make numbers.tex again")
    return found


def lines(name: str, folder: Path) -> Iterator[str]:
    """The answer, line by line."""
    entry = lookup(name, folder)
    interval = f", 95 % interval {entry['low']:.6g} to {entry['high']:.6g}" if isinstance(entry["low"], float) else ""
    unit = "" if entry["unit"] == "count" else f" {entry['unit']}"
    yield f"{name} = {entry['text']}{unit} (n = {entry['n']}{interval})"
    yield f"{entry['what']}; on {entry['device']}"
    now = numbers.collect(folder).get(name)
    if now is None or now.text != entry["text"]:
        yield f"stale: the records now give {now.text if now else 'no such number'}; make numbers.tex again"
    for file, frame in records(entry, folder).items():
        yield f"{folder / file}: {len(frame)} of its records"
        yield from dict.fromkeys(_origin(row) for row in frame.to_dict("records"))


def _origin(row: dict[str, Any]) -> str:
    """One record's origin, in one line; rows of one origin give the same."""
    found = mapping(row.get("provenance"))
    gpu = found.get("gpu") or {}
    job = "_".join(str(found[name]) for name in ("slurm_job_id", "slurm_array_task_id") if name in found)
    parts = {
        "point": row.get("point"),
        "": " ".join(str(row[name]) for name in ("backend", "arm", "architecture") if row.get(name)),
        "problem": label(mapping(row.get("problem"))),
        "block": label(mapping(row.get("block"))),
        "commit": str(found.get("commit", "")) + (" with uncommitted changes" if found.get("dirty") else ""),
        "host": found.get("host"),
        "Slurm job": job,
        "device": row.get("device"),
        "GPU": gpu.get("uuid"),
        "driver": gpu.get("driver"),
        "started": row.get("started"),
        "command": found.get("command"),
    }
    return "  " + "; ".join(f"{name} {value}".strip() for name, value in parts.items() if value)


def main() -> int:
    parser = argparse.ArgumentParser(description="Say which records, job, commit, host and device made a number.")
    parser.add_argument("number", help="the number's macro, with or without its backslash")
    parser.add_argument("--run", type=Path, default=Path("results/smoke"), help="the run's folder (default: results/smoke)")
    options = parser.parse_args()
    for line in lines(options.number.lstrip("\\"), options.run):
        print(line)
    return 0


if __name__ == "__main__":
    run(main)
