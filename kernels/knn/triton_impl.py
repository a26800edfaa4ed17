"""Triton: filter and refine. What the filter is, and why nothing is lost by it, stands in `kernels.filter`.

1. The collection is prepared (centred, scaled, rounded to half precision), and a kernel writes the least key of each group of rows for
   each query: on tensor cores, or in float32 for l1 and where D is small.
2. For each query, the groups that may hold one of its k nearest rows are chosen by certified bounds. A query with too many of them
   is left to exact arithmetic (`kernels.knn.exact_groups`), which decides among the groups by candidates that cannot tie.
3. The rows of the chosen groups are scored in float32 by direct differences, and the k best candidates are the answer.

Candidates are packed integers (see `kernels.packing`), so that ties come by the smaller id. Queries are taken in chunks that keep the
scratch within SCRATCH bytes beside the prepared collection, which takes half the bytes of a float32 one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton

from kernels.contract import Arrays, Block
from kernels.distance.triton_impl import norms, stream_width
from kernels.filter.filtering import Filter
from kernels.filter.select import select_kernel
from kernels.knn import SCRATCH, Knn, triton_single
from kernels.knn.answer import AT_ONCE, MOST, TAIL, answer_kernel, nearest_kernel
from kernels.knn.exact_groups import PROGRAMS, exact_minima, exact_select
from kernels.knn.refine import refine_kernel
from kernels.knn.space import TRITON as SPACE
from kernels.metrics import NUMBER
from kernels.packing import key_of
from kernels.topk import MOST as LONGEST
from kernels.topk.triton_select import smallest

ARRAYS = "torch"
DEVICES = ("cuda",)
SHORT = 512
"""Columns up to which one program scores all rows of a query's groups."""
REFINERS = 4096
"""Programs that refine; few queries have several each."""

__all__ = ["ARRAYS", "DEVICES", "SPACE", "run"]


def run(problem: Knn, inputs: Arrays, block: Block) -> Arrays:
    """Distances and ids [q, k]."""
    queries, collection = inputs["queries"], inputs["collection"]
    q, n = len(queries), len(collection)
    if q == 1 and n and problem.k <= MOST:
        return triton_single.nearest(problem.metric, queries, collection, problem.k, block)
    distances = torch.empty((q, problem.k), device=queries.device)
    ids = torch.empty((q, problem.k), dtype=torch.int64, device=queries.device)
    if not n or not q:
        return {"distances": key_of(problem.metric, distances.fill_(float("inf"))), "ids": ids.fill_(-1)}
    by = Filter(problem.metric, collection, q, block)
    capacity = min(triton.cdiv(2 * problem.k + 32, 16) * 16, max(by.groups, problem.k))
    step = max(1, SCRATCH // (4 * by.groups + 16 * capacity * by.grouping.size))
    answer = answer_few if problem.k <= MOST and by.rows.shape[1] <= SHORT else answer_many
    for first in range(0, q, step):
        part = slice(first, min(first + step, q))
        chosen = choose(by, queries[part], collection, problem.k, capacity)
        answer(by, queries[part], collection, chosen, distances[part], ids[part])
    return {"distances": distances, "ids": ids}


def answer_few(
    by: Filter, queries: torch.Tensor, collection: torch.Tensor, chosen: Chosen, distances: torch.Tensor, ids: torch.Tensor
) -> None:
    """Write distances and ids [q, k], k at most MOST, of short rows: a program a query."""
    (q, k), (n, d), size = ids.shape, collection.shape, by.grouping.size
    at_once = max(1, AT_ONCE // size)
    nearest_kernel[(q,)](
        queries, collection, chosen.groups, chosen.counts, distances, ids, n, k, chosen.groups.shape[1], d, METRIC=NUMBER[by.metric],
        K=MOST, GROUPS=at_once, **by.grouping.constants, BLOCK_D=stream_width(d, TAIL // (at_once * size)), num_warps=8,
    )  # fmt: skip


def answer_many(
    by: Filter, queries: torch.Tensor, collection: torch.Tensor, chosen: Chosen, distances: torch.Tensor, ids: torch.Tensor
) -> None:
    """Write distances and ids [q, k]: all candidates, then the best of them."""
    (q, k), (n, d), capacity = ids.shape, collection.shape, chosen.groups.shape[1]
    candidates = torch.empty((q, capacity * by.grouping.size), dtype=torch.int64, device=queries.device)
    splits = max(1, min(capacity // 4, REFINERS // q))
    refine_kernel[(q * splits,)](
        queries, collection, chosen.groups, chosen.counts, candidates, n, capacity, splits, d,
        METRIC=NUMBER[by.metric], **by.grouping.constants, BLOCK_D=stream_width(d, 128),
    )  # fmt: skip
    best = smallest(candidates, k) if k <= LONGEST else candidates.topk(k, dim=1, largest=False).values
    answer_kernel[(triton.cdiv(best.numel(), 1024),)](best, distances, ids, best.numel(), METRIC=NUMBER[by.metric], BLOCK=1024)


@dataclass(frozen=True)
class Chosen:
    """Groups [q, capacity] of each query, the first `counts` [q] of them meant; `left` of `left_count` queries are yet to be decided."""

    groups: torch.Tensor
    counts: torch.Tensor
    left: torch.Tensor
    left_count: torch.Tensor


def choose(by: Filter, queries: torch.Tensor, collection: torch.Tensor, k: int, capacity: int) -> Chosen:
    """The groups in which each query's k nearest rows are."""
    q, d, device = len(queries), collection.shape[1], queries.device
    bounds = by.bounds(queries)
    if bounds.least.shape[1] < 4 * k:
        bounds = bounds.fine()
    counts, span_counts, left = torch.empty((3, q), dtype=torch.int32, device=device)
    groups, spans = torch.empty((2, q, capacity), dtype=torch.int32, device=device)
    chosen = Chosen(groups, counts, left, torch.zeros(1, dtype=torch.int32, device=device))
    select_kernel[(q,)](
        bounds.minima, bounds.least, bounds.query_norms, bounds.query_errors, bounds.norms, bounds.errors, spans, span_counts,
        groups, counts, left, chosen.left_count, by.groups, bounds.least.shape[1], k, capacity, d,
        METRIC=NUMBER[by.metric], BUCKETS=max(1024, triton.next_power_of_2(4 * k)), SHARING=bounds.sharing,
        ABREAST=bounds.abreast, LENGTH=bounds.length,
    )  # fmt: skip
    if capacity < by.groups:  # otherwise no query can have more groups than fit
        choose_exactly(by, queries, collection, k, capacity, chosen)
    return chosen


def choose_exactly(by: Filter, queries: torch.Tensor, collection: torch.Tensor, k: int, capacity: int, chosen: Chosen) -> None:
    """Choose for the queries that are left."""
    (n, d), groups, left = collection.shape, by.groups, (chosen.left, chosen.left_count)
    room = max(1, min(len(queries), SCRATCH // (8 * groups)))
    best = torch.empty((room, groups), dtype=torch.int64, device=queries.device)
    row_norms = norms(by.metric, queries), norms(by.metric, collection)
    for start in range(0, len(queries), room):
        exact_minima[(PROGRAMS,)](
            queries, collection, *row_norms, best, *left, start, room, n, groups, d,
            METRIC=NUMBER[by.metric], **by.grouping.constants, BLOCK_Q=32, BLOCK_D=32,
        )  # fmt: skip
        exact_select[(room,)](best, *left, chosen.groups, chosen.counts, start, groups, k, capacity, BLOCK=1024)
