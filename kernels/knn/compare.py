"""Checks found neighbours by their float64 distances, so that any order of ties passes and any wrong row fails."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.contract import Arrays, Verdict
from kernels.distance import reference
from kernels.distance.tolerance import allowed, deviation, row_norms


def compare(problem: Any, inputs: Arrays, outputs: Arrays, expected: Arrays) -> Verdict:
    """Ids in range and none twice, padding where it belongs, the j-th distance that of the oracle, reported distances right.

    The j-th returned row may be farther than the oracle's j-th by the rounding of both their distances: two allowances
    (see `kernels.distance.tolerance`). `distances` may be missing from the outputs; the number of queries is that of the inputs.
    """
    ids, true = np.asarray(outputs["ids"]), expected["distances"]
    if message := _misshapen(ids, true.shape, len(inputs["collection"])):
        return Verdict(False, np.inf, message)
    actual = _distances(problem.metric, inputs, ids)
    margin = allowed(problem.metric, problem.d, true, _norms(problem.metric, inputs))
    checks = {"the row is at {} but the nearest left is at {}": (actual, true, deviation(actual, true, 2 * margin))}
    if "distances" in outputs:
        found = np.asarray(outputs["distances"])
        if found.shape != true.shape:
            return Verdict(False, np.inf, f"distances have shape {list(found.shape)}, not {list(true.shape)}")
        checks["its distance is given as {} but is {}"] = (found, actual, deviation(found, actual, margin))
    if not true.size:
        return Verdict(True, 0.0)
    text, (left, right, units) = max(checks.items(), key=lambda item: item[1][2].max())
    worst, at = float(units.max()), np.unravel_index(units.argmax(), units.shape)
    where = f"query {at[0]}, neighbour {at[1]} (id {ids[at]}): " + text.format(f"{left[at]:.9g}", f"{right[at]:.9g}")
    return Verdict(worst <= 1, worst, "" if worst <= 1 else where)


def _misshapen(ids: np.ndarray, shape: tuple[int, ...], n: int) -> str:
    """What is wrong with the ids before any distance is looked at, or nothing."""
    if ids.shape != shape:
        return f"ids have shape {list(ids.shape)}, not {list(shape)}"
    real = min(n, shape[1])
    for query, row in enumerate(ids):
        if (row[real:] != -1).any():
            return f"query {query}: {row[real:].tolist()} where padding (-1) belongs, since the collection has {n} rows"
        if ((row[:real] < 0) | (row[:real] >= n)).any():
            return f"query {query}: an id outside 0 to {n - 1} in {row[:real].tolist()}"
        if len(np.unique(row[:real])) != real:
            return f"query {query}: an id twice in {row[:real].tolist()}"
    return ""


def _distances(metric: str, inputs: Arrays, ids: np.ndarray) -> np.ndarray:
    """Float64 distances [Q, k] of the returned rows; infinite for padding and NaN."""
    far = -np.inf if metric == "dot" else np.inf
    result = np.full(ids.shape, far)
    for query, row, found in zip(inputs["queries"], ids, result, strict=True):
        real = row >= 0
        found[real] = reference.distances(query[None], inputs["collection"][row[real]], metric)[0]
    result[np.isnan(result)] = far
    return result


def _norms(metric: str, inputs: Arrays) -> np.ndarray | float:
    """|x| max |y|, the magnitude that rounds in a product of each query [Q, 1]; dot alone needs it."""
    if metric != "dot":
        return 1.0
    norms = row_norms(inputs["collection"])
    return row_norms(inputs["queries"])[:, None] * norms[np.isfinite(norms)].max(initial=0.0)
