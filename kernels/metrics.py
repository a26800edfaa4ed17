"""The four distances by name, as the course has them: cosine, L2, dot product and L1."""

from __future__ import annotations

from typing import Literal, get_args

from analysis.cli import BadInput

Metric = Literal["cosine", "l2", "dot", "l1"]
METRICS: tuple[Metric, ...] = get_args(Metric)
NUMBER = {"l2": 0, "l1": 1, "dot": 2, "cosine": 3}
"""The metrics as the kernels' compile-time constant METRIC."""


def known_metric(metric: str) -> Metric:
    """`metric`. Raises BadInput unless it is one of METRICS."""
    for known in METRICS:
        if metric == known:
            return known
    raise BadInput(f"metric: {metric!r} is not one of {', '.join(METRICS)}")
