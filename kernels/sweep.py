"""Sweep stage: measure every block configuration of an experiment's backends on one device.

    python -m kernels.sweep --config config/smoke.yaml --experiment knn --device cpu --journal journal/ --out knn.cpu.parquet

What cannot launch by the compile stage's report is recorded as pruned and not tried. Configurations come in random order;
the default configuration is measured twice (A/A), which gives the noise floor. Every point is on the disk before the next
one starts: run the same command again after a kill and only what is missing is measured.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from analysis import records
from analysis.cli import BadInput, run
from kernels import registry
from kernels.arrays import place
from kernels.compile import pruned
from kernels.contract import Backend, Block, Problem
from kernels.device import Device
from kernels.job import Job, arguments, experiment_of
from kernels.timing import measure


@dataclass(frozen=True)
class Candidate:
    """A point to measure: `role` is "candidate", or "aa" for the second measurement of the default block."""

    backend: Backend
    problem: Problem
    block: Block
    role: str
    point: str
    reason: str | None


def backends_on(job: Job) -> list[Backend]:
    """The experiment's backends that run on the job's device. Raises BadInput where there is none."""
    operator = job.experiment.operator
    names = [name for name in job.experiment.backends if job.kind in registry.declared(operator, name, "DEVICES")]
    if not names:
        raise BadInput(f"{job.experiment.stage}.{job.experiment.name}: none of its backends runs on {job.device.name}")
    return [registry.backend(operator, name) for name in names]


def of_architecture(table: Any, device: Device) -> Any:
    """The rows of a compile table that speak of the device's own architecture; none on a CPU."""
    if table.empty or device.kind == "cpu":
        return table.iloc[:0]
    import torch

    return table[table.architecture == "sm_{}{}".format(*torch.cuda.get_device_capability())]


def candidates(job: Job, tables: list[Any]) -> Iterator[Candidate]:
    """Every point of the experiment in random order within its problem, those that are ruled out with the reason."""
    shuffle = random.Random(job.seed).shuffle
    backends = backends_on(job)
    for problem in job.experiment.problems:
        found = []
        for backend in backends:
            space = job.experiment.space(backend)
            valid = []
            for block, reason in space.blocks(problem):
                reason = reason or next((why for table in tables if (why := pruned(table, backend.name, problem, block))), None)
                point = job.point(backend, problem, block, ruled_out=reason) if reason else job.point(backend, problem, block)
                found.append(Candidate(backend, problem, block, "candidate", point, reason))
                valid += [] if reason else [found[-1]]
            if valid:
                default = next((one for one in valid if one.block == dict(space.default)), valid[0])
                found.append(Candidate(backend, problem, default.block, "aa", default.point, None))
        shuffle(found)
        yield from found


def measure_one(job: Job, candidate: Candidate, inputs: dict[str, Any]) -> None:
    """Time one candidate and record it. A configuration that cannot run is a result, not an error of the job."""
    record = (candidate.point, candidate.role, candidate.backend, candidate.problem, candidate.block)

    def call() -> Any:
        return candidate.backend.run(candidate.problem, inputs, candidate.block)

    job.gpu_before = job.gpu()
    try:
        (timed,) = measure([call], job.device, job.place.clock, job.experiment.samples, job.seed)
    except Exception as error:  # out of memory, a launch that the driver refuses: by many types
        job.fail(*record, job.place, error)
    else:
        job.record(*record, samples_ms=timed.samples_ms, first_call_ms=timed.first_call_ms)


def sweep(job: Job, tables: list[Any]) -> None:
    """Measure what has no record yet."""
    every = list(candidates(job, tables))
    todo = [one for one in every if not job.has(one.point, one.role)]
    print(f"{job.experiment.name}: {len(todo)} of {len(every)} points to measure on {job.device.name}", file=sys.stderr)
    if todo:
        job.place.prepare()
    problem: Problem | None = None
    placed: dict[str, Any] = {}
    for one in tqdm(todo, desc=f"sweep {job.experiment.name}"):
        if one.reason:
            job.record(one.point, one.role, one.backend, one.problem, one.block, status="pruned", reason=one.reason)
            continue
        if one.problem != problem:
            problem, placed = one.problem, {}
            data = job.experiment.operator.make_inputs(problem, job.seed)
        if one.backend.arrays not in placed:
            placed[one.backend.arrays] = place(data, job.experiment.operator.shapes(problem), one.backend.arrays, job.device.kind)
        measure_one(job, one, placed[one.backend.arrays])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser)
    parser.add_argument("--compiled", type=Path, nargs="*", default=[], help="compile tables: what they rule out is not tried")
    options = parser.parse_args()
    experiment, config = experiment_of(options, "sweep")
    job = Job.prepared(options, experiment, config["seed"])
    sweep(job, [of_architecture(records.read_parquet(path), job.device) for path in options.compiled])
    job.finish()
    return 0


if __name__ == "__main__":
    run(main)
