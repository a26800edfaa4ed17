"""Triton: lower bounds of all probed rows on tensor cores, and exact keys of the few that they leave in question.

1. Lower bounds of the keys of all centroids (see `kernels.ivf.triton_bounds`), by groups, for each query.
2. A program a query looks at the groups in the order of their bounds, computes the exact keys of their centroids in float32, keeps the
   nprobe best, and ends once no bound is below the worst of those (Seidl, Kriegel: Optimal multi-step k-nearest neighbor search,
   SIGMOD 1998). It enters the query into the lists that it probes.
3. Each list is cut into tiles of the queries that probe it, and 4. its rows are read once a tile, for lower bounds as in 1.
5. As 2, for the rows of the lists that a query probes.

Few queries take another way (`kernels.ivf.triton_few`). Queries are taken in chunks that keep the scratch within SCRATCH bytes.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from kernels.contract import Arrays, Block
from kernels.distance.triton_impl import stream_width
from kernels.distance.triton_metric import stream_keys
from kernels.ivf import triton_few
from kernels.ivf.problem import SCRATCH, Ivf
from kernels.ivf.space import TRITON as SPACE
from kernels.ivf.triton_best import ascending, empty, insert
from kernels.ivf.triton_bounds import SLOTS, row_of_group, write_bounds
from kernels.ivf.triton_keys import LAST, UNROLL, promises, tickets
from kernels.knn.answer import write
from kernels.metrics import NUMBER
from kernels.packing.triton_packing import pack

ARRAYS = "torch"
DEVICES = ("cuda",)
LARGEST = 4096
"""Neighbours and probes that a program holds at most; more are left to torch."""
WIDEST = 128
"""Columns up to which queries and rows are taken whole."""
PROGRAMS = 2048
"""Programs that share the tiles, where there are as many."""
ROOM = 3
"""How often the average length of a list its places go, before groups become larger."""
HELD = 128
"""Candidates that a warp holds."""
CHUNK = 512
"""Bounds that a program has before it at a time."""

__all__ = ["ARRAYS", "DEVICES", "SPACE", "run"]


@triton.jit(do_not_specialize=["lists", "Q", "splits", "blocks"])
def ivf_list_bounds(X, Centroids, Low, lists, Q, splits, blocks, D, METRIC: tl.constexpr, WHOLE: tl.constexpr, GROUP: tl.constexpr,
                    BLOCK_Q: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    """BLOCK_Q queries against every splits-th block of centroids, as if these were one list around the first of them."""
    queries = (tl.program_id(0) // splits).to(tl.int64) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    start, first = tl.zeros([], tl.int64), tl.program_id(0) % splits
    write_bounds(X, Centroids, Centroids, Low, queries, queries < Q, queries, start, lists, first, splits, blocks, D, METRIC, WHOLE, GROUP,
                 BLOCK_Q, BLOCK_D)  # fmt: skip


@triton.jit(do_not_specialize=["lists", "Q", "nprobe", "splits", "blocks"])
def ivf_row_bounds(X, Y, Centroids, Offsets, Counts, Starts, Pairs, Low, lists, Q, nprobe, splits, blocks, D, METRIC: tl.constexpr,
                   WHOLE: tl.constexpr, GROUP: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    """One tile of the queries that probe a list against every splits-th block of its rows."""
    tile = tl.program_id(0) // splits
    if tile < tl.load(Starts + lists):
        number, beyond = tile * 0, lists
        while beyond - number > 1:  # the last list that starts at this tile or before
            middle = (number + beyond) // 2
            before = tl.load(Starts + middle) <= tile
            number = tl.where(before, middle, number)
            beyond = tl.where(before, beyond, middle)
        rank = (tile - tl.load(Starts + number)) * BLOCK_Q + tl.arange(0, BLOCK_Q)
        some = rank < tl.load(Counts + number)
        pairs = tl.load(Pairs + number.to(tl.int64) * Q + rank, mask=some, other=0).to(tl.int64)
        start = tl.load(Offsets + number)
        length = (tl.load(Offsets + number + 1) - start).to(tl.int32)
        write_bounds(X, Y, Centroids + number.to(tl.int64) * D, Low, pairs // nprobe, some, pairs, start, length, tl.program_id(0) % splits,
                     splits, blocks, D, METRIC, WHOLE, GROUP, BLOCK_Q, BLOCK_D)  # fmt: skip


@triton.jit
def group_candidates(X, Y, RowIds, Offsets, Probes, query, group, lap, lists, blocks, D, METRIC: tl.constexpr, LISTS: tl.constexpr,
                     GROUP: tl.constexpr, GROUPS: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    """Candidates of the rows of GROUPS groups of a query, -1 for none, in one lap; and the laps that their lists have."""
    member = tl.arange(0, GROUP)
    some = group >= 0
    group = tl.maximum(group, 0)
    place, probe = group % (blocks * SLOTS), group // (blocks * SLOTS)
    start, length = tl.zeros([GROUPS], tl.int64), tl.where(some, lists, 0)
    if not LISTS:
        number = tl.load(Probes + probe, mask=some, other=0)
        start = tl.load(Offsets + number, mask=some, other=0)
        length = (tl.load(Offsets + number + 1, mask=some, other=0) - start).to(tl.int32)
    at = ((place // SLOTS + lap * blocks) * (GROUP * SLOTS))[:, None] + row_of_group((place % SLOTS)[:, None], member[None, :])
    valid = tl.reshape(at < length[:, None], [GROUPS * GROUP])
    rows = tl.reshape(start[:, None] + at, [GROUPS * GROUP])
    key = stream_keys(X, Y, query, rows, valid, D, METRIC, GROUPS * GROUP, BLOCK_D, UNROLL)
    ids = rows if LISTS else tl.load(RowIds + rows, mask=valid, other=0)
    return pack(key, ids, valid), tl.cdiv(tl.max(length, axis=0), blocks * GROUP * SLOTS)


@triton.jit
def nearest(X, Y, RowIds, Offsets, Probes, Low, query, k, width, lists, blocks, D, METRIC: tl.constexpr, LISTS: tl.constexpr,
            K: tl.constexpr, GROUP: tl.constexpr, GROUPS: tl.constexpr, CHUNK: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    """The k nearest (see `triton_best`) of the rows whose groups have the `width` bounds Low; LISTS: of the centroids Y."""
    held = empty(k, K)
    worst = tl.max(held, axis=0)
    for first in range(0, width, CHUNK):
        group = first + tl.arange(0, CHUNK)
        waiting = tickets(tl.load(Low + group, mask=group < width, other=float("inf")), CHUNK)
        best = tl.min(waiting, axis=0)
        while promises(best, worst, CHUNK):
            chosen = tl.full([GROUPS], -1, tl.int32)
            for turn in tl.static_range(GROUPS):
                chosen = tl.where((tl.arange(0, GROUPS) == turn) & (best != LAST), first + (best & (CHUNK - 1)), chosen)
                waiting = tl.where(waiting == best, LAST, waiting)
                best = tl.min(waiting, axis=0)
            lap, laps = 0, 1
            while lap < laps:
                candidates, laps = group_candidates(X, Y, RowIds, Offsets, Probes, query, chosen, lap, lists, blocks, D, METRIC, LISTS,
                                                    GROUP, GROUPS, BLOCK_D)  # fmt: skip
                held, worst = insert(held, worst, candidates)
                lap += 1
    return held


@triton.jit(do_not_specialize=["lists", "Q", "nprobe", "blocks"])
def ivf_lists(X, Centroids, Low, Probes, Counts, Pairs, lists, Q, nprobe, blocks, D, METRIC: tl.constexpr, P: tl.constexpr,
              GROUP: tl.constexpr, GROUPS: tl.constexpr, CHUNK: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    """The lists that a query probes, the nearest first; and the query into the Pairs [lists, Q] of each, in any order."""
    query = tl.program_id(0).to(tl.int64)
    width = blocks * SLOTS
    held = nearest(X, Centroids, Centroids, Centroids, Centroids, Low + query * width, query, nprobe, width, lists, blocks, D, METRIC, True,
                   P, GROUP, GROUPS, CHUNK, BLOCK_D)  # fmt: skip
    place = tl.arange(0, P)
    number = ascending(held, nprobe, P) & 0xFFFFFFFF
    tl.store(Probes + query * nprobe + place, number.to(tl.int32), mask=place < nprobe)
    rank = tl.atomic_add(Counts + number, 1, mask=place < nprobe, sem="relaxed")
    tl.store(Pairs + number * Q + rank, (query * nprobe + place).to(tl.int32), mask=place < nprobe)


@triton.jit(do_not_specialize=["lists"])
def ivf_starts(Counts, Starts, lists, BLOCK_Q: tl.constexpr, CHUNK: tl.constexpr):
    """The first tile [lists + 1] of each list's queries; one program."""
    total = 0
    tl.store(Starts, 0)
    for first in range(0, lists, CHUNK):
        at = first + tl.arange(0, CHUNK)
        tiles = tl.cdiv(tl.load(Counts + at, mask=at < lists, other=0), BLOCK_Q)
        tl.store(Starts + 1 + at, total + tl.cumsum(tiles, axis=0), mask=at < lists)
        total += tl.sum(tiles, axis=0)


