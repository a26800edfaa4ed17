"""What a run's sweeps and benches will take, before anything is submitted: what can be measured, its shards, the bill's lines."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from analysis.config import Run
from analysis.records import read_parquet
from cluster import site
from kernels import plan
from kernels.compile import Key, ruled_out
from kernels.contract import Problem
from kernels.plan import Experiment
from kernels.planning import earlier, estimate, shards
from kernels.planning.bill import Line
from kernels.planning.estimate import Estimate, Known, total
from kernels.planning.feasible import Feasible, feasible
from kernels.planning.parts import Part, Parts, recorded
from kernels.points import Points

SHARD_MINUTES = 8.0


class Planner:
    """Of a run. Estimates are made from the records of the other runs beside it; the run's own are no part of them."""

    def __init__(self, run: Run) -> None:
        self.run, self.file = run, run.folder / shards.FILE
        self.experiment = functools.cache(lambda stage, name: plan.experiment(run.config, stage, name))
        self.feasible = functools.cache(self._feasible)
        self.cut = functools.cache(self._cut)
        self._cuts: dict[str, shards.Cut] = {}
        self._before = {} if run.sealed else shards.read(self.file)
        self._earlier = functools.cache(lambda device: earlier.read(run.folder.parent, run.name, device, site.known(device)))
        self._known = functools.cache(lambda device, *about: Known(self._earlier(device).spent.get(about, ())))

    def _feasible(self, stage: str, name: str, device: str) -> Feasible:
        gpu = site.known(device)
        return feasible(self.experiment(stage, name), device, gpu.memory_gb if gpu else None)

    def _cut(self, stage: str, name: str, device: str) -> dict[str, shards.Shard]:
        """The shards of an experiment on a device by number, as they were cut before where that holds. A bench is one shard."""
        experiment, problems = self.experiment(stage, name), self.feasible(stage, name, device).problems
        wished = 60 * self.run.config.get("shard_minutes", SHARD_MINUTES) if stage == "sweep" else float("inf")
        its = {key: value for key, value in self.run.config[stage][name].items() if key != "problems"}
        made_for = json.dumps([wished, its, experiment.samples, experiment.race], sort_keys=True)
        about = shards.key(stage, name, device)
        cut = self._before.get(about)
        fields = [problem.fields() for problem in problems]
        if cut is None or not shards.holds(cut, fields, made_for):
            parts = Parts(experiment, plan.kind(device))
            seconds = [total(self._whole(experiment, device, problem, part) for part in parts.of(problem)).seconds for problem in problems]
            cut = shards.cut(fields, seconds, wished - self._fixed(stage, device).seconds, made_for, cut if stage == "sweep" else None)
        self._cuts[about] = cut
        found: dict[str, shards.Shard] = cut["shards"]
        return found

    def problems(self, stage: str, name: str, device: str, number: str) -> list[Problem]:
        """The problems of a shard."""
        parse = self.experiment(stage, name).operator.problem.parse
        return [parse(each["problem"], str(self.file)) for each in self.cut(stage, name, device)[number]]

    def minutes(self, stage: str, name: str, device: str, number: str) -> int:
        """The run time to ask for a shard."""
        return shards.minutes(self.cut(stage, name, device)[number])

    def memory_mb(self, stage: str, name: str, device: str, number: str) -> int:
        """The host memory to ask for a shard."""
        operator = self.experiment(stage, name).operator
        return shards.memory_mb(operator.memory(problem).host for problem in self.problems(stage, name, device, number))

    def write(self) -> None:
        """Keep every cut that was asked for."""
        shards.write(self.file, self._cuts)

    def line(self, stage: str, name: str, device: str, attempt: int, previous: Sequence[Path]) -> Line:
        """An experiment's line of the bill on a device. A job is a shard with anything left to measure."""
        experiment, journal = self.experiment(stage, name), self.run.folder / stage / "journal" / f"{name}.{device}"
        done = recorded(Points(experiment, self.run.config["seed"]), journal, attempt, previous)
        parts = Parts(experiment, plan.kind(device), self._pruned(experiment, device), done)
        left, jobs, counted = [], 0, []
        for number in self.cut(stage, name, device):
            its = [(problem, part) for problem in self.problems(stage, name, device, number) for part in parts.of(problem)]
            counted += [part for _, part in its]
            missing = [(problem, part) for problem, part in its if part.missing]
            left += [self._whole(experiment, device, problem, part).times(part.missing / part.valid) for problem, part in missing]
            jobs += bool(missing)
        seconds = total([*left, self._fixed(stage, device).times(jobs)])
        return Line(f"{stage}.{name}", device, jobs, *_sums(counted), seconds)

    def _whole(self, experiment: Experiment, device: str, problem: Problem, part: Part) -> Estimate:
        """What a part of a problem takes where none of it is recorded. In a sweep the default is measured twice."""
        if not part.valid:
            return Estimate({})
        known = self._known(device, experiment.stage, experiment.operator.name, part.backend)
        text, cost = json.dumps(problem.fields(), sort_keys=True), experiment.operator.cost(problem)
        return known.part(text, cost, part.valid + (experiment.stage == "sweep"))

    def _fixed(self, stage: str, device: str) -> Estimate:
        return estimate.fixed(self._earlier(device).jobs.get(stage, ()))

    def _pruned(self, experiment: Experiment, device: str) -> set[Key]:
        """What the compile tables rule out, as far as they exist."""
        gpu = site.known(device)
        table = self.run.folder / "compile" / f"{experiment.operator.name}.{gpu and gpu.architecture}.parquet"
        return set(ruled_out(read_parquet(table))) if experiment.stage == "sweep" and table.is_file() else set()


def _sums(parts: Iterable[Part]) -> tuple[int, int, int]:
    parts = list(parts)
    return sum(part.points for part in parts), sum(part.recorded for part in parts), sum(part.pruned for part in parts)
