"""An experiment's problems cut into shards: one job each, of about the wished length. The cut is kept in the run's `plan.json`.

A problem is never split: its blocks are compared with each other, which needs one GPU and one job. What was cut stays as it is, so
that a run which is resumed finds its jobs again, whatever estimates say by then: of an experiment whose problems changed, those that
are gone leave their shards, and new ones make shards of their own, behind the others.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.cli import BadInput, replacing
from kernels.plan import Experiment

FILE = "plan.json"
SCHEMA = 1
LEAST_MINUTES = 30
MARGIN = 3
STEP_MINUTES, STEP_MB = 10, 2000
"""Requests are rounded up to these, so that shards ask for the same: what asks for the same goes to Slurm as one array."""
LIBRARIES_MB = 6000

Shard = list[dict[str, Any]]
"""Each {"problem": its fields, "seconds": the estimate}."""
Cut = dict[str, Any]
"""`made_for`: what it holds for beside the problems; `shards`: each Shard by its number."""


def packed(seconds: Sequence[float], room: float) -> list[list[int]]:
    """Positions of `seconds` in shards of at most `room` seconds each, but for one that is longer by itself: the longest first, each
    into the first shard that has room for it. Both shards and what is in them are in the order given."""
    shards: list[list[int]] = []
    free: list[float] = []
    for position in sorted(range(len(seconds)), key=lambda each: -seconds[each]):
        fits = next((number for number, left in enumerate(free) if seconds[position] <= left), None) if seconds[position] <= room else None
        if fits is None:
            shards.append([position])
            free.append(room - seconds[position])
        else:
            shards[fits].append(position)
            free[fits] -= seconds[position]
    return sorted(sorted(shard) for shard in shards)


def holds(before: Cut, problems: Sequence[Mapping[str, Any]], made_for: str) -> bool:
    """Whether a cut is of these problems, and for what is asked now."""
    return before["made_for"] == made_for and sorted(
        _text(each["problem"]) for shard in before["shards"].values() for each in shard
    ) == sorted(map(_text, problems))


def cut(problems: Sequence[Mapping[str, Any]], seconds: Sequence[float], room: float, made_for: str, before: Cut | None) -> Cut:
    """The shards of `problems` (their fields), each with its estimate; `before` is kept as far as it holds."""
    old: dict[str, Shard] = before["shards"] if before and before["made_for"] == made_for else {}
    wanted = {_text(problem): position for position, problem in enumerate(problems)}
    kept = {number: [each for each in shard if _text(each["problem"]) in wanted] for number, shard in old.items()}
    known = {_text(each["problem"]) for shard in kept.values() for each in shard}
    new = [position for text, position in wanted.items() if text not in known]
    shards = {number: shard for number, shard in kept.items() if shard}
    for number, positions in enumerate(packed([seconds[each] for each in new], room), 1 + max(map(int, old), default=0)):
        its = [new[each] for each in positions]
        shards[str(number)] = [{"problem": dict(problems[each]), "seconds": round(seconds[each], 1)} for each in its]
    return {"made_for": made_for, "shards": shards}


def minutes(shard: Shard) -> int:
    """The run time that a shard asks for: its estimate with a margin. What takes longer is requeued, and goes on."""
    wanted = MARGIN * sum(each["seconds"] for each in shard) / 60
    return max(LEAST_MINUTES, STEP_MINUTES * math.ceil(wanted / STEP_MINUTES))


def memory_mb(bytes_of_problems: Iterable[int]) -> int:
    """The host memory that a job asks for: what its largest problem needs, and room for the libraries."""
    return STEP_MB * math.ceil((LIBRARIES_MB + max(bytes_of_problems, default=0) / 1e6) / STEP_MB)


def _text(problem: Mapping[str, Any]) -> str:
    return json.dumps(problem, sort_keys=True)


def read(path: Path) -> dict[str, Cut]:
    """The cuts of a run by `key`; none where there is no file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise ValueError
        cuts: dict[str, Cut] = content["cuts"]
    except (ValueError, KeyError, TypeError):
        raise BadInput(f"{path}: not a plan of schema {SCHEMA}; remove it, and the problems are cut into shards anew") from None
    return cuts


def write(path: Path, cuts: Mapping[str, Cut]) -> None:
    """Write the cuts beside those of the run's other experiments, where anything differs."""
    before = read(path)
    if before | dict(cuts) != before:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps({"schema": SCHEMA, "cuts": before | dict(cuts)}, indent=1) + "\n", encoding="utf-8")


def key(stage: str, name: str, device: str) -> str:
    return f"{stage}/{name}.{device}"


def shard_of(experiment: Experiment, path: Path, device: str, number: str) -> Experiment:
    """The experiment with the problems of one shard alone."""
    where = f"{path}: shard {number} of {key(experiment.stage, experiment.name, device)}"
    found = read(path).get(key(experiment.stage, experiment.name, device), {"shards": {}})["shards"].get(number)
    if found is None:
        raise BadInput(f"{where}: there is none; give the snakemake command again, which makes the plan")
    problems = [experiment.operator.problem.parse(each["problem"], where) for each in found]
    if not set(problems) <= set(experiment.problems):
        raise BadInput(f"{where}: a problem that the config no longer has; give the snakemake command again, which makes the plan anew")
    return dataclasses.replace(experiment, problems=problems)
