"""The baseline in plain torch, on the CPU and on a GPU: `cdist` by direct differences, argmin, and sums by a product with the labels.

That product is the same on every run, unlike atomic additions.
"""

from __future__ import annotations

import torch

from kernels.contract import Arrays, Block
from kernels.distance.torch_impl import between, ieee
from kernels.kmeans import KMeans
from kernels.kmeans.lloyd import iterate
from kernels.kmeans.space import TORCH as SPACE

ARRAYS = "torch"
DEVICES = ("cpu", "cuda")
SAMPLE = 512
"""Points that stand for all where their centre and extent are asked for."""
SCORES = 1 << 27
"""Distances held at once (512 MiB), which may leave fewer rows a chunk than ROWS."""

__all__ = ["ARRAYS", "DEVICES", "SPACE", "centre_of", "prepare", "run", "step", "unit"]


def run(problem: KMeans, inputs: Arrays, block: Block) -> Arrays:
    """Labels [n] and inertia of the last iteration, centroids [k, d] after it, and how many points each has [k]."""
    return iterate(problem, inputs, block, prepare, step)


def prepare(problem: KMeans, points: torch.Tensor, block: Block) -> tuple[torch.Tensor, torch.Tensor]:
    """The points, and what is taken off before they are summed, so that an offset costs no digits."""
    return points, centre_of(problem.metric, points)[0]


def step(problem: KMeans, prepared: tuple[torch.Tensor, torch.Tensor], centroids: torch.Tensor, block: Block) -> Arrays:
    """One iteration."""
    points, centre = prepared
    if problem.metric == "cosine":
        centroids = unit(centroids)
    labels = torch.empty(problem.n, dtype=torch.int32, device=points.device)
    sums, counts = torch.zeros_like(centroids), torch.zeros(problem.k, dtype=torch.int64, device=points.device)
    inertia = torch.zeros((), dtype=torch.float64, device=points.device)
    rows = max(1, min(block["ROWS"], SCORES // problem.k))
    with ieee():
        for chunk, out in zip(points.split(rows), labels.split(rows), strict=True):
            usable = torch.isfinite((chunk * chunk).sum(1, keepdim=True))
            chunk = torch.where(usable, chunk, 0.0)
            chunk = chunk if problem.metric == "l2" else unit(chunk)
            distances, own = (between("l2", chunk, centroids) if problem.metric == "l2" else 1.0 - chunk @ centroids.T).min(1)
            out.copy_(torch.where(usable[:, 0], own, -1))
            member = torch.zeros((len(chunk), problem.k), device=points.device).scatter_(1, own[:, None], usable.float())
            sums += member.T @ (chunk - centre)
            counts += member.sum(0).long()
            terms = distances.double() ** 2 if problem.metric == "l2" else distances.double()
            inertia += (terms * usable[:, 0]).sum()
    means = torch.where(counts[:, None] > 0, centre + sums / counts[:, None].clamp(min=1), centroids)
    moved = means if problem.metric == "l2" else unit(means)
    return {"labels": labels, "centroids": moved, "counts": counts.int(), "inertia": inertia}


def centre_of(metric: str, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The median [D] of SAMPLE points for l2, 0 for cosine; and of their largest deviations from it the median [1], or the most if it is 0.

    Medians, because a point that is far from all others must not move the rest, whose digits it would cost.
    """
    some = points[:: max(1, len(points) // SAMPLE)][:SAMPLE]
    centre = _median(some) if metric == "l2" else torch.zeros_like(points[0])
    extents = (some - centre).abs().amax(1, keepdim=True)
    largest = torch.where(torch.isfinite(extents), extents, 0.0).amax(0)
    return centre, torch.where(_median(extents) > 0, _median(extents), largest)


def _median(rows: torch.Tensor) -> torch.Tensor:
    """The lower median of each column, of what is finite; 0 where nothing is."""
    finite = torch.isfinite(rows)
    ordered = torch.where(finite, rows, float("inf")).sort(dim=0, stable=True).values
    middle = (finite.sum(0, keepdim=True) - 1).clamp(min=0) // 2
    return torch.nan_to_num(ordered.gather(0, middle)[0], posinf=0.0)


def unit(rows: torch.Tensor) -> torch.Tensor:
    """Rows scaled to length 1; zero rows stay."""
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(norms == 0, 1.0, norms)
