"""What a job costs beyond its work: Blockwise's executor and snakemake-executor-plugin-slurm on the same real Slurm.

    python docs/benchmarks/executor.py                               chains and fan-outs of trivial jobs, some twenty minutes
    python docs/benchmarks/executor.py --repeats 0 --fanout 1000     one large fan-out through ours, for the driver's memory

Starts the testbed and ends it (root on a Debian machine, see cluster/testbed/README.md), prints a table, and adds what it measured
to docs/benchmarks/records/executor.json. Executors take turns, and poll equally often; since the other one prolongs its wait by ten
seconds whenever it has looked in vain, it also runs with a first look that comes when a job of the chain has just ended. Snakemake
imports every plugin that it finds, and the other one imports pandas: each sees its own alone, as where only one is installed.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from analysis.environment import commit, usable_cores, versions
from cluster.testbed import daemons

RECORDS = Path(__file__).with_name("records") / "executor.json"
SNAKEFILE = """
rule chain:
    input: f"link{config['jobs'] - 1}"
rule fan:
    input: expand("part{n}", n=range(config["jobs"]))
rule link:
    input: lambda wildcards: f"link{int(wildcards.n) - 1}" if int(wildcards.n) else []
    output: "link{n}"
    shell: "touch {output}"
rule part:
    output: "part{n}"
    shell: "touch {output}"
"""
PACKAGES = ("snakemake", "submitit", "snakemake-executor-plugin-submitit", "snakemake-executor-plugin-slurm")
POLL_S = 2
OURS = "submitit"
SLURM = ["--executor", "slurm", "--slurm-init-seconds-before-status-checks"]
ARMS = {
    OURS: ["--executor", "submitit", "--submitit-cluster", "slurm", "--submitit-poll-s", str(POLL_S)],
    "slurm": [*SLURM, str(POLL_S)],
    "slurm, first look after 8 s": [*SLURM, "8"],
    "slurm, arrays": [*SLURM, str(POLL_S), "--slurm-array-jobs", "all"],
}
SHAPES = {"chain": [OURS, "slurm", "slurm, first look after 8 s"], "fan": [OURS, "slurm", "slurm, arrays"]}
"""Jobs one after another (latency) or all at once (throughput), and the arms that it makes a difference to."""
HIDE = """
import os, pkgutil
found, hidden = pkgutil.iter_modules, "snakemake_executor_plugin_" + os.environ["HIDDEN_PLUGIN"]
pkgutil.iter_modules = lambda *given: (module for module in found(*given) if not module.name.startswith(hidden))
"""


def environment(state: Path, folder: Path) -> dict[str, str]:
    """Where Slurm's commands find the testbed. The other executor takes SLURM_CONF from its jobs' environment: srun gets it back."""
    shim = folder / "bin" / "srun"
    shim.parent.mkdir()
    found = daemons.environment(state)
    shim.write_text(f'#!/bin/sh\nSLURM_CONF={found["SLURM_CONF"]} exec {shutil.which("srun")} "$@"\n')
    shim.chmod(0o755)
    (shim.parent / "sitecustomize.py").write_text(HIDE)
    return os.environ | found | {"PATH": f"{shim.parent}:{os.environ['PATH']}", "PYTHONPATH": str(shim.parent)}


def measure(folder: Path, shape: str, jobs: int, arm: str, variables: dict[str, str]) -> dict[str, Any]:
    """One run of Snakemake: its wall time, its driver's peak memory without the jobs, and what Slurm ran for it."""
    folder.mkdir()
    (folder / "Snakefile").write_text(SNAKEFILE)
    words = [shape, *ARMS[arm], "--jobs", str(jobs), "--seconds-between-status-checks", str(POLL_S), "--latency-wait", "10"]
    variables = variables | {"HIDDEN_PLUGIN": "slurm" if arm == OURS else "submitit"}
    words += ["--default-resources", "runtime=30", "mem_mb=1000", "--config", f"jobs={jobs}"]
    load, start, high, tree = os.getloadavg()[0], time.perf_counter(), 0.0, 0.0
    with (folder / "log").open("w") as log:
        driver = subprocess.Popen([sys.executable, "-m", "snakemake", *words], cwd=folder, env=variables, stdout=log, stderr=log)
        while driver.poll() is None:
            alive = list(memory(driver.pid))
            high = max([high, *(peak for peak, _ in alive[:1])])
            tree = max(tree, sum(now for _, now in alive))
            time.sleep(0.1)
    seconds = time.perf_counter() - start
    if driver.returncode:
        raise SystemExit(f"{arm}, {shape} of {jobs}: snakemake failed\n{(folder / 'log').read_text()[-3000:]}")
    listing = ["sacct", "--allocations", "--noheader", "--parsable2", "--starttime=now-1days", "--format=WorkDir,JobID"]
    rows = [line.split("|") for line in subprocess.run(listing, env=variables, capture_output=True, text=True).stdout.splitlines()]
    ids = [job for where, job in rows if where == str(folder)]
    return {
        "shape": shape,
        "arm": arm,
        "jobs": jobs,
        "seconds": round(seconds, 2),
        "slurm_jobs": len(ids),
        "arrays": len({job.split("_")[0] for job in ids if "_" in job}),
        "load_before": round(load, 1),
        "driver_peak_mb": round(high),
        "driver_tree_peak_mb": round(tree),
    }


