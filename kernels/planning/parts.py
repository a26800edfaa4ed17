"""How many points an experiment has, by problem and backend: those that are pruned, and those that have a record."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.records import read_journal
from kernels import plan
from kernels.compile import Key, key
from kernels.contract import Block, Problem, Space
from kernels.job import NEEDS, rows_of
from kernels.plan import Experiment
from kernels.points import Points


@dataclass(frozen=True)
class Part:
    """A backend's part of a problem. `pruned` are not tried; `recorded` are of the others."""

    backend: str
    points: int
    pruned: int
    recorded: int

    @property
    def valid(self) -> int:
        return self.points - self.pruned

    @property
    def missing(self) -> int:
        return self.valid - self.recorded


class Parts:
    """The parts of an experiment's problems on a kind of device, "cpu" or "cuda"; a bench has one point a contender."""

    def __init__(self, experiment: Experiment, kind: str, pruned: Collection[Key] = (), recorded: Collection[Key] = ()) -> None:
        self.pruned, self.recorded = pruned, recorded
        self.sweeps = experiment.stage == "sweep"
        names = plan.backends_on(experiment, kind) if self.sweeps else plan.contenders(experiment, kind)
        self._spaces = [(name, experiment.space_of(name)) for name in names]

    def of(self, problem: Problem) -> Iterator[Part]:
        fields = problem.fields()
        for backend, space in self._spaces:
            blocks = space.blocks(problem) if self.sweeps else _tuned(space, problem)
            valid = [block for block, reason in blocks if not reason]
            if self.pruned or self.recorded:
                keys = [key(backend, fields, block) for block in valid]
                tried = [each for each in keys if each not in self.pruned]
                yield Part(backend, len(blocks), len(blocks) - len(tried), sum(each in self.recorded for each in tried))
            else:
                yield Part(backend, len(blocks), len(blocks) - len(valid), 0)


def _tuned(space: Space, problem: Problem) -> list[tuple[Block, str | None]]:
    """The block that a bench takes, which no config says; none where the backend cannot express the problem."""
    return [] if space.rule(problem, dict(space.default)) else [({}, None)]


def recorded(points: Points, journal: Path, attempt: int, previous: Sequence[Path] = ()) -> set[Key]:
    """The points that need no measuring: recorded in the run's journal for this attempt or a later one, or to be copied from `previous`."""
    known = [record for record in read_journal(journal, NEEDS) if record["attempt"] >= attempt]
    if attempt == 1:
        known += [row for path in previous for row in rows_of(path)]
    tried = [record for record in known if record["role"] != "aa" and record["status"] != "pruned"]
    sweeps = points.experiment.stage == "sweep"
    return {key(its["backend"], its["problem"], its["block"] if sweeps else {}) for its in tried if points.holds(its)}
