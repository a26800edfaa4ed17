"""Other people's Lloyd iteration, measured beside ours. Each imports its library when it is called."""

from __future__ import annotations

from typing import Any

import numpy as np

from analysis.cli import BadInput
from kernels.contract import Arrays, Peer


def sklearn(problem: Any, inputs: Arrays) -> Arrays:
    """scikit-learn's Lloyd on the CPU. It labels the points once more at the end, by the centroids it returns: an assignment too many."""
    from sklearn.cluster import KMeans

    if problem.metric != "l2":
        raise BadInput("peer sklearn: has l2 alone")
    points, centroids = (inputs[name].numpy() for name in ("points", "centroids"))
    model = KMeans(problem.k, init=centroids, n_init=1, max_iter=problem.iterations, tol=0.0, algorithm="lloyd").fit(points)
    counts = np.bincount(model.labels_, minlength=problem.k)
    return {"labels": model.labels_, "centroids": model.cluster_centers_, "counts": counts, "inertia": np.asarray(model.inertia_)}


def torch_products(problem: Any, inputs: Arrays) -> Arrays:
    """What one writes in torch: |c|² - 2 x·c by a float32 matrix product a chunk at a time, argmin, and `index_add_`."""
    import torch

    if problem.metric != "l2":
        raise BadInput("peer torch: asked for l2 alone")
    points, centroids = inputs["points"], inputs["centroids"]
    rows = max(1, (1 << 27) // problem.k)
    for _ in range(problem.iterations):
        squares = (centroids * centroids).sum(1)
        found = [torch.addmm(squares, chunk, centroids.T, alpha=-2).min(1) for chunk in points.split(rows)]
        labels, least = (torch.cat([each[part] for each in found]) for part in (1, 0))
        sums = torch.zeros_like(centroids).index_add_(0, labels, points)
        counts = torch.zeros(problem.k, device=points.device).index_add_(0, labels, torch.ones_like(least))
        centroids = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), centroids)
    inertia = (least + (points * points).sum(1)).sum(dtype=torch.float64)
    return {"labels": labels, "centroids": centroids, "counts": counts, "inertia": inertia}


PEERS = {"sklearn": Peer(sklearn, ("cpu",)), "torch": Peer(torch_products)}
