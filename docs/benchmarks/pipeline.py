"""How long the pipeline itself takes: planning the paper's run, and making all figures and tables again.

    python docs/benchmarks/pipeline.py
    python docs/benchmarks/pipeline.py --points 10000      instead: planning and resuming a sweep of so many points, some minutes

Works on a copy of the tree in a temporary folder; but for the small problems of `--points` nothing is measured, and no GPU, Slurm
or network is needed. The processor's time stands beside the wall time, which other users of the machine lengthen.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
ROWS = [64, 128, 256, 1024]


def copy(to: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    archive = subprocess.run(
        ["tar", "c", "--null", "--ignore-failed-read", "-T", "-"], cwd=ROOT, input=listed, capture_output=True, check=True
    ).stdout
    subprocess.run(["tar", "x"], cwd=to, input=archive, check=True)


def start(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    said = folder / "said.txt"
    with said.open("wb") as file:
        return subprocess.Popen([sys.executable, "-m", "snakemake", *words], cwd=folder, env=environment, stdout=file, stderr=file)


def seconds(folder: Path, *words: str) -> tuple[float, float]:
    """Wall time and processor time of one `snakemake WORDS…`. Raises CalledProcessError, with its output, where it fails."""
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    code = start(folder, *words).wait()
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if code:
        raise subprocess.CalledProcessError(code, words, (folder / "said.txt").read_text())
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def told(times: list[tuple[float, float]]) -> str:
    walls, used = zip(*times, strict=True)
    spread = f"{min(walls):.1f} to {max(walls):.1f}"
    return f"median {statistics.median(walls):.1f} s of {len(times)} ({spread}), {statistics.median(used):.1f} s of processor"


def usual(folder: Path, repeats: int) -> None:
    plan = [seconds(folder, "-n", "--quiet", "all", "--configfile", "config/paper.yaml") for _ in range(repeats)]
    print(f"snakemake -n on config/paper.yaml: {told(plan)}; aim 3 s")
    again, _ = seconds(folder, "figures", "tables", "--quiet", "all")
    print(f"all figures and tables of the shipped run: {again:.1f} s on {os.cpu_count()} cores; aim 30 s")


def many(folder: Path, points: int, repeats: int) -> None:
    """A sweep of so many points of a cheap operator: planned, measured, and resumed with one point missing. No figures of it are drawn."""
    sizes = {"metric": "l2", "q": 1, "n": list(range(100, 100 + points // (10 * len(ROWS)))), "d": list(range(1, 11))}
    sweep = {"distance": {"problems": [sizes], "backends": ["numpy"], "blocks": {"numpy": {"ROWS": ROWS}}}}
    config = {"name": "many", "seed": 1, "devices": ["cpu"], "architectures": [], "samples": 2, "sweep": sweep}
    (folder / "config" / "many.yaml").write_text(yaml.safe_dump(config))
    words = ("results/many/sweep/distance.cpu.parquet", "--quiet", "all", "--configfile", "config/many.yaml")
    print(f"snakemake -n on {points} points, none recorded: {told([seconds(folder, '-n', *words) for _ in range(repeats)])}; aim 10 s")
    print(f"all measured: {seconds(folder, *words)[0]:.0f} s")
    shard = forget_one(folder / "results" / "many")
    print(f"snakemake -n with one point missing: {told([seconds(folder, '-n', *words) for _ in range(repeats)])}; aim 10 s")
    begun, resumed = time.perf_counter(), start(folder, *words)
    while not shard.exists() and resumed.poll() is None:
        time.sleep(0.05)  # the job is a grandchild: its file is all that tells of its start
    print(f"resumed with one point missing: {time.perf_counter() - begun:.1f} s to the first job's start; aim 30 s")
    if resumed.wait():
        raise subprocess.CalledProcessError(resumed.returncode, words, (folder / "said.txt").read_text())
    print(f"and {time.perf_counter() - begun:.1f} s to its end")


def forget_one(run: Path) -> Path:
    """Take one point's record and its shard's files from a run, as a kill would leave it; the log that the shard's next job begins with."""
    journal = max((run / "sweep/journal/distance.cpu").glob("*.jsonl"))
    lines = journal.read_text().splitlines()
    last = max(number for number, line in enumerate(lines) if json.loads(line)["role"] == "candidate")
    problem = json.loads(lines.pop(last))["problem"]
    journal.write_text("\n".join([*lines, ""]))
    shards = json.loads((run / "plan.json").read_text())["cuts"]["sweep/distance.cpu"]["shards"]
    number = next(number for number, shard in shards.items() if problem in [each["problem"] for each in shard])
    log = run / "logs" / "sweep" / f"distance.cpu.{number}.log"
    for file in (log, run / "sweep/shards" / f"distance.cpu.{number}.parquet", run / "sweep/distance.cpu.parquet"):
        file.unlink()
    return log


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the pipeline itself on this machine.")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each dry run (default: 5)")
    parser.add_argument("--points", type=int, help="time a sweep of so many points instead")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy(folder)
        if options.points:
            many(folder, options.points, options.repeats)
        else:
            usual(folder, options.repeats)


if __name__ == "__main__":
    main()
