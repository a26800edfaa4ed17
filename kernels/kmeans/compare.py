"""Checks an iteration's outputs against each other and against float64, so that any choice between ties passes and any slip fails."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.contract import Arrays, Verdict
from kernels.distance.tolerance import EPSILON, SMALLEST, allowed, deviation, row_norms
from kernels.kmeans.reference import unit, usable

CHUNK = 1 << 22
"""Values that are widened to float64 at a time."""


def compare(problem: Any, inputs: Arrays, outputs: Arrays, expected: Arrays) -> Verdict:
    """Labels, by their float64 distances to the centroids before the last update; centroids, counts and inertia, given the labels.

    A point may be farther from its centroid than from the nearest by the rounding of both distances (two allowances of
    `kernels.distance.tolerance`). A mean of n points may be off by (8 + sqrt n) machine epsilons of the mean magnitude, as a
    float32 sum in any sensible order is, and by two of the largest centroid's, which may be taken off first. After several
    iterations the centroids that the labels are of were rounded that way too. `inputs` may name the "rows" whose labels are checked,
    those that `expected` is of; without them all are.
    """
    labels, n, k = np.asarray(outputs["labels"]), len(inputs["points"]), problem.k
    if message := _misshapen(labels, inputs["points"], k):
        return Verdict(False, np.inf, message)
    before = expected["before"]
    slack = _centroid_slack(inputs["points"], k) if problem.iterations > 1 and problem.metric == "l2" else 0.0
    distances = _own_distances(problem.metric, inputs["points"], before, labels)
    margin = np.broadcast_to(allowed(problem.metric, problem.d, distances, 1.0) + slack, (n,))
    rows = inputs.get("rows", np.arange(n))
    nearest = expected["distances"]
    checks = [("label of point {}: its centroid is at {}, the nearest at {}", distances[rows], nearest,
               deviation(distances[rows], nearest, allowed(problem.metric, problem.d, nearest, 1.0) + margin[rows]))]  # fmt: skip
    counts = np.bincount(labels[labels >= 0], minlength=k)
    found = {name: np.asarray(outputs[name]) for name in ("counts", "centroids", "inertia")}
    if found["centroids"].shape != (k, problem.d):
        return Verdict(False, np.inf, f"centroids have shape {list(found['centroids'].shape)}, not {[k, problem.d]}")
    checks.append(("count of cluster {} is {}, its labels are {}", found["counts"], counts, np.where(found["counts"] == counts, 0, np.inf)))
    true, allowance = _means(problem.metric, inputs["points"], labels, before, slack)
    checks.append(("centroid {} has {} where the mean is {}", found["centroids"], true, deviation(found["centroids"], true, allowance)))
    terms, bounds = (distances**2, (2 * distances + margin) * margin) if problem.metric == "l2" else (distances, margin)
    inertia = np.array([terms.sum()])
    units = deviation(found["inertia"].reshape(1), inertia, bounds[labels >= 0].sum() + SMALLEST)
    checks.append(("inertia ({}) is {}, by the labels it is {}", found["inertia"].reshape(1), inertia, units))
    return _verdict(checks)


def _verdict(checks: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]) -> Verdict:
    """The worst of checks, each a text, what was found, what is true, and the deviation in units of what is allowed."""
    text, left, right, units = max(checks, key=lambda check: check[3].max(initial=0.0))
    worst = float(units.max(initial=0.0))
    if worst <= 1:
        return Verdict(True, worst)
    at = np.unravel_index(units.argmax(), units.shape)
    return Verdict(False, worst, text.format([int(i) for i in at], f"{left[at]:.9g}", f"{right[at]:.9g}"))


def _misshapen(labels: np.ndarray, points: np.ndarray, k: int) -> str:
    """What is wrong with the labels before any distance is looked at, or nothing."""
    if labels.shape != (len(points),) or labels.dtype.kind != "i":
        return f"labels have shape {list(labels.shape)} and dtype {labels.dtype}, not {[len(points)]} of integers"
    none = ~usable(points)
    wrong = np.where(none, labels != -1, (labels < 0) | (labels >= k))
    if not wrong.any():
        return ""
    row = int(wrong.argmax())
    return f"point {row} has label {labels[row]}, not {'-1: it is not finite' if none[row] else f'one of 0 to {k - 1}'}"


def _chunks(points: np.ndarray) -> list[slice]:
    rows = max(1, CHUNK // points.shape[1])
    return [slice(start, start + rows) for start in range(0, len(points), rows)]


def _own_distances(metric: str, points: np.ndarray, centroids: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Float64 distances [N] to the centroids that the labels name; 0 for label -1."""
    distances = np.zeros(len(points))
    for chunk in _chunks(points):
        own = centroids[np.maximum(labels[chunk], 0)]
        with np.errstate(all="ignore"):
            wide = points[chunk].astype(np.float64)
            squares = np.sum((wide - own) ** 2, axis=1) if metric == "l2" else np.sum(unit(wide) * unit(own), axis=1)
            distances[chunk] = np.where(labels[chunk] < 0, 0.0, np.sqrt(squares) if metric == "l2" else 1.0 - squares)
    return distances


def _means(metric: str, points: np.ndarray, labels: np.ndarray, before: np.ndarray, slack: float) -> tuple[np.ndarray, np.ndarray]:
    """Float64 centroids [K, D] that the labels give, and the deviation allowed of each value."""
    sums, magnitudes = np.zeros_like(before), np.zeros_like(before)
    for chunk in _chunks(points):
        real = labels[chunk] >= 0
        wide = points[chunk][real].astype(np.float64)
        wide, own = wide if metric == "l2" else unit(wide), labels[chunk][real]
        order = np.argsort(own, kind="stable")
        found, starts = np.unique(own[order], return_index=True)
        if len(found):
            sums[found] += np.add.reduceat(wide[order], starts, axis=0)
            magnitudes[found] += np.add.reduceat(np.abs(wide[order]), starts, axis=0)
    counts = np.bincount(labels[labels >= 0], minlength=len(before))[:, None]
    many = np.maximum(counts, 1)
    relative = EPSILON * (8 + np.sqrt(many))
    if metric == "l2":
        true, allowance = sums / many, relative * magnitudes / many + 2 * EPSILON * np.abs(before).max(axis=0)
    else:
        length = row_norms(sums)[:, None] / many  # of the mean of unit vectors: what normalising magnifies the rounding by
        true = unit(sums)
        allowance = relative * (magnitudes / many + np.abs(true)) / np.where(length == 0, EPSILON, length)
    kept = slack if metric == "l2" else 8 * EPSILON * np.abs(before)  # scaled to length 1 once more
    return np.where(counts > 0, true, before), np.where(counts > 0, allowance, kept) + SMALLEST


def _centroid_slack(points: np.ndarray, k: int) -> float:
    """How far rounding may have moved a centroid of an iteration before the last."""
    norms = row_norms(points[usable(points)])
    return float(EPSILON * (8 + np.sqrt(len(points) / k)) * norms.max(initial=0.0))
