"""The filter on float32 cores, a column at a time: for l1, and where there are too few columns for tensor cores.

Operands lie by columns, so that a column of a tile is read in one piece; the least of a group is found across tiles, elementwise.
See `kernels.filter`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.distance.triton_metric import L1


@triton.jit
def with_column(key, Queries, Rows, column, queries, rows, query_stride, row_stride, METRIC: tl.constexpr):
    """Keys with the term of one more column."""
    query = tl.load(Queries + queries + column * query_stride.to(tl.int64))
    row = tl.load(Rows + rows + column * row_stride.to(tl.int64))
    if METRIC == L1:
        return key + tl.abs(query[:, None] - row[None, :])
    return key - query[:, None] * row[None, :]


@triton.jit(do_not_specialize=["Q"])
def minima_columns(Queries, Rows, Offsets, Minima, Least, Q, groups, spans, query_stride, row_stride, D, METRIC: tl.constexpr,
                   UNROLLED: tl.constexpr, GROUP: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_N: tl.constexpr):  # fmt: skip
    """BLOCK_Q queries against BLOCK_N groups, whose rows lie BLOCK_N apart; UNROLLED is D where that is small, else 0.

    Least [Q, spans] is the minimum over the BLOCK_N groups. Queries and rows are padded to whole tiles.
    """
    blocks = tl.cdiv(Q, BLOCK_Q)
    queries = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    block = tl.program_id(0) // blocks
    least = tl.full([BLOCK_Q, BLOCK_N], float("inf"), tl.float32)
    for member in range(0, GROUP):
        rows = (block.to(tl.int64) * GROUP + member) * BLOCK_N + tl.arange(0, BLOCK_N)
        key = tl.zeros([BLOCK_Q, BLOCK_N], tl.float32) + tl.load(Offsets + rows)[None, :]
        if UNROLLED > 0:
            for column in tl.static_range(0, UNROLLED):
                key = with_column(key, Queries, Rows, column, queries, rows, query_stride, row_stride, METRIC)
        else:
            for column in range(0, D):
                key = with_column(key, Queries, Rows, column, queries, rows, query_stride, row_stride, METRIC)
        least = tl.minimum(least, key)
    places = block * BLOCK_N + tl.arange(0, BLOCK_N)
    tl.store(Minima + queries[:, None] * groups + places[None, :], least, mask=(queries < Q)[:, None])
    tl.store(Least + queries * spans + block, tl.min(least, axis=1), mask=queries < Q)
