"""How far a float32 result may be from the float64 oracle, and how far it is, in units of that.

A float32 sum of D terms in any sensible order is off by a random walk of D roundings, and the few operations around it add
theirs: (8 + sqrt D) machine epsilons of the magnitude summed. For l2 and l1 that magnitude is the distance itself, since the
difference of two float32 numbers is rounded relative to itself; for dot it is |x| |y|, for cosine 1. Inputs of half precision are
widened to float32 without loss, so that the same holds for them.
"""

from __future__ import annotations

import numpy as np

EPSILON = float(np.finfo(np.float32).eps)
LARGEST = float(np.finfo(np.float32).max)
SMALLEST = float(np.sqrt(np.finfo(np.float32).tiny))
"""Differences below this have squares that float32 cannot hold."""


def allowed(metric: str, d: int, expected: np.ndarray, norms: np.ndarray | float) -> np.ndarray:
    """The deviation allowed of each `expected` distance in D = `d` dimensions; `norms` is |x| |y|, used for dot alone."""
    magnitude = {"dot": norms, "cosine": 1.0}.get(metric, np.abs(expected))
    return EPSILON * (8 + np.sqrt(d)) * magnitude + SMALLEST * np.sqrt(d)


def deviation(found: np.ndarray, expected: np.ndarray, allowance: np.ndarray) -> np.ndarray:
    """|found - expected| / allowance, elementwise: 0 where both are NaN or the same infinity, infinite where only one is.

    An oracle's value beyond the float32 range counts as infinite.
    """
    found = np.asarray(found, np.float64)
    expected = np.where(np.abs(expected) > LARGEST, np.copysign(np.inf, expected), expected)
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        units = np.abs(found - expected) / allowance
    return np.where(same, 0.0, np.where(np.isfinite(found) & np.isfinite(expected), units, np.inf))


def spread(count: int, most: int) -> np.ndarray:
    """At most `most` numbers from 0 to `count` - 1, evenly spread, the first and the last among them where there are two."""
    return np.unique(np.linspace(0, max(count - 1, 0), max(1, min(count, most)), dtype=np.int64))[:count]


def row_norms(rows: np.ndarray) -> np.ndarray:
    """Euclidean norms in float64 of rows of any float dtype."""
    return np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
