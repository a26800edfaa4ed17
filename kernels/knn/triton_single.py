"""One query: rows are streamed once, the best candidate of each group of them is left, and one program picks the nearest.

What is nearest lies in what is best: the k best groups hold the k nearest rows, and the k best of larger sets of groups hold those.
In a small collection the program that ends last picks, since a second launch would take longer than the distances: each program takes a
span of rows, in tiles of BLOCK_N, and its groups are the rows of a block that lie BLOCK_N apart. A large one is streamed by many light
programs, a group each, and a second launch picks.
"""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl

from kernels.contract import Arrays, Block
from kernels.distance.triton_metric import COSINE, stream_keys, stream_sums
from kernels.knn.answer import MOST, TAIL, write
from kernels.metrics import NUMBER
from kernels.packing.triton_packing import NOTHING, pack, pick

SPANS = 1024
"""Spans at most: as many as the last program compares at once."""
SMALL = 1 << 22
"""Elements of a collection up to which one launch takes less time than two."""
SMALL_TILE = 2048
"""Elements of a tile of such a collection, so that there are enough programs."""
WIDTH = 1024
"""Columns of a tile at most."""
GROUP = 64
"""Rows of a group at most where there are two launches."""
REREAD = 16384
"""Elements of such a group, all of which are read again if it holds a neighbour."""
BUCKETS = 4096
"""Buckets of groups, as many as a program compares at once."""
GROUPS = 128
"""Groups of a span at most."""
TILES = tl.constexpr(32)
"""Rows of each group that the last program scores at a time."""


@triton.jit
def rows_of_groups(X, Y, near, tiles, N, k, D, METRIC: tl.constexpr, K: tl.constexpr, AT_ONCE: tl.constexpr, BLOCK_D: tl.constexpr,
                   BLOCK_N: tl.constexpr):  # fmt: skip
    """The k best candidates [K] among all rows of the groups that hold the candidates `near`, AT_ONCE rows of each at a time."""
    picked = tl.full([K], NOTHING, tl.int64)
    row = near & 0xFFFFFFFF
    start = row // (tiles * BLOCK_N) * (tiles * BLOCK_N) + row % BLOCK_N
    for first in range(0, tiles, AT_ONCE):
        tile = first + tl.arange(0, AT_ONCE)
        rows = start[:, None] + (tile * BLOCK_N)[None, :]
        valid = tl.reshape((near != NOTHING)[:, None] & (tile < tiles)[None, :] & (rows < N), [K * AT_ONCE])
        rows = tl.reshape(rows, [K * AT_ONCE])
        key = stream_keys(X, Y, 0, rows, valid, D, METRIC, K * AT_ONCE, BLOCK_D)
        best = pick(pack(key, rows, valid), k, K)
        picked = pick(tl.reshape(tl.join(picked, best), [2 * K]), k, K)
    return picked


@triton.jit
def cosine_order(key, squares):
    """What orders rows as cosine does, in fewer steps: -x·y / |y| from -x·y and |y|²; 0 for a row of zeros."""
    return tl.where(squares == 0, 0.0, key * tl.rsqrt(squares))


@triton.jit(do_not_specialize=["N", "k", "spans", "blocks", "tiles"])
def knn_single(X, Y, Groups, Spans, Ended, Distances, Ids, N, k, spans, blocks, tiles, D, METRIC: tl.constexpr, K: tl.constexpr,
               WHOLE: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, TAIL_D: tl.constexpr, SPANS: tl.constexpr,
               GROUPS: tl.constexpr):  # fmt: skip
    """One query X [D]: `spans` programs of `blocks` blocks of `tiles` tiles; WHOLE says that D is BLOCK_D.

    Ended must be zero, and is zero again afterwards.
    """
    span = tl.program_id(0).to(tl.int64)
    each = tl.arange(0, BLOCK_N)
    best = tl.full([BLOCK_N], NOTHING, tl.int64)
    for block in range(0, blocks):
        found = tl.full([BLOCK_N], NOTHING, tl.int64)
        for tile in range(0, tiles):
            rows = ((span * blocks + block) * tiles + tile) * BLOCK_N + each
            key = stream_keys(X, Y, 0, rows, rows < N, BLOCK_D if WHOLE else D, METRIC, BLOCK_N, BLOCK_D)
            found = tl.minimum(found, pack(key, rows, rows < N))
        tl.store(Groups + (span * blocks + block) * BLOCK_N + each, found)
        best = tl.minimum(best, found)
    tl.store(Spans + span, tl.min(best, axis=0))
    tl.debug_barrier()
    if tl.atomic_add(Ended, 1, sem="acq_rel") == spans - 1:
        near = pick(tl.load(Spans + tl.arange(0, SPANS), mask=tl.arange(0, SPANS) < spans, other=NOTHING, cache_modifier=".cg"), k, K)
        start = (near & 0xFFFFFFFF) // (blocks * tiles * BLOCK_N) * (blocks * BLOCK_N)
        inside = (near != NOTHING)[:, None] & (tl.arange(0, GROUPS) < blocks * BLOCK_N)[None, :]
        places = Groups + start[:, None] + tl.arange(0, GROUPS)[None, :]
        near = pick(tl.reshape(tl.load(places, mask=inside, other=NOTHING, cache_modifier=".cg"), [K * GROUPS]), k, K)
        if tiles > 1:  # otherwise a group is a row
            near = rows_of_groups(X, Y, near, tiles, N, k, D, METRIC, K, TILES, TAIL_D, BLOCK_N)
        write(Distances, Ids, 0, near, k, METRIC, K)
        tl.store(Ended, 0)


