"""The baseline in plain torch, on the CPU and on a GPU: the rows of a query's lists gathered, and the k best kept by topk.

The length of the longest probed list decides the shapes, so the host waits once for it.
"""

from __future__ import annotations

import torch

from kernels.contract import Arrays, Block
from kernels.distance.torch_impl import between, ieee
from kernels.ivf.problem import Ivf
from kernels.ivf.space import TORCH as SPACE
from kernels.packing import NONE, key_of, pack_torch, unpack_torch

ARRAYS = "torch"
DEVICES = ("cpu", "cuda")

__all__ = ["ARRAYS", "DEVICES", "SPACE", "run"]


def run(problem: Ivf, inputs: Arrays, block: Block) -> Arrays:
    """Distances and ids [q, k]."""
    queries, offsets = inputs["queries"], inputs["offsets"]
    with ieee():
        probes = _smallest(_candidates(problem.metric, queries, inputs["centroids"]), problem.nprobe) & 0xFFFFFFFF
        starts, ends = offsets[probes], offsets[probes + 1]
        longest = int((ends - starts).max()) if len(queries) else 0
        width = min(longest, block["ROWS"])
        step = max(1, block["ROWS"] // max(1, width))
        best = torch.full((len(queries), problem.k), NONE, device=queries.device)
        for first in range(0, len(queries), step):
            batch = slice(first, first + step)
            for probe in range(problem.nprobe):
                for start in range(0, longest, max(1, width)):
                    at = starts[batch, probe, None] + start + torch.arange(width, device=queries.device)
                    found = _rows(problem.metric, queries[batch], inputs["rows"], inputs["ids"], at, ends[batch, probe, None])
                    best[batch] = _smallest(torch.cat([best[batch], found], dim=1), problem.k)
    keys, ids = unpack_torch(best, problem.k)
    return {"distances": key_of(problem.metric, keys), "ids": ids}


def _candidates(metric: str, queries: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    return pack_torch(key_of(metric, between(metric, queries, centroids)), torch.arange(len(centroids), device=queries.device))


def _rows(metric: str, queries: torch.Tensor, rows: torch.Tensor, ids: torch.Tensor, at: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Candidates [Q, W] of each query's rows `at` [Q, W], NONE from `ends` [Q, 1] on."""
    valid = at < ends
    at = torch.where(valid, at, 0)
    gathered = rows[at.view(-1)].view(*at.shape, -1)
    return torch.where(valid, pack_torch(key_of(metric, _between(metric, queries, gathered)), ids[at]), NONE)


def _between(metric: str, queries: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Distances [Q, W] of each query [Q, D] and its own rows [Q, W, D]."""
    if metric in ("l2", "l1"):
        return torch.cdist(queries[:, None], rows, p=float(metric[1]), compute_mode="donot_use_mm_for_euclid_dist")[:, 0]
    products = (rows @ queries[:, :, None])[:, :, 0]
    if metric == "dot":
        return products
    norms = torch.linalg.vector_norm(queries, dim=1)[:, None] * torch.linalg.vector_norm(rows, dim=2)
    return torch.where(norms == 0, 1.0, 1.0 - products / norms)


def _smallest(candidates: torch.Tensor, k: int) -> torch.Tensor:
    return candidates.topk(min(k, candidates.shape[1]), dim=1, largest=False).values
