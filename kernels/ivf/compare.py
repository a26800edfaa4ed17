"""Checks found neighbours by their float64 distances, so that any order of ties passes, of rows and of lists, and any wrong row fails."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.contract import Arrays, Verdict
from kernels.distance.reference import distances as distances_between
from kernels.distance.tolerance import allowed, deviation, row_norms
from kernels.ivf import reference

ENOUGH = 0.7
"""The recall that the course asks for."""


def compare(problem: Any, inputs: Arrays, outputs: Arrays, expected: Arrays) -> Verdict:
    """Ids of probed rows and none twice, padding where it belongs, the j-th distance that of the oracle, reported distances right.

    The j-th returned row may be farther than the oracle's j-th by the rounding of both their distances: two allowances (see
    `kernels.distance.tolerance`). Where the last list to probe and others are as near as that, any of these may have been probed instead.
    `distances` may be missing. Outputs "approximate", ids of a function that clusters the collection itself, need a recall of ENOUGH.
    """
    if "approximate" in outputs:
        return _recalled(problem, inputs, outputs["approximate"])
    ids = np.asarray(outputs["ids"])
    for name in ("ids", "distances"):
        shape = np.asarray(outputs.get(name, ids)).shape
        if shape != expected["ids"].shape:
            return Verdict(False, np.inf, f"{name} have shape {list(shape)}, not {list(expected['ids'].shape)}")
    check = _Check(problem, inputs)
    worst = Verdict(True, 0.0)
    for number in range(len(ids)):
        distances = np.asarray(outputs["distances"])[number] if "distances" in outputs else None
        verdict = check.query(number, ids[number], distances, expected["distances"][number], expected["ids"][number])
        if not verdict.error <= worst.error:
            worst = verdict
    return worst


class _Check:
    """The rows of a problem, found by id, and what is compared with them."""

    def __init__(self, problem: Any, inputs: Arrays) -> None:
        self.problem, self.inputs = problem, inputs
        self.order = np.argsort(inputs["ids"])
        self.sorted = inputs["ids"][self.order]
        self.largest = {name: self._largest_norm(inputs[name]) for name in ("rows", "centroids")}

    def _largest_norm(self, rows: np.ndarray) -> float:
        if self.problem.metric != "dot":
            return 1.0
        with np.errstate(over="ignore"):
            norms = row_norms(rows)
        return float(norms[np.isfinite(norms)].max(initial=0.0))

    def _allowed(self, query: np.ndarray, true: np.ndarray, among: str) -> np.ndarray:
        norms = row_norms(query[None])[0] * self.largest[among] if self.problem.metric == "dot" else 1.0
        return np.broadcast_to(allowed(self.problem.metric, self.problem.d, true, norms), true.shape)

    def query(self, number: int, ids: np.ndarray, distances: np.ndarray | None, true: np.ndarray, true_ids: np.ndarray) -> Verdict:
        """The verdict of one query, against the oracle and, if it fails, against the other lists that may have been probed."""
        query = self.inputs["queries"][number]
        verdict = self._against(query, number, ids, distances, true, int((true_ids >= 0).sum()))
        if verdict.ok:
            return verdict
        other = self._with_other_lists(query, ids)
        return verdict if other is None else self._against(query, number, ids, distances, *other)

    def _against(self, query: np.ndarray, number: int, ids: np.ndarray, distances: np.ndarray | None, true: np.ndarray,
                 real: int) -> Verdict:  # fmt: skip
        where = f"query {number}"
        if (ids[real:] != -1).any():
            return Verdict(False, np.inf, f"{where}: {ids[real:].tolist()} where padding (-1) belongs, since {real} rows are probed")
        if not np.isin(ids[:real], self.sorted).all() or len(np.unique(ids[:real])) != real:
            return Verdict(False, np.inf, f"{where}: an id twice, or of no row, in {ids[:real].tolist()}")
        actual = np.full(len(ids), -np.inf if self.problem.metric == "dot" else np.inf)
        found = distances_between(query[None], self.inputs["rows"][self._positions(ids[:real])], self.problem.metric)[0]
        actual[:real] = np.where(np.isnan(found), actual[:real], found)
        margin = self._allowed(query, true, "rows")
        checks = {"is at {} but the nearest left is at {}": (actual, true, deviation(actual, true, 2 * margin))}
        if distances is not None:
            checks["is given at {} but is at {}"] = (distances, actual, deviation(distances, actual, margin))
        text, (left, right, units) = max(checks.items(), key=lambda item: item[1][2].max())
        at, error = int(units.argmax()), float(units.max())
        message = f"{where}, neighbour {at} (id {ids[at]}) " + text.format(f"{left[at]:.9g}", f"{right[at]:.9g}")
        return Verdict(error <= 1, error, "" if error <= 1 else message)

    def _positions(self, ids: np.ndarray) -> np.ndarray:
        return self.order[np.searchsorted(self.sorted, ids)]

    def _with_other_lists(self, query: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, int] | None:
        """Distances, and how many of them are of rows, in lists that may have been probed and lead to `ids`; None: there are none.

        Those lists are what surely was probed and what `ids` lie in. The lists that complete them must add nothing.
        """
        problem, rows, offsets = self.problem, self.inputs["rows"], self.inputs["offsets"]
        known = ids[np.isin(ids, self.sorted)]
        keys = reference.keys(query, self.inputs["centroids"], problem.metric)
        edge = np.sort(keys)[problem.nprobe - 1]
        if not np.isfinite(edge):
            return None
        close = np.abs(keys - edge) <= 2 * self._allowed(query, np.abs(edge), "centroids")
        sure = set(np.flatnonzero((keys < edge) & ~close).tolist())
        maybe = set(np.flatnonzero(close).tolist())
        touched = set((np.searchsorted(offsets, self._positions(known), side="right") - 1).tolist())
        missing = problem.nprobe - len(sure | touched)
        if not touched <= sure | maybe or missing < 0:
            return None

        def among(lists: set[int]) -> tuple[np.ndarray, int]:
            at = reference.positions(offsets, sorted(lists))
            true, true_ids = reference.nearest(query, rows[at], self.inputs["ids"][at], problem.k, problem.metric)
            return true, int((true_ids >= 0).sum())

        true, real = among(sure | touched)
        last = 2 * self._allowed(query, true, "rows")[-1]

        def adds(one: int) -> bool:
            there, count = among({one})
            if real < problem.k:
                return count > 0
            return bool(there[0] > true[-1] + last if problem.metric == "dot" else there[0] < true[-1] - last)

        silent = [one for one in maybe - touched if not adds(one)]
        return (true, real) if len(silent) >= missing else None


def _recalled(problem: Any, inputs: Arrays, ids: np.ndarray) -> Verdict:
    """Whether ids [Q, k] hold enough of the exact nearest neighbours in all lists."""
    if ids.shape != (problem.q, problem.k):
        return Verdict(False, np.inf, f"ids have shape {list(ids.shape)}, not {[problem.q, problem.k]}")
    true = [reference.nearest(query, inputs["rows"], inputs["ids"], problem.k, problem.metric)[1] for query in inputs["queries"]]
    recall = float(np.mean([np.isin(exact, found).mean() for exact, found in zip(true, ids, strict=True)]))
    message = "" if recall >= ENOUGH else f"recall {recall:.3f}, and at least {ENOUGH} is asked for"
    return Verdict(recall >= ENOUGH, ENOUGH / recall if recall else np.inf, message)
