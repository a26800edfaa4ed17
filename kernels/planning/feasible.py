"""What of an experiment can be measured on a planned device, and what is left out, each with its reason in one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kernels import plan
from kernels.contract import Problem, Space
from kernels.plan import Experiment

NAMED = 3
"""Problems that a line names; of more it says how many."""


@dataclass(frozen=True)
class Feasible:
    """The problems that can be measured, and a line for all that cannot."""

    problems: list[Problem]
    left_out: list[str]


def feasible(experiment: Experiment, device: str, memory_gb: float | None) -> Feasible:
    """What can be measured on `device`, whose memory is known for a catalogued GPU.

    A problem goes that needs more memory than the GPU has, or for which no backend has a valid block. A backend without a valid block
    is named, and the others are measured.
    """
    where, backends = f"{experiment.stage}.{experiment.name}", plan.backends_on(experiment, plan.kind(device))
    if not backends:
        return Feasible([], [f"{where} on {device}: none of its backends ({', '.join(experiment.backends)}) runs there"])
    lines, kept = [], list(experiment.problems)
    if memory_gb is not None:
        needs = {problem: experiment.operator.memory(problem).device / 2**30 for problem in kept}
        kept = [problem for problem in kept if needs[problem] <= memory_gb]
        large = [f"{problem} needs {needs[problem]:,.1f} GB" for problem in needs if needs[problem] > memory_gb]
        if large:
            lines.append(f"{where}.problems on {device}, a GPU of {memory_gb:g} GB: {_named(large)}")
    usable: set[Problem] = set()
    for backend in backends:
        space = experiment.space_of(backend)
        invalid = {problem: reasons for problem in kept if (reasons := objections(space, experiment.stage, problem))}
        usable |= set(kept) - invalid.keys()
        if invalid:
            said = list(dict.fromkeys(reason for reasons in invalid.values() for reason in reasons))
            lines.append(f"{where}.blocks.{backend} on {device}: no valid block for {_named(list(map(str, invalid)))}: {_named(said)}")
    return Feasible([problem for problem in kept if problem in usable], lines)


def objections(space: Space, stage: str, problem: Problem) -> list[str]:
    """Why no block is valid for a problem, each reason once; none where one is. A bench asks for the default alone."""
    default = space.rule(problem, dict(space.default))
    if default is None:
        return []
    found = [reason for _, reason in space.blocks(problem)] if stage == "sweep" else [default]
    return list(dict.fromkeys(reason for reason in found if reason)) if all(found) else []


def _named(things: Sequence[str]) -> str:
    more = len(things) - NAMED
    return "; ".join(things[:NAMED]) + (f"; and {more} more" if more > 0 else "")