@triton.jit(do_not_specialize=["N", "tiles"])
def knn_stream(X, Y, Best, N, tiles, D, METRIC: tl.constexpr, WHOLE: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    """The best candidate of a group, `tiles` tiles of BLOCK_N rows; WHOLE says that D is BLOCK_D."""
    first = tl.program_id(0).to(tl.int64) * tiles * BLOCK_N
    best = tl.full([BLOCK_N], NOTHING, tl.int64)
    for tile in range(0, tiles):
        rows = first + tile * BLOCK_N + tl.arange(0, BLOCK_N)
        if METRIC == COSINE:
            products, squares, _ = stream_sums(X, Y, 0, rows, rows < N, 0, BLOCK_D if WHOLE else D, D, METRIC, BLOCK_N, BLOCK_D)
            key = cosine_order(0.0 - products, squares)
        else:
            key = stream_keys(X, Y, 0, rows, rows < N, BLOCK_D if WHOLE else D, METRIC, BLOCK_N, BLOCK_D)
        best = tl.minimum(best, pack(key, rows, rows < N))
    tl.store(Best + tl.program_id(0), tl.min(best, axis=0))


@triton.jit(do_not_specialize=["N", "k", "groups", "size"])
def knn_pick(X, Y, Best, Distances, Ids, N, k, groups, size, D, METRIC: tl.constexpr, K: tl.constexpr, TAIL_D: tl.constexpr,
             BUCKETS: tl.constexpr):  # fmt: skip
    """The k nearest rows, from the best candidate of each group of `size` rows; the k best of BUCKETS buckets hold the k best groups."""
    bucket = tl.arange(0, BUCKETS)
    smallest = tl.full([BUCKETS], NOTHING, tl.int64)
    for start in range(0, groups, BUCKETS):
        smallest = tl.minimum(smallest, tl.load(Best + start + bucket, mask=start + bucket < groups, other=NOTHING))
    near = pick(smallest, k, K)
    start = (near & 0xFFFFFFFF) // size % BUCKETS
    best = tl.full([K], NOTHING, tl.int64)
    for fold in range(0, tl.cdiv(groups, BUCKETS), TILES):
        group = start[:, None] + (fold + tl.arange(0, TILES))[None, :] * BUCKETS
        found = tl.load(Best + group, mask=(near != NOTHING)[:, None] & (group < groups), other=NOTHING)
        best = pick(tl.reshape(tl.join(best, pick(tl.reshape(found, [K * TILES]), k, K)), [2 * K]), k, K)
    write(Distances, Ids, 0, rows_of_groups(X, Y, best, size, N, k, D, METRIC, K, TILES, TAIL_D, 1), k, METRIC, K)


@functools.cache
def ended(device: torch.device, stream: int) -> torch.Tensor:
    """The counter of a stream, on which one launch follows another."""
    return torch.zeros(1, dtype=torch.int32, device=device)


def nearest(metric: str, query: torch.Tensor, collection: torch.Tensor, k: int, block: Block) -> Arrays:
    """Distances and ids [1, k] of the k nearest rows, k up to MOST, to one query [1, D].

    `block`: ELEMENTS a tile; num_warps and maxnreg are Triton's.
    """
    n, d = collection.shape
    distances = torch.empty((1, k), device=query.device)
    ids = torch.empty((1, k), dtype=torch.int64, device=query.device)
    (_once if n * d <= SMALL else _twice)(metric, query, collection, distances, ids, block)
    return {"distances": distances, "ids": ids}


def _once(metric: str, query: torch.Tensor, collection: torch.Tensor, distances: torch.Tensor, ids: torch.Tensor, block: Block) -> None:
    (n, d), k, device = collection.shape, ids.shape[1], query.device
    width = min(triton.next_power_of_2(d), WIDTH)
    rows = max(1, min(GROUPS, SMALL_TILE // width))
    blocks = min(GROUPS // rows, max(1, triton.cdiv(n, rows * SPANS)))
    tiles = triton.cdiv(n, rows * SPANS * blocks)
    spans = triton.cdiv(n, rows * blocks * tiles)
    best = torch.empty(spans * (blocks * rows + 1), dtype=torch.int64, device=device)
    counter = ended(device, torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0)
    knn_single[(spans,)](
        query, collection, best, best[spans * blocks * rows :], counter, distances, ids, n, k, spans, blocks, tiles, d,
        METRIC=NUMBER[metric], K=MOST, WHOLE=width == d, BLOCK_N=rows, BLOCK_D=width,
        TAIL_D=_tail(d), SPANS=SPANS, GROUPS=GROUPS, num_warps=block["num_warps"], maxnreg=block["maxnreg"],
    )  # fmt: skip


def _twice(metric: str, query: torch.Tensor, collection: torch.Tensor, distances: torch.Tensor, ids: torch.Tensor, block: Block) -> None:
    (n, d), k = collection.shape, ids.shape[1]
    width = min(triton.next_power_of_2(d), WIDTH)
    size = max(8, min(GROUP, REREAD // width))
    rows = min(size, block["ELEMENTS"] // width)
    groups = triton.cdiv(n, size)
    best = torch.empty(groups, dtype=torch.int64, device=query.device)
    knn_stream[(groups,)](
        query, collection, best, n, size // rows, d, METRIC=NUMBER[metric], WHOLE=width == d, BLOCK_N=rows, BLOCK_D=width,
        num_warps=block["num_warps"],
    )  # fmt: skip
    knn_pick[(1,)](
        query, collection, best, distances, ids, n, k, groups, size, d, METRIC=NUMBER[metric], K=MOST, TAIL_D=_tail(d), BUCKETS=BUCKETS,
        num_warps=8,
    )  # fmt: skip


def _tail(d: int) -> int:
    """Columns at a time of the rows that are scored again."""
    return min(triton.next_power_of_2(d), TAIL // (MOST * TILES.value))
