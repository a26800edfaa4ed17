"""The answer: distances and ids of the k best candidates, or at once of the k nearest rows of chosen groups where k is small."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.distance.triton_metric import distance_of, stream_keys
from kernels.filter.groups import group_rows
from kernels.knn.space import PICKED
from kernels.packing.triton_packing import NOTHING, pack, pick, unpack

MOST = PICKED
"""Neighbours up to which picking one after the other is quick."""
AT_ONCE = 512
"""Rows that a program scores at a time where it picks among them."""
TAIL = 8192
"""Elements of rows that such a program has in registers."""


@triton.jit
def write(Distances, Ids, query, best, k, METRIC: tl.constexpr, K: tl.constexpr):
    """Candidates [K], the best first, as row `query` of the outputs [*, k]; infinitely far and -1 where there is none."""
    key, row = unpack(best)
    slot = tl.arange(0, K)
    tl.store(Distances + query * k + slot, distance_of(key, METRIC), mask=slot < k)
    tl.store(Ids + query * k + slot, row, mask=slot < k)


@triton.jit(do_not_specialize=["count"])
def answer_kernel(Packed, Distances, Ids, count, METRIC: tl.constexpr, BLOCK: tl.constexpr):
    """Distances and ids of `count` candidates."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    key, row = unpack(tl.load(Packed + at, mask=at < count, other=NOTHING))
    tl.store(Distances + at, distance_of(key, METRIC), mask=at < count)
    tl.store(Ids + at, row, mask=at < count)


@triton.jit(do_not_specialize=["N", "k", "capacity"])
def nearest_kernel(X, Y, Chosen, Counts, Distances, Ids, N, k, capacity, D, METRIC: tl.constexpr, K: tl.constexpr, GROUPS: tl.constexpr,
                   SIZE: tl.constexpr, ACROSS: tl.constexpr, TOGETHER: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    """The k <= K nearest rows to one query in its chosen groups, GROUPS of which are scored at a time."""
    query = tl.program_id(0).to(tl.int64)
    count = tl.load(Counts + query)
    best = tl.full([K], NOTHING, tl.int64)
    for first in range(0, count, GROUPS):
        place = first + tl.arange(0, GROUPS)
        group = tl.load(Chosen + query * capacity + place, mask=place < count, other=0)
        rows = group_rows(group[:, None], tl.arange(0, SIZE)[None, :], SIZE, ACROSS, TOGETHER)
        valid = tl.reshape((place < count)[:, None] & (rows < N), [GROUPS * SIZE])
        rows = tl.reshape(rows, [GROUPS * SIZE])
        key = stream_keys(X, Y, query, rows, valid, D, METRIC, GROUPS * SIZE, BLOCK_D)
        found = pick(pack(key, rows, valid), k, K)
        if first > 0:
            found = pick(tl.reshape(tl.join(best, found), [2 * K]), k, K)
        best = found
    write(Distances, Ids, query, best, k, METRIC, K)
