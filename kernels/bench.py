"""Bench stage: tuned kernels against peers on the same data in the same job.

    python -m kernels.bench --config config/smoke.yaml --experiment knn_scaling --device cpu --journal journal/ --out knn_scaling.cpu.parquet

For each problem every contender is timed in rounds of one call each, in random order, one of them twice (A/A), so that
drift falls on all alike. Results are compared with the oracle, on a part of the problem where the whole would take long.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from analysis.cli import run
from kernels import registry
from kernels.arrays import place, to_numpy
from kernels.contract import Arrays, Backend, Block, Problem, Space
from kernels.job import Job, arguments, experiment_of
from kernels.sweep import backends_on
from kernels.timing import measure
from kernels.tuned import lookup


@dataclass(frozen=True)
class Contender:
    """A backend with its tuned block, or a peer, for one problem; `role` is "aa" for the one that is measured twice."""

    backend: Backend
    block: Block
    role: str
    point: str


def peers(job: Job) -> list[Backend]:
    """The operator's peers as backends; those that are not installed say so when called."""
    operator = job.experiment.operator
    module = registry.package(operator)

    def runner(peer: Callable[[Any, Arrays], Arrays]) -> Callable[[Any, Arrays, Block], Arrays]:
        return lambda problem, inputs, block: peer(problem, inputs)

    return [Backend(name, "torch", ("cpu", "cuda"), Space(), runner(peer), module) for name, peer in operator.peers.items()]


def contenders(job: Job, problem: Problem, tables: list[Path], outside: list[Backend]) -> list[Contender]:
    """Who is measured for a problem: the experiment's backends, the operator's peers, and a user's own function."""
    found = []
    for backend in [*backends_on(job), *peers(job), *outside]:
        space = job.experiment.space(backend)
        if space.rule(problem, dict(space.default)) is not None and not space.axes:
            continue  # a function from outside whose signature cannot express this problem
        block = lookup(job.experiment.operator.name, backend.name, problem, job.device.name, space, tables)
        found.append(Contender(backend, block, "candidate", job.point(backend, problem, block)))
    first = found[0]
    return [*found, Contender(first.backend, first.block, "aa", first.point)]


def bench(job: Job, tables: list[Path], outside: list[Backend]) -> None:
    """Measure every problem of which a contender has no record yet."""
    operator = job.experiment.operator
    todo = []
    for problem in job.experiment.problems:
        field = contenders(job, problem, tables, outside)
        missing = [one for one in field if not job.has(one.point, one.role)]
        if missing:
            todo.append((problem, field if any(one.role == "aa" for one in missing) else missing))
    print(f"{job.experiment.name}: {len(todo)} of {len(job.experiment.problems)} problems to measure on {job.device.name}", file=sys.stderr)
    for problem, field in tqdm(todo, desc=f"bench {job.experiment.name}"):
        inputs = operator.make_inputs(problem, job.seed)
        kinds = {one.backend.arrays for one in field}
        placed = {arrays: place(inputs, operator.shapes(problem), arrays, job.device.kind) for arrays in kinds}
        measure_problem(job, problem, field, inputs, placed)


def measure_problem(job: Job, problem: Problem, field: list[Contender], inputs: Arrays, placed: dict[str, Arrays]) -> None:
    """Check and time the contenders of one problem, and record them; who cannot run is recorded with the reason."""
    outcomes: list[dict[str, Any]] = []
    calls: list[Callable[[], Any]] = []
    for one in field:
        call = functools.partial(one.backend.run, problem, placed[one.backend.arrays], one.block)
        try:
            outcomes.append({"error": deviation(job, problem, inputs, to_numpy(call()))})
            calls.append(call)
        except Exception as error:  # not installed, out of memory, refused: by many types
            reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            outcomes.append({"error": None, "status": "failed", "reason": reason})
    times = iter(measure(calls, job.device, job.clock, job.experiment.samples, job.seed) if calls else [])
    for one, outcome in zip(field, outcomes, strict=True):
        if "status" not in outcome:
            timed = next(times)
            outcome |= {"samples_ms": timed.samples_ms, "first_call_ms": timed.first_call_ms}
        job.record(one.point, one.role, one.backend.name, problem, one.block, **outcome)


def deviation(job: Job, problem: Problem, inputs: Arrays, outputs: Arrays) -> float:
    """The largest deviation from the oracle in tolerances (above 1: wrong), on a part of the problem where it is large."""
    operator = job.experiment.operator
    if operator.part:
        problem, inputs, outputs = operator.part(problem, inputs, outputs)
    return operator.compare(problem, inputs, outputs, operator.oracle(problem, inputs)).error


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser)
    parser.add_argument("--tuned", type=Path, nargs="*", default=[], help="tuned tables to take blocks from before the shipped one of the device")
    parser.add_argument("--impl", nargs="*", default=[], help="functions of yours to measure beside ours, as path/to/file.py:function")
    options = parser.parse_args()
    experiment, config = experiment_of(options, "bench")
    job = Job.prepared(options, experiment, config["seed"])
    bench(job, options.tuned, [registry.outside(experiment.operator, function) for function in options.impl])
    job.finish()
    return 0


if __name__ == "__main__":
    run(main)
