"""Exact candidates of the rows of chosen groups."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.distance.triton_metric import stream_keys
from kernels.filter.groups import group_rows
from kernels.packing.triton_packing import NOTHING, pack


@triton.jit(do_not_specialize=["N", "capacity", "splits"])
def refine_kernel(X, Y, Chosen, Counts, Candidates, N, capacity, splits, D, METRIC: tl.constexpr, SIZE: tl.constexpr,
                  ACROSS: tl.constexpr, TOGETHER: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    """Candidates [Q, capacity, SIZE] of each query's chosen groups, NOTHING where there is no group; `splits` programs share a query."""
    query = (tl.program_id(0) // splits).to(tl.int64)
    count = tl.load(Counts + query)
    members = tl.arange(0, SIZE)
    for place in range(tl.program_id(0) % splits, capacity, splits):
        packed = tl.full([SIZE], NOTHING, tl.int64)
        if place < count:
            group = tl.load(Chosen + query * capacity + place)
            rows = group_rows(group, members, SIZE, ACROSS, TOGETHER)
            key = stream_keys(X, Y, query, rows, rows < N, D, METRIC, SIZE, BLOCK_D)
            packed = pack(key, rows, rows < N)
        tl.store(Candidates + (query * capacity + place) * SIZE + members, packed)
