"""How long the pipeline itself takes: planning the paper's run, and making all figures and tables again.

    python docs/benchmarks/pipeline.py

Works on a copy of the tree in a temporary folder; nothing is measured, and no GPU, Slurm or network is needed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def copy(to: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    archive = subprocess.run(
        ["tar", "c", "--null", "--ignore-failed-read", "-T", "-"], cwd=ROOT, input=listed, capture_output=True, check=True
    ).stdout
    subprocess.run(["tar", "x"], cwd=to, input=archive, check=True)


def seconds(folder: Path, *words: str) -> float:
    """Wall time of one `snakemake WORDS…`. Raises CalledProcessError, with its output, where it fails."""
    start = time.perf_counter()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([sys.executable, "-m", "snakemake", *words], cwd=folder, env=environment, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the pipeline itself on this machine.")
    parser.add_argument("--repeats", type=int, default=5, help="runs of the dry run (default: 5)")
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy(folder)
        plan = [seconds(folder, "-n", "--quiet", "all", "--configfile", "config/paper.yaml") for _ in range(repeats)]
        print(
            f"snakemake -n on config/paper.yaml: median {statistics.median(plan):.1f} s of {repeats}"
            f" ({min(plan):.1f} to {max(plan):.1f}); aim 3 s"
        )
        again = seconds(folder, "figures", "tables", "--quiet", "all")
        print(f"all figures and tables of the shipped run: {again:.1f} s on {os.cpu_count()} cores; aim 30 s")


if __name__ == "__main__":
    main()
