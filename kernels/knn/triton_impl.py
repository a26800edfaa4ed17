"""Triton: the nearest distance of each group of rows, the k best groups, and their rows again.

1. For each query and each group of BLOCK_N rows of the collection one kernel writes the best candidate: [Q, groups].
2. `topk` takes the k best groups of each query. They hold its k nearest rows: a row outside them has k better ones inside.
   Where groups are many they are selected the same way: by the best of each FOLD groups first.
3. A second kernel computes the candidates of those groups' rows alone, in the same float32 arithmetic, and
4. `topk` takes the k best of these k x BLOCK_N.

Candidates are packed integers (see `kernels.packing`), so that ties come by the smaller id in both selections. Queries
are taken in chunks that keep the scratch within SCRATCH bytes; no matrix of all distances exists.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.contract import Arrays, Block
from kernels.distance.triton_impl import norms, stream_width
from kernels.distance.triton_metric import stream_keys, tile_keys
from kernels.knn import SCRATCH, Knn
from kernels.knn.space import FEW
from kernels.knn.space import TRITON as SPACE
from kernels.metrics import NUMBER
from kernels.packing import key_of, unpack_torch
from kernels.packing.triton_packing import NOTHING, pack

ARRAYS = "torch"
DEVICES = ("cuda",)
FOLD = 64
FEW_GROUPS = 4096
"""Groups from which one `topk` takes the best at once; above, its many passes cost more than folding first."""

__all__ = ["ARRAYS", "DEVICES", "SPACE", "run"]


@triton.jit(do_not_specialize=["first", "N", "width"])
def knn_stream(X, Y, Best, first, N, width, D, METRIC: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    """The best candidate of one group (first grid axis) for one query (second); rows of Best are `width` long."""
    query = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    key = stream_keys(X, Y, first + query, rows, rows < N, D, METRIC, BLOCK_N, BLOCK_D)
    tl.store(Best + query * width + tl.program_id(0), tl.min(pack(key, rows, rows < N), axis=0))


@triton.jit(do_not_specialize=["first", "Q", "N", "width"])
def knn_tile(X, Y, XNorms, YNorms, Best, first, Q, N, width, D, METRIC: tl.constexpr, BLOCK_Q: tl.constexpr,
             BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    """The best candidates of one group for BLOCK_Q queries; programs of the same group are neighbours."""
    tiles = tl.cdiv(Q, BLOCK_Q)
    queries = (tl.program_id(0) % tiles).to(tl.int64) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    group = tl.program_id(0) // tiles
    rows = group.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    some, valid = queries < Q, rows < N
    key = tile_keys(X, Y, XNorms, YNorms, first + queries, rows, some, valid, D, METRIC, BLOCK_Q, BLOCK_N, BLOCK_D)
    best = tl.min(pack(key, rows[None, :], valid[None, :]), axis=1)
    tl.store(Best + queries * width + group, best, mask=some)


@triton.jit(do_not_specialize=["first", "N", "groups"])
def knn_rescore(X, Y, Chosen, Candidates, first, N, groups, D, METRIC: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    """All candidates of one of the `groups` groups chosen for a query; programs of the same query are neighbours."""
    place = tl.program_id(0).to(tl.int64)
    rows = tl.load(Chosen + place) * BLOCK_N + tl.arange(0, BLOCK_N)
    key = stream_keys(X, Y, first + place // groups, rows, rows < N, D, METRIC, BLOCK_N, BLOCK_D)
    tl.store(Candidates + place * BLOCK_N + tl.arange(0, BLOCK_N), pack(key, rows, rows < N))


def run(problem: Knn, inputs: Arrays, block: Block) -> Arrays:
    """Distances and ids [q, k]."""
    queries, collection = inputs["queries"], inputs["collection"]
    groups = triton.cdiv(len(collection), block["BLOCK_N"])
    keys = torch.empty((len(queries), problem.k), device=queries.device)
    ids = torch.empty((len(queries), problem.k), dtype=torch.int64, device=queries.device)
    step = max(1, SCRATCH // (16 * (groups + min(problem.k, groups) * block["BLOCK_N"]) + 1))
    row_norms = (norms(problem.metric, queries), norms(problem.metric, collection)) if len(queries) >= FEW else None
    for first in range(0, len(queries), step):
        part = slice(first, min(first + step, len(queries)))
        candidates = _candidates(problem, queries, collection, row_norms, part, groups, block)
        best = candidates.topk(min(problem.k, candidates.shape[1]), dim=1, largest=False).values
        keys[part], ids[part] = unpack_torch(best, problem.k)
    return {"distances": keys.sqrt() if problem.metric == "l2" else key_of(problem.metric, keys), "ids": ids}


def _candidates(problem: Knn, queries: torch.Tensor, collection: torch.Tensor, row_norms: tuple[torch.Tensor, torch.Tensor] | None,
                part: slice, groups: int, block: Block) -> torch.Tensor:  # fmt: skip
    """Candidates of all rows of the k best groups for the queries `part`; of all groups where there are no more than k."""
    q, (n, d), device = part.stop - part.start, collection.shape, queries.device
    options = {"METRIC": NUMBER[problem.metric], "num_warps": block["num_warps"], "num_stages": block["num_stages"]}
    stream = {"BLOCK_N": block["BLOCK_N"], "BLOCK_D": stream_width(d, block["BLOCK_D"])}
    if groups <= problem.k:
        chosen = torch.arange(groups, device=device).expand(q, groups).contiguous()
    else:
        width = groups if groups <= FEW_GROUPS else triton.cdiv(groups, FOLD) * FOLD
        best = torch.empty((q, width), dtype=torch.int64, device=device)
        best[:, groups:] = NOTHING.value
        if row_norms is None:
            knn_stream[(groups, q)](queries, collection, best, part.start, n, width, d, **stream, **options)
        else:
            tile = {axis: block[axis] for axis in ("BLOCK_Q", "BLOCK_N", "BLOCK_D")}
            tiles = triton.cdiv(q, block["BLOCK_Q"]) * groups
            knn_tile[(tiles,)](queries, collection, *row_norms, best, part.start, q, n, width, d, **tile, **options)
        chosen = _smallest(best, problem.k)
    candidates = torch.empty((q, chosen.shape[1] * block["BLOCK_N"]), dtype=torch.int64, device=device)
    if chosen.numel():
        arguments = (queries, collection, chosen, candidates, part.start, n, chosen.shape[1], d)
        knn_rescore[(chosen.numel(),)](*arguments, **stream, **options)
    return candidates


def _smallest(values: torch.Tensor, k: int) -> torch.Tensor:
    """Columns of the k smallest of each row, in any order. Rows longer than FEW_GROUPS are a multiple of FOLD long."""
    q, width = values.shape
    if width <= max(FEW_GROUPS, k * FOLD):
        return values.topk(k, dim=1, largest=False, sorted=False).indices
    folds = values.view(q, -1, FOLD).amin(dim=2).topk(k, dim=1, largest=False, sorted=False).indices
    members = (folds[:, :, None] * FOLD + torch.arange(FOLD, device=values.device)).view(q, -1)
    return members.gather(1, values.gather(1, members).topk(k, dim=1, largest=False, sorted=False).indices)