@triton.jit(do_not_specialize=["k", "nprobe", "blocks"])
def ivf_rows(X, Y, RowIds, Offsets, Probes, Low, Distances, Ids, k, nprobe, blocks, D, METRIC: tl.constexpr, K: tl.constexpr,
             GROUP: tl.constexpr, GROUPS: tl.constexpr, CHUNK: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    """The k nearest rows of a query."""
    query = tl.program_id(0).to(tl.int64)
    width = nprobe * blocks * SLOTS
    held = nearest(X, Y, RowIds, Offsets, Probes + query * nprobe, Low + query * width, query, k, width, 0, blocks, D, METRIC, False, K,
                   GROUP, GROUPS, CHUNK, BLOCK_D)  # fmt: skip
    write(Distances, Ids, query, ascending(held, k, K), k, METRIC, K)


def run(problem: Ivf, inputs: Arrays, block: Block) -> Arrays:
    """Distances and ids [q, k]."""
    if max(problem.k, problem.nprobe) > LARGEST:
        from kernels.ivf import torch_impl

        return torch_impl.run(problem, inputs, dict(torch_impl.SPACE.default))
    queries = inputs["queries"]
    distances = torch.empty((problem.q, problem.k), device=queries.device)
    ids = torch.empty((problem.q, problem.k), dtype=torch.int64, device=queries.device)
    if triton_few.suits(problem):
        if problem.q:
            triton_few.search(problem, inputs, distances, ids)
        return {"distances": distances, "ids": ids}
    plan = _Plan(problem, block)
    for first in range(0, problem.q, plan.step):
        part = slice(first, min(first + plan.step, problem.q))
        _search(plan, inputs | {"queries": queries[part]}, distances[part], ids[part])
    return {"distances": distances, "ids": ids}


class _Plan:
    """Sizes of a search: blocks that a list has room for, queries of a chunk, and the kernels' constants."""

    def __init__(self, problem: Ivf, block: Block) -> None:
        self.problem, self.block = problem, block
        self.metric, self.whole = NUMBER[problem.metric], problem.d <= WIDEST
        rows = SLOTS.value * block["GROUP"]
        self.list_blocks = triton.next_power_of_2(triton.cdiv(problem.lists, rows))
        self.row_blocks = triton.next_power_of_2(max(1, triton.cdiv(ROOM * problem.n, problem.lists * rows)))
        places = self.list_blocks + problem.nprobe * self.row_blocks
        self.step = max(1, SCRATCH // (4 * (places * SLOTS.value + problem.lists + problem.nprobe)))

    def splits(self, programs: int, blocks: int) -> int:
        """Programs that share the blocks of a list, a power of two: SPLIT, and more where there are few programs otherwise."""
        return min(blocks, max(self.block["SPLIT"], triton.next_power_of_2(PROGRAMS // programs)))

    def bounds(self) -> dict[str, Any]:
        """Constants of the kernels that compute bounds."""
        width = max(16, triton.next_power_of_2(self.problem.d)) if self.whole else 32
        sizes = {axis: self.block[axis] for axis in ("GROUP", "BLOCK_Q", "num_stages")}
        return {"METRIC": self.metric, "WHOLE": self.whole, "BLOCK_D": width, "num_warps": 4, **sizes}

    def select(self, k: int, width: int) -> dict[str, Any]:
        """Constants of the kernels that find the k nearest by `width` bounds."""
        groups = min(16 // self.block["GROUP"], max(2, triton.next_power_of_2(k)))
        sizes = {"GROUP": self.block["GROUP"], "GROUPS": groups, "CHUNK": min(CHUNK, triton.next_power_of_2(width))}
        warps = max(self.block["SELECT_WARPS"], min(8, triton.next_power_of_2(k) // HELD))
        return {"METRIC": self.metric, **sizes, "BLOCK_D": stream_width(self.problem.d, 32), "num_warps": warps}


def _search(plan: _Plan, inputs: Arrays, distances: torch.Tensor, ids: torch.Tensor) -> None:
    """Write distances and ids of a chunk of queries."""
    queries, centroids, rows, row_ids, offsets = (inputs[name] for name in ("queries", "centroids", "rows", "ids", "offsets"))
    (q, d), lists, device, nprobe, k = queries.shape, len(centroids), queries.device, plan.problem.nprobe, plan.problem.k
    list_width, row_width = plan.list_blocks * SLOTS.value, plan.row_blocks * SLOTS.value
    list_low, row_low = torch.empty((q, list_width), device=device), torch.empty((q * nprobe, row_width), device=device)
    probes = torch.empty((q, nprobe), dtype=torch.int32, device=device)
    pairs = torch.empty((lists, q), dtype=torch.int32, device=device)
    starts = torch.empty(lists + 1, dtype=torch.int32, device=device)
    counts = torch.zeros(lists, dtype=torch.int32, device=device)

    tiles = triton.cdiv(q, plan.block["BLOCK_Q"])
    splits = plan.splits(tiles, plan.list_blocks)
    ivf_list_bounds[(tiles * splits,)](queries, centroids, list_low, lists, q, splits, plan.list_blocks, d, **plan.bounds())
    ivf_lists[(q,)](
        queries, centroids, list_low, probes, counts, pairs, lists, q, nprobe, plan.list_blocks, d,
        P=triton.next_power_of_2(nprobe), **plan.select(nprobe, list_width),
    )  # fmt: skip
    ivf_starts[(1,)](counts, starts, lists, BLOCK_Q=plan.block["BLOCK_Q"], CHUNK=CHUNK)
    tiles = q * nprobe // plan.block["BLOCK_Q"] + min(lists, q * nprobe)
    splits = plan.splits(tiles, plan.row_blocks)
    ivf_row_bounds[(tiles * splits,)](
        queries, rows, centroids, offsets, counts, starts, pairs, row_low, lists, q, nprobe, splits, plan.row_blocks, d, **plan.bounds()
    )
    ivf_rows[(q,)](
        queries, rows, row_ids, offsets, probes, row_low, distances, ids, k, nprobe, plan.row_blocks, d,
        K=triton.next_power_of_2(k), **plan.select(k, nprobe * row_width),
    )  # fmt: skip
