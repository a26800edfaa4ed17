"""Sweep stage: measure every block configuration of an experiment's backends on one device.

    python -m kernels.sweep --config config/smoke.yaml --experiment knn --device cpu --journal journal/ --out knn.cpu.parquet

What cannot launch by the compile stage's report is recorded as pruned and not tried. The configurations of a problem race:
they are measured in rounds, in random order, and sure losers stop early (`race: false` in the config measures all to the
end); see `kernels.race`. The default configuration is measured twice (A/A), which gives the noise floor. Every point is on the
disk as soon as it is through: run the same command again after a kill and only what is missing is measured. With `--plan` and
`--shard` it measures some of the problems; the shards of an experiment share a journal, and `kernels.join` makes one record file of theirs.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from analysis import records
from analysis.cli import BadInput, run
from kernels import plan, registry
from kernels.arrays import place
from kernels.compile import Ruled, key, ruled_out
from kernels.contract import Backend, Block, Problem
from kernels.device import Device
from kernels.job import Job, arguments, experiment_of
from kernels.race import Runner, race


@dataclass(frozen=True)
class Candidate:
    """A point to measure: `role` is "candidate", or "aa" for the second measurement of the default block; both are measured to the end."""

    backend: Backend
    problem: Problem
    block: Block
    role: str
    point: str
    reason: str | None
    stays: bool = False


def backends_on(job: Job) -> list[Backend]:
    """The experiment's backends that run on the job's device. Raises BadInput where there is none."""
    operator = job.experiment.operator
    names = plan.backends_on(job.experiment, job.kind)
    if not names:
        raise BadInput(f"{job.experiment.stage}.{job.experiment.name}: none of its backends runs on {job.device.name}")
    return [registry.backend(operator, name) for name in names]


def of_architecture(table: Any, device: Device) -> Any:
    """The rows of a compile table that speak of the device's own architecture; none on a CPU."""
    if table.empty or device.kind == "cpu":
        return table.iloc[:0]
    import torch

    return table[table.architecture == "sm_{}{}".format(*torch.cuda.get_device_capability())]


def candidates(job: Job, ruled: Ruled) -> Iterator[list[Candidate]]:
    """The points of each problem and backend, those that are ruled out with the reason."""
    for problem, backend in itertools.product(job.experiment.problems, backends_on(job)):
        space = job.experiment.space(backend)
        left_out: list[Candidate] = []
        valid: list[Candidate] = []
        for block, reason in space.blocks(problem):
            reason = reason or ruled.get(key(backend.name, problem.fields(), block))
            more: dict[str, Any] = {"ruled_out": reason} if reason else {"race": job.experiment.race}
            found = Candidate(backend, problem, block, "candidate", job.point(backend, problem, block, **more), reason)
            (left_out if reason else valid).append(found)
        if valid:
            default = next((number for number, one in enumerate(valid) if one.block == dict(space.default)), 0)
            valid[default] = replace(valid[default], stays=True)
            valid.append(replace(valid[default], role="aa"))
        yield left_out + valid


def record(job: Job, candidate: Candidate, runner: Runner, rivals: dict[Runner, Candidate]) -> None:
    """Record one that is through. A configuration that cannot run is a result, not an error of the job."""
    about = (candidate.point, candidate.role, candidate.backend, candidate.problem, candidate.block)
    if runner.error:
        job.fail(*about, job.place, runner.error)
        return
    values: dict[str, Any] = {"samples_ms": runner.timed.samples_ms, "first_call_ms": runner.timed.first_call_ms, "spent_s": runner.spent_s}
    if runner.lost_to:
        rounds = f"{len(runner.timed.samples_ms)} of {job.experiment.samples} samples"
        reason = f"{runner.factor:.3g} times as long as {dict(rivals[runner.lost_to].block)} after {rounds}"
        values |= {"status": "stopped", "reason": reason}
    job.record(*about, **values)


def measure(job: Job, todo: list[Candidate], placed: dict[str, Any]) -> Iterator[Candidate]:
    """Race the points of one problem and backend, and record them; yields each that is through."""

    def call_of(one: Candidate) -> Callable[[], Any]:
        return lambda: one.backend.run(one.problem, placed, one.block)

    rivals = {Runner(call_of(one), one.stays): one for one in todo if not one.reason}
    for one in todo:
        if one.reason:
            job.record(one.point, one.role, one.backend, one.problem, one.block, status="pruned", reason=one.reason)
            yield one
    job.gpu_before = job.gpu()
    experiment = job.experiment
    for runner in race(list(rivals), job.device, job.place.clock, experiment.samples, job.seed, experiment.race):
        record(job, rivals[runner], runner, rivals)
        yield rivals[runner]


def sweep(job: Job, ruled: Ruled) -> None:
    """Measure what has no record yet."""
    every = list(candidates(job, ruled))
    missing = [[one for one in group if not job.has(one.point, one.role)] for group in every]
    todo = [group for group in missing if group]
    count = sum(map(len, todo))
    print(f"{job.experiment.name}: {count} of {sum(map(len, every))} points to measure on {job.device.name}", file=sys.stderr)
    if not todo:
        return
    job.phases.enter("ceilings")
    job.place.prepare()
    operator, kind = job.experiment.operator, job.device.kind
    with tqdm(total=count, desc=f"sweep {job.experiment.name}") as progress:
        for problem, groups in itertools.groupby(todo, key=lambda group: group[0].problem):
            job.phases.enter("inputs")
            data, placed = operator.make_inputs(problem, job.seed), {}
            for group in groups:
                arrays = group[0].backend.arrays
                if arrays not in placed:
                    job.phases.enter("inputs")
                    placed[arrays] = place(data, operator.shapes(problem), arrays, kind)
                job.phases.enter("measuring")
                for _ in measure(job, group, placed[arrays]):
                    progress.update()
                job.account()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser)
    parser.add_argument("--compiled", type=Path, nargs="*", default=[], help="compile tables: what they rule out is not tried")
    options = parser.parse_args()
    experiment, config = experiment_of(options, "sweep")
    job = Job.prepared(options, experiment, config["seed"])
    ruled: Ruled = {}
    for path in options.compiled:
        ruled |= ruled_out(of_architecture(records.read_parquet(path), job.device))
    sweep(job, ruled)
    job.finish()
    return 0


if __name__ == "__main__":
    run(main)
