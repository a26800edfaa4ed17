"""The groups of the k nearest rows by exact keys alone, for the queries that the filter could not decide.

Each kernel takes its queries from a list on the device and ends at once where that is empty: no host synchronisation, and next to no
cost where the filter decides all, as it does for any data without masses of rows at one distance.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.distance.triton_metric import tile_keys
from kernels.filter.groups import group_rows
from kernels.packing.triton_packing import NOTHING, pack

PROGRAMS = 1024
"""Programs that share the list; each goes on until it is done."""
HALVINGS = tl.constexpr(64)


@triton.jit(do_not_specialize=["start", "room", "N", "groups"])
def exact_minima(X, Y, XNorms, YNorms, Best, Left, LeftCount, start, room, N, groups, D, METRIC: tl.constexpr, SIZE: tl.constexpr,
                 ACROSS: tl.constexpr, TOGETHER: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    """Best [room, groups]: the best candidate of each group, for the queries from place `start` of the list, `room` at most."""
    left = tl.minimum(tl.load(LeftCount) - start, room)
    for item in range(tl.program_id(0), tl.cdiv(left, BLOCK_Q) * groups, tl.num_programs(0)):
        places = item // groups * BLOCK_Q + tl.arange(0, BLOCK_Q)
        some = places < left
        queries = tl.load(Left + start + places, mask=some, other=0).to(tl.int64)
        rows = group_rows(item % groups, tl.arange(0, SIZE), SIZE, ACROSS, TOGETHER)
        valid = rows < N
        key = tile_keys(X, Y, XNorms, YNorms, queries, rows, some, valid, D, METRIC, BLOCK_Q, SIZE, BLOCK_D)
        best = tl.min(pack(key, rows[None, :], valid[None, :]), axis=1)
        tl.store(Best + places.to(tl.int64) * groups + item % groups, best, mask=some)


@triton.jit(do_not_specialize=["start", "groups", "k", "capacity"])
def exact_select(Best, Left, LeftCount, Chosen, Counts, start, groups, k, capacity, BLOCK: tl.constexpr):
    """The k best groups of the query at place `start` + program of the list: candidates differ, so that their number is k exactly."""
    place = tl.program_id(0)
    if start + place < tl.load(LeftCount):
        row = Best + place.to(tl.int64) * groups
        query = tl.load(Left + start + place).to(tl.int64)
        low, high = tl.full([], -(2**63), tl.int64), NOTHING - 1 + tl.zeros([], tl.int64)
        for _ in range(HALVINGS):
            middle = (low >> 1) + (high >> 1) + (low & high & 1)
            count = 0
            for at in range(0, groups, BLOCK):
                group = at + tl.arange(0, BLOCK)
                count += tl.sum((tl.load(row + group, mask=group < groups, other=NOTHING) <= middle).to(tl.int32), axis=0)
            high = tl.where(count >= k, middle, high)
            low = tl.where((count >= k) | (low == high), low, middle + 1)
        tl.store(Counts + query, 0)
        tl.debug_barrier()
        for at in range(0, groups, BLOCK):
            group = at + tl.arange(0, BLOCK)
            near = (group < groups) & (tl.load(row + group, mask=group < groups, other=NOTHING) <= high)
            slot = tl.atomic_add(Counts + query + tl.zeros_like(group), 1, mask=near)
            tl.store(Chosen + query * capacity + slot, group, mask=near)
