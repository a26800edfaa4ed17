"""Triton: the collection streamed once a query where there are few, tiles of queries x rows where there are many."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.contract import Arrays, Block
from kernels.distance import Distance
from kernels.distance.space import FEW
from kernels.distance.space import TRITON as SPACE
from kernels.distance.triton_metric import distance_of, stream_keys, tile_keys
from kernels.metrics import NUMBER

ARRAYS = "torch"
DEVICES = ("cuda",)

__all__ = ["ARRAYS", "DEVICES", "SPACE", "run"]


@triton.jit(do_not_specialize=["N"])
def distance_stream(X, Y, Out, N, D, METRIC: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    """One query (second grid axis) against BLOCK_N rows (first)."""
    query = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    key = stream_keys(X, Y, query, rows, rows < N, D, METRIC, BLOCK_N, BLOCK_D)
    tl.store(Out + query * N + rows, distance_of(key, METRIC), mask=rows < N)


@triton.jit(do_not_specialize=["Q", "N"])
def distance_tile(X, Y, XNorms, YNorms, Out, Q, N, D, METRIC: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_N: tl.constexpr,
                  BLOCK_D: tl.constexpr):  # fmt: skip
    """BLOCK_Q queries against BLOCK_N rows; programs of the same rows are neighbours, so that those are read from memory once."""
    tiles = tl.cdiv(Q, BLOCK_Q)
    queries = (tl.program_id(0) % tiles).to(tl.int64) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    rows = (tl.program_id(0) // tiles).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    some, valid = queries < Q, rows < N
    key = tile_keys(X, Y, XNorms, YNorms, queries, rows, some, valid, D, METRIC, BLOCK_Q, BLOCK_N, BLOCK_D)
    tl.store(Out + queries[:, None] * N + rows[None, :], distance_of(key, METRIC), mask=some[:, None] & valid[None, :])


def run(problem: Distance, inputs: Arrays, block: Block) -> Arrays:
    """Distances [q, n]. Every metric is symmetric: the smaller side streams against the larger."""
    x, y = inputs["x"], inputs["y"]
    if len(y) < min(len(x), FEW):
        return {"distances": _distances(problem.metric, y, x, block).T}
    return {"distances": _distances(problem.metric, x, y, block)}


def stream_width(d: int, widest: int) -> int:
    """Columns a step of a streaming kernel: `widest`, less where D is smaller."""
    return min(widest, triton.next_power_of_2(d))


def norms(metric: str, rows: torch.Tensor) -> torch.Tensor:
    """Euclidean norms of the rows where the metric wants them; elsewhere the rows, as a pointer that is never read."""
    return torch.linalg.vector_norm(rows, dim=1) if metric == "cosine" else rows


def _distances(metric: str, x: torch.Tensor, y: torch.Tensor, block: Block) -> torch.Tensor:
    (q, d), n = x.shape, len(y)
    out = torch.empty((q, n), device=x.device)
    if not out.numel():
        return out
    options = {"num_warps": block["num_warps"], "num_stages": block["num_stages"]}
    if q < FEW:
        elements = block["BLOCK_N"] * block["BLOCK_D"]
        width = min(elements, triton.next_power_of_2(d)) if n == 1 else stream_width(d, block["BLOCK_D"])
        tile = 1 if n == 1 else elements // width
        distance_stream[(triton.cdiv(n, tile), q)](x, y, out, n, d, METRIC=NUMBER[metric], BLOCK_N=tile, BLOCK_D=width, **options)
    else:
        tiles = triton.cdiv(q, block["BLOCK_Q"]) * triton.cdiv(n, block["BLOCK_N"])
        sizes = {axis: block[axis] for axis in ("BLOCK_Q", "BLOCK_N", "BLOCK_D")}
        distance_tile[(tiles,)](x, y, norms(metric, x), norms(metric, y), out, q, n, d, METRIC=NUMBER[metric], **sizes, **options)
    return out