def memory(pid: int) -> Iterator[tuple[float, float]]:
    """(VmHWM, VmRSS) in MB of a process and then of all that it started and that still lives."""
    try:
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        children = [child for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()]
    except OSError:
        return  # it has just ended
    if "VmHWM" in fields:  # not a process that waits to be buried
        yield int(fields["VmHWM"].split()[0]) / 1024, int(fields["VmRSS"].split()[0]) / 1024
    for child in children:
        yield from memory(int(child))


def turns(sizes: dict[str, int], repeats: int) -> Iterator[tuple[str, int, str]]:
    """What to run: in every turn each arm once, in an order that moves on by one."""
    for turn, (shape, arms) in itertools.product(range(repeats), SHAPES.items()):
        for position in range(len(arms)):
            yield shape, sizes[shape], arms[(turn + position) % len(arms)]


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A line an arm: seconds a job, and ours as a part of it."""
    for shape, size in dict.fromkeys((row["shape"], row["jobs"]) for row in rows):
        times = {arm: [r["seconds"] / size for r in rows if (r["shape"], r["jobs"], r["arm"]) == (shape, size, arm)] for arm in ARMS}
        ours = statistics.median(times[OURS])
        yield f"{shape} of {size} trivial jobs: seconds a job, median of {len(times[OURS])}"
        for arm, values in ((arm, values) for arm, values in times.items() if values):
            median = statistics.median(values)
            ratio = "" if arm == OURS else f"   {OURS} / this: {ours / median:.2f} (aim 0.5)"
            yield f"  {arm:28s} {median:6.2f} ({min(values):.2f} to {max(values):.2f}){ratio}"
        last = [row for row in rows if (row["shape"], row["jobs"], row["arm"]) == (shape, size, OURS)][-1]
        yield (
            f"  {OURS}: {last['arrays']} arrays; driver {last['driver_peak_mb']} MB, with what it starts"
            f" {last['driver_tree_peak_mb']} MB (aim 2048 MB)"
        )


def measure_all(runs: list[tuple[str, int, str]]) -> list[dict[str, Any]]:
    """Every run on one testbed; the records are written after each, behind those of earlier commands."""
    code, dirty = commit()
    before = json.loads(RECORDS.read_text()) if RECORDS.is_file() else []
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="blockwise-slurm-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # munge wants a path that everybody may pass
        daemons.up(folder / "state")
        try:
            variables = environment(folder / "state", folder)
            told = subprocess.run(["sinfo", "--version"], env=variables, capture_output=True, text=True, check=True).stdout
            found = {
                "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
                "machine": f"{usable_cores()} cores",
                "commit": code + ("-dirty" if dirty else ""),
                "poll_s": POLL_S,
                "versions": versions(*PACKAGES) | {"slurm": told.split()[1]},
                "repetitions": rows,
            }
            for number, (shape, jobs, arm) in enumerate(runs, 1):
                rows.append(measure(folder / f"run{number}", shape, jobs, arm, variables))
                print(f"{number}/{len(runs)} {shape} of {jobs}, {arm}: {rows[-1]['seconds']} s", file=sys.stderr)
                RECORDS.parent.mkdir(exist_ok=True)
                RECORDS.write_text(json.dumps([*before, found], indent=1) + "\n")
        finally:
            daemons.down(folder / "state")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Time what a job costs beyond its work, on a real Slurm on this machine.")
    parser.add_argument("--repeats", type=int, default=5, help="turns of every executor (default: 5)")
    parser.add_argument("--chain", type=int, default=4, help="jobs one after another (default: 4)")
    parser.add_argument("--fan", type=int, default=24, help="jobs at once (default: 24)")
    parser.add_argument("--fanout", type=int, default=0, help="jobs of one more fan-out, through ours alone (default: none)")
    options = parser.parse_args()
    runs = list(turns({"chain": options.chain, "fan": options.fan}, options.repeats))
    runs += [("fan", options.fanout, OURS)] if options.fanout else []
    print("\n".join(table(measure_all(runs))))


if __name__ == "__main__":
    main()
