"""What racing and pruning save, and what they cost: the same sweeps raced and exhaustive, on one GPU, by the pipeline's own stages.

    python docs/benchmarks/racing.py compile made/                                  on any machine: the kernels, into a folder
    python docs/benchmarks/racing.py measure made/ --out racing.parquet             on the GPU: some four minutes on an H100
    python docs/benchmarks/racing.py print docs/benchmarks/records/racing-h100.parquet

Exhaustive means every block that the operator's own rule allows, all samples of each, whatever the compile stage's report says of
spills. The regret is how much slower the raced sweep's winner is than the best, by the exhaustive sweep's medians of both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from analysis.cli import BadInput, run  # noqa: E402
from analysis.records import read_notes, read_parquet, write_parquet  # noqa: E402
from kernels.job import rows_of, with_noise  # noqa: E402

SWEEPS: dict[str, Any] = {
    "gemm": {
        "problems": [
            {"m": 8192, "n": 8192, "k": 8192, "precision": "tf32"},
            {"m": 8192, "n": 8192, "k": 8192, "precision": "fp16", "dtype": "float16"},
        ],
        "backends": ["triton"],
    },
    "knn": {
        "problems": [
            {"metric": "l2", "q": 100, "n": 1_000_000, "d": 128, "k": 10},
            {"metric": "l2", "q": 10_000, "n": 1_000_000, "d": 128, "k": 10},
        ],
        "backends": ["triton"],
    },
    "kmeans": {"problems": [{"metric": "l2", "n": 4_000_000, "d": 128, "k": 1024}], "backends": ["triton"]},
}
LONG: dict[str, Any] = {
    "gemm_long": {
        "operator": "gemm",
        "problems": [
            {"m": m, "n": n, "k": 8192, "precision": precision, "dtype": dtype}
            for m, n in ((8192, 8192), (4096, 16384), (16384, 4096), (4096, 8192), (8192, 4096), (12288, 8192))
            for precision, dtype in (("tf32", "float32"), ("fp16", "float16"), ("bf16", "bfloat16"))
        ],
        "backends": ["triton"],
    }
}
"""A raced sweep with as many problems as a job of the default length has: start-up no longer is most of it."""
MODES = {"exhaustive": False, "raced": True}


def config(folder: Path, raced: bool) -> Path:
    """The config of all sweeps, written into `folder`."""
    path = folder / f"racing-{raced}.yaml"
    about = {"name": "racing", "seed": 1, "samples": 30, "devices": ["auto"], "architectures": ["sm_90"]}
    content = {**about, "race": raced, "sweep": SWEEPS | LONG}
    path.write_text(yaml.safe_dump(content))
    return path


def stage(module: str, *words: object) -> None:
    """Run a stage of the pipeline. Raises BadInput where it fails."""
    done = subprocess.run([sys.executable, "-m", module, *map(str, words)], cwd=ROOT, check=False)
    if done.returncode:
        raise BadInput(f"{module} ended with status {done.returncode}: see above")


def compile_all(folder: Path, architecture: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for operator in SWEEPS:
        words = ("--operator", operator, "--architecture", architecture, "--stages", "sweep")
        files = ("--out", folder.resolve() / f"{operator}.parquet", "--cache", folder.resolve() / f"{operator}.cache")
        stage("kernels.compile", "--config", config(folder, True).resolve(), *words, *files)


def measure_all(folder: Path, out: Path) -> None:
    """Sweep every operator in both modes, one after the other, and then LONG; what each took is in the notes."""
    rows, jobs = [], []
    sweeps = [(name, name, mode) for name in SWEEPS for mode in MODES] + [(name, its["operator"], "raced") for name, its in LONG.items()]
    with tempfile.TemporaryDirectory() as temporary:
        for name, operator, mode in sweeps:
            made = Path(temporary, f"{name}.{mode}.parquet")
            words = ("--config", config(Path(temporary), MODES[mode]), "--experiment", name, "--out", made)
            files = ("--journal", Path(temporary, mode, name), "--cache", folder.resolve() / f"{operator}.cache")
            compiled = ("--compiled", folder.resolve() / f"{operator}.parquet") if MODES[mode] else ()
            stage("kernels.sweep", *words, *files, *compiled)
            rows += [{**row, "mode": mode} for row in with_noise(rows_of(made))]
            jobs += [{**job, "mode": mode} for job in read_notes(made)["jobs"]]
            write_parquet(out, rows, {"jobs": jobs})


def medians(rows: Any) -> dict[str, float]:
    """Median in milliseconds by block, of those that were measured to the end."""
    return {row.block: statistics.median(row.samples_ms) for row in rows.itertuples() if row.status == "measured"}


def compared(frame: Any) -> list[str]:
    """A line of the table for each problem."""
    lines = []
    for (operator, problem), rows in frame.groupby(["operator", "problem"], sort=False):
        every, raced = rows[rows["mode"] == "exhaustive"], rows[rows["mode"] == "raced"]
        times, winners = medians(every), medians(raced)
        best = min(times, key=lambda block: times[block])
        winner = min((block for block in winners if block in times), key=lambda block: winners[block])
        took, spent = every.spent_s.sum(), raced.spent_s.sum()
        count = {status: int((raced.status == status).sum()) for status in ("measured", "stopped")}
        pruned = len(every[every.status == "measured"]) - sum(count.values())
        named = ", ".join(f"{name} {value}" for name, value in json.loads(problem).items() if name in ("precision", "q", "n", "d", "k"))
        regret = times[winner] / times[best] - 1
        lines.append(
            f"| {operator}: {named} | {len(times)} | {pruned} | {count['stopped']} | {took:.1f} | {spent:.1f} | {spent / took:.0%} "
            f"| {times[best]:.3g} | {regret:.1%} | {every.noise.max():.1%} |"
        )
    return lines


def spent(jobs: list[dict[str, Any]]) -> list[str]:
    """A line for each sweep's job: its wall time by phase, and the share of it that went into kernels with their warm-up and flush."""
    lines = []
    for job in jobs:
        wall = job["ended"] - job["started"]
        rest = {"loading": job["loading_s"]} | {name: seconds for name, seconds in job["seconds"].items() if name != "measuring"}
        said = ", ".join(f"{name} {seconds:.1f}" for name, seconds in rest.items())
        lines.append(
            f"| {job['experiment']}, {job['mode']} | {wall:.1f} | {job['kernels_s']:.1f} | {job['kernels_s'] / wall:.0%} "
            f"| {said} | {job['compile_hits']} | {len(job['compile_missed'])} |"
        )
    return lines


