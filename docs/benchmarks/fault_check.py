"""What a fault campaign sweeps, and whether each point was recorded once: by nothing but the config and the files that the run left."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from analysis.records import read_parquet

EXPERIMENTS = 10
ROWS = (4, 8, 16, 32, 48, 64)
NAME = "faults"
Point = tuple[str, str, str, str]
"""Experiment, backend, problem and block, the last two as JSON."""


def config(points: int, samples: int, seed: int) -> dict[str, Any]:
    """At least `points` points in ten experiments, a job each: NumPy's softmax with six blocks and torch's with none, of small arrays."""
    problems = -(-points // (EXPERIMENTS * (len(ROWS) + 1)))
    columns = [list(range(start, start + problems)) for start in range(32, 32 + EXPERIMENTS * problems, problems)]
    return {
        "name": NAME,
        "seed": seed,
        "devices": ["cpu"],
        "samples": samples,
        "race": False,
        "architectures": [],
        "operators": ["tests/operators/softmax"],
        "sweep": {
            f"s{number}": {
                "operator": "softmax",
                "problems": [{"rows": 64, "columns": each}],
                "backends": ["numpy", "torch"],
                "blocks": {"numpy": {"ROWS": list(ROWS)}},
            }
            for number, each in enumerate(columns)
        },
    }


def expected(of: dict[str, Any]) -> list[Point]:
    """Every point that a config of this kind asks for."""
    return [
        (name, backend, json.dumps({"rows": 64, "columns": columns, "dtype": "float32"}, sort_keys=True), json.dumps(block))
        for name, sweep in of["sweep"].items()
        for columns in sweep["problems"][0]["columns"]
        for backend, block in [*(("numpy", {"ROWS": rows}) for rows in ROWS), ("torch", {})]
    ]


def recorded(run: Path) -> int:
    """How many records the journals hold by now."""
    return sum(file.read_bytes().count(b"\n") for file in run.glob("sweep/journal/*/*.jsonl"))


def journals(run: Path) -> Iterator[dict[str, Any]]:
    """Every whole record of every journal; a line that is none is told by its place."""
    for file in sorted(run.glob("sweep/journal/*/*.jsonl")):
        for number, line in enumerate(file.read_bytes().split(b"\n")[:-1], 1):
            try:
                yield json.loads(line)
            except ValueError:
                raise SystemExit(f"{file}, line {number}: not a JSON record") from None


def verdict(run: Path, of: dict[str, Any]) -> dict[str, Any]:
    """How often each point stands in the Parquet files, what the journals held, and the points that are not as they should be."""
    rows = [row for file in sorted(run.glob("sweep/*.parquet")) for row in read_parquet(file).to_dict("records")]
    wanted = expected(of)
    found = Counter((row["experiment"], row["backend"], row["problem"], row["block"]) for row in rows)
    lines = list(journals(run))
    times = Counter((line["point"], line["role"], line["attempt"]) for line in lines)
    held = {(line["point"], tuple(line["samples_ms"])) for line in lines}
    wrong = [row["point"] for row in rows if not _sound(row, of["samples"]) or (row["point"], tuple(row["samples_ms"])) not in held]
    twins = sum(bool(len(row["aa_samples_ms"])) for row in rows)
    return {
        "points": len(wanted),
        "rows": len(rows),
        "lost": [list(point) for point in wanted if not found[point]],
        "twice": [list(point) for point, count in found.items() if count > 1],
        "unasked": [list(point) for point in found.keys() - set(wanted)],
        "wrong": wrong,
        "twins": twins,
        "twins_lost": 2 * len({point[2] for point in wanted}) - twins,
        "journal_files": len(list(run.glob("sweep/journal/*/*.jsonl"))),
        "journal_records": len(lines),
        "duplicates": sum(times.values()) - len(times),
    }


def complaints(found: dict[str, Any]) -> list[str]:
    """What is not as it should be, a line each; none where every point was recorded exactly once."""
    names = ("lost", "twice", "unasked", "wrong")
    lines = [f"{name}: {len(found[name])} points, such as {found[name][0]}" for name in names if found[name]]
    return lines + ([f"{found['twins_lost']} A/A measurements are lost"] if found["twins_lost"] else [])


def _sound(row: dict[str, Any], samples: int) -> bool:
    """Measured to the end, on the planned device, by a job."""
    whole = len(row["samples_ms"]) == samples and all(value > 0 for value in row["samples_ms"])
    about = json.loads(row["provenance"])
    return bool(row["status"] == "measured" and row["attempt"] == 1 and row["device_kind"] == "cpu" and "slurm_job_id" in about and whole)
