"""An operator of another shape than nearest neighbours: the softmax of each row. It shows what a new operator's folder needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from analysis.cli import BadInput
from kernels.contract import Arrays, Cost, Memory, Operator, Peer, Problem, Signature, Verdict

from . import reference

EPSILON = float(np.finfo(np.float32).eps)


@dataclass(frozen=True, kw_only=True)
class Softmax(Problem):
    """The softmax of each of `rows` rows of `columns` numbers."""

    rows: int
    columns: int
    dtype: Literal["float32"] = "float32"

    def __post_init__(self) -> None:
        for name in ("rows", "columns"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name}: {getattr(self, name)} is less than 1")


def shapes(problem: Softmax) -> dict[str, tuple[tuple[int, ...], str]]:
    return {"x": ((problem.rows, problem.columns), problem.dtype)}


def oracle(problem: Softmax, inputs: Arrays) -> Arrays:
    return {"y": reference.softmax(inputs["x"])}


def compare(problem: Softmax, inputs: Arrays, outputs: Arrays, expected: Arrays) -> Verdict:
    """Relative to each probability: (16 + sqrt columns) machine epsilons, for the exponential and the sum."""
    found, true = np.asarray(outputs["y"]), expected["y"]
    if found.shape != true.shape:
        return Verdict(False, np.inf, f"y has shape {list(found.shape)}, not {list(true.shape)}")
    units = np.abs(found - true) / (EPSILON * (16 + np.sqrt(problem.columns)) * true)
    worst = float(np.where(np.isnan(units), np.inf, units).max())
    return Verdict(worst <= 1, worst, "" if worst <= 1 else f"y differs from the oracle's by {worst:.3g} tolerances")


def cost(problem: Softmax) -> Cost:
    """Read once, written once; a maximum, a subtraction, an exponential, a sum and a division an element."""
    elements = problem.rows * problem.columns
    return Cost(8 * elements, 5 * elements, "fp32")


def memory(problem: Softmax) -> Memory:
    elements = problem.rows * problem.columns
    return Memory(host=40 * elements, device=8 * elements)


def _call(function: Any, problem: Softmax, inputs: Arrays) -> Arrays:
    return {"y": np.asarray(function(inputs["x"]))}


def _scipy(problem: Softmax, inputs: Arrays) -> Arrays:
    from scipy.special import softmax

    return {"y": softmax(inputs["x"].numpy(), axis=1)}


OPERATOR = Operator(
    name="softmax",
    summary="softmax of each row",
    problem=Softmax,
    shapes=shapes,
    oracle=oracle,
    compare=compare,
    cost=cost,
    memory=memory,
    awkward=[Softmax(rows=rows, columns=columns) for rows, columns in ((1, 1), (1, 4099), (3, 2), (67, 31), (130, 64), (5, 1000))],
    signatures=[Signature(("x",), _call)],
    peers={"scipy softmax": Peer(_scipy, ("cpu",))},
)