def page(path: Path) -> str:
    frame, jobs = read_parquet(path), read_notes(path)["jobs"]
    head = "| problem | blocks | pruned | raced out | exhaustive, GPU s | raced, GPU s | share | best, ms | regret | noise |"
    ends = "| sweep job | wall, s | kernels, s | share | the rest, s | found compiled | compiled |"
    ruler = "|---" * 10 + "|"
    both = frame[frame.experiment.isin(SWEEPS)]
    share = both[both["mode"] == "raced"].spent_s.sum() / both[both["mode"] == "exhaustive"].spent_s.sum()
    lines = [frame.device.iloc[0], "", head, ruler, *compared(both), "", f"all: raced {share:.0%} of the exhaustive sweeps' GPU time", ""]
    return "\n".join([*lines, ends, "|---" * 7 + "|", *spent(jobs)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(dest="what", required=True)
    made = what.add_parser("compile", help="compile the kernels, on a CPU")
    made.add_argument("folder", type=Path)
    made.add_argument("--architecture", default="sm_90", help="GPU architecture (default: sm_90)")
    measured = what.add_parser("measure", help="sweep on the GPU")
    measured.add_argument("folder", type=Path, help="what `compile` made")
    measured.add_argument("--out", type=Path, required=True, help="record file to write (Parquet)")
    printed = what.add_parser("print", help="the tables of a record file")
    printed.add_argument("file", type=Path)
    options = parser.parse_args()
    if options.what == "compile":
        compile_all(options.folder, options.architecture)
    elif options.what == "measure":
        measure_all(options.folder, options.out)
        print(page(options.out))
    else:
        print(page(options.file))
    return 0


if __name__ == "__main__":
    run(main)
