"""Right answers of operators that find neighbours, and the ways in which such an answer can be wrong, for tests of their comparisons."""

from __future__ import annotations

import numpy as np

from kernels.contract import Arrays, Operator, Problem


def answer(operator: Operator, problem: Problem, seed: int = 0) -> tuple[Arrays, Arrays, Arrays]:
    """(inputs, the oracle's outputs, the same as a backend gives them)."""
    inputs = operator.make_inputs(problem, seed)
    expected = operator.oracle(problem, inputs)
    return inputs, expected, {"ids": expected["ids"].copy(), "distances": expected["distances"].astype(np.float32)}


def wrong_row(ids: np.ndarray, distances: np.ndarray, n: int) -> None:
    ids[0, 3] = next(row for row in range(n) if row not in ids[0])


def same_row_twice(ids: np.ndarray, distances: np.ndarray, n: int) -> None:
    ids[1, 1] = ids[1, 0]


def out_of_range(ids: np.ndarray, distances: np.ndarray, n: int) -> None:
    ids[0, 0] = n


def padding_early(ids: np.ndarray, distances: np.ndarray, n: int) -> None:
    ids[0, 4] = -1


def wrong_order(ids: np.ndarray, distances: np.ndarray, n: int) -> None:
    ids[1] = ids[1, ::-1].copy()


def wrong_distance(ids: np.ndarray, distances: np.ndarray, n: int) -> None:
    distances[0, 2] *= 1.001


SPOILED = [wrong_row, same_row_twice, out_of_range, padding_early, wrong_order, wrong_distance]
