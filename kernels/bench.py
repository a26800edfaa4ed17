"""Bench stage: tuned kernels against peers on the same data in the same job.

    python -m kernels.bench --config config/smoke.yaml --experiment knn_scaling --device cpu --journal journal/ --out knn_scaling.parquet

For each problem every contender is timed in rounds of one call each, in random order, one of them twice (A/A), so that
drift falls on all alike. Results are compared with the oracle, on a part of the problem where the whole would take long.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from analysis.cli import BadInput, run
from kernels import plan, registry
from kernels.arrays import place, to_numpy
from kernels.contract import Arrays, Backend, Block, Peer, Problem, Space
from kernels.job import Job, Place, arguments, experiment_of
from kernels.sweep import backends_on
from kernels.timing import first_call_ms, measure
from kernels.tuned import lookup


@dataclass(frozen=True)
class Contender:
    """A backend with its tuned block, or a peer, for one problem; `role` is "aa" for the one that is measured twice."""

    backend: Backend
    block: Block
    role: str
    point: str
    place: Place


def peers(job: Job) -> list[Backend]:
    """The operator's peers for the job's kind of device, as backends; those that are not installed say so when called."""
    operator = job.experiment.operator

    def backend(name: str, peer: Peer) -> Backend:
        module = inspect.getmodule(peer.call) or registry.package(operator)
        return Backend(name, "torch", peer.devices, Space(), lambda problem, inputs, block: peer.call(problem, inputs), module)

    return [backend(name, peer) for name, peer in operator.peers.items() if job.kind in peer.devices]


def baselines(job: Job) -> list[Backend]:
    """On a GPU, the experiment's backends that run on a CPU alone: they are measured on the host, for speed-ups over it."""
    if job.device.kind == "cpu":
        return []
    return [registry.backend(job.experiment.operator, name) for name in plan.host_alone(job.experiment)]


def contenders(job: Job, problem: Problem, tables: list[Path], outside: list[Backend]) -> list[Contender]:
    """Who is measured for a problem: the experiment's backends, the operator's peers, and a user's own function."""
    found = []
    here, on_host = [*backends_on(job), *peers(job)], [*baselines(job), *outside]  # a function from outside takes NumPy arrays
    for backend, where in [*((each, job.place) for each in here), *((each, job.host) for each in on_host)]:
        space = job.experiment.space(backend)
        if space.rule(problem, dict(space.default)) is not None:
            continue  # a dtype that the backend lacks, or a function from outside whose signature cannot express this problem
        block = lookup(job.experiment.operator.name, backend.name, problem, where.device.name, space, tables)
        found.append(Contender(backend, block, "candidate", job.point(backend, problem, block, where), where))
    firsts = {one.place: one for one in reversed(found)}.values()
    return [*found, *(dataclasses.replace(first, role="aa") for first in firsts)]


def bench(job: Job, tables: list[Path], outside: list[Backend]) -> None:
    """Measure every problem of which a contender has no record yet, with all its contenders: they are compared in one job."""
    operator = job.experiment.operator
    todo = []
    for problem in job.experiment.problems:
        field = contenders(job, problem, tables, outside)
        missing = [one for one in field if not job.has(one.point, one.role)]
        if missing:
            todo.append((problem, field))
    print(f"{job.experiment.name}: {len(todo)} of {len(job.experiment.problems)} problems to measure on {job.device.name}", file=sys.stderr)
    for problem, field in tqdm(todo, desc=f"bench {job.experiment.name}"):
        job.phases.enter("inputs")
        inputs = operator.make_inputs(problem, job.seed)
        for where in dict.fromkeys([job.place, job.host]):
            there = [one for one in field if one.place is where]
            if there:
                measure_problem(job, problem, there, inputs, where)
        job.account()


def measure_problem(job: Job, problem: Problem, field: list[Contender], inputs: Arrays, where: Place) -> None:
    """Check and time the contenders of one problem on one device, and record them; who cannot run is recorded with the reason."""
    shapes = job.experiment.operator.shapes(problem)
    placed = {arrays: place(inputs, shapes, arrays, where.device.kind) for arrays in {one.backend.arrays for one in field}}
    job.phases.enter("ceilings")
    where.prepare()
    job.phases.enter("measuring")
    job.gpu_before = job.gpu()
    truths: dict[Problem, Arrays] = {}
    sound, calls = [], []
    for one in field:
        call = functools.partial(one.backend.run, problem, placed[one.backend.arrays], one.block)
        try:
            sound.append((one, check(job, problem, call, inputs, where, truths)))
            calls.append(call)
        except BadInput as error:  # a peer that has no such metric, say
            job.record(one.point, one.role, one.backend, problem, one.block, where, status="pruned", reason=str(error))
        except Exception as error:  # not installed, out of memory, refused: by many types
            job.fail(one.point, one.role, one.backend, problem, one.block, where, error)
    times = measure(calls, where.device, where.clock, job.experiment.samples, job.seed)
    for (one, checked), timed in zip(sound, times, strict=True):
        job.record(one.point, one.role, one.backend, problem, one.block, where, samples_ms=timed.samples_ms, **checked)


def check(
    job: Job, problem: Problem, call: Callable[[], Arrays], inputs: Arrays, where: Place, truths: dict[Problem, Arrays]
) -> dict[str, float]:
    """The time of a contender's first call, and the largest deviation of its outputs from the oracle's, in tolerances (above 1: wrong).

    The comparison is on a part of the problem where it is large. `truths` keeps the oracle's outputs for the next contender.
    """
    operator = job.experiment.operator
    made: list[Arrays] = []
    first = first_call_ms(lambda: made.append(call()), where.device)
    with job.phases.within("checking"):
        outputs: Arrays = to_numpy(made.pop())
        if operator.part:
            problem, inputs, outputs = operator.part(problem, inputs, outputs)
        if problem not in truths:
            truths[problem] = operator.oracle(problem, inputs)
        return {"first_call_ms": first, "error": operator.compare(problem, inputs, outputs, truths[problem]).error}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser)
    parser.add_argument(
        "--tuned", type=Path, nargs="*", default=[], help="tuned tables to take blocks from before the shipped one of the device"
    )
    parser.add_argument("--impl", nargs="*", default=[], help="functions of yours to measure beside ours, as path/to/file.py:function")
    options = parser.parse_args()
    experiment, config = experiment_of(options, "bench")
    job = Job.prepared(options, experiment, config["seed"])
    bench(job, options.tuned, [registry.outside(experiment.operator, function) for function in options.impl])
    job.finish()
    return 0


if __name__ == "__main__":
    run(main)
