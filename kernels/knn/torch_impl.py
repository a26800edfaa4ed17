"""The baseline in plain torch, on the CPU and on a GPU: distances a chunk of rows at a time, and the k best kept by topk."""

from __future__ import annotations

import torch

from kernels.contract import Arrays, Block
from kernels.distance.torch_impl import between, ieee
from kernels.knn import Knn
from kernels.knn.space import TORCH as SPACE
from kernels.packing import key_of, pack_torch, unpack_torch

ARRAYS = "torch"
DEVICES = ("cpu", "cuda")
SCORES = 1 << 25
"""Distances held at once (128 MiB, and twice that as candidates): how many queries share a pass over the collection."""

__all__ = ["ARRAYS", "DEVICES", "SPACE", "run"]


def run(problem: Knn, inputs: Arrays, block: Block) -> Arrays:
    """Distances and ids [q, k]."""
    queries = inputs["queries"]
    step = max(1, SCORES // max(1, min(block["ROWS"], len(inputs["collection"]))))
    with ieee():
        found = [_search(problem, batch, inputs["collection"], block["ROWS"]) for batch in queries.split(step)]
    distances, ids = (torch.cat(parts) for parts in zip(*found, strict=True))
    return {"distances": distances, "ids": ids}


def _search(problem: Knn, queries: torch.Tensor, collection: torch.Tensor, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    best = torch.empty((len(queries), 0), dtype=torch.int64, device=queries.device)
    for start in range(0, len(collection), rows):
        chunk = collection[start : start + rows]
        keys = key_of(problem.metric, between(problem.metric, queries, chunk))
        ids = torch.arange(start, start + len(chunk), device=queries.device)
        candidates = torch.cat([best, pack_torch(keys, ids)], dim=1)
        best = candidates.topk(min(problem.k, candidates.shape[1]), dim=1, largest=False).values
    keys, ids = unpack_torch(best, problem.k)
    return key_of(problem.metric, keys), ids
