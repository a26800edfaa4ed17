"""The filter on float32 cores, a column at a time: for l1, and where there are too few columns for tensor cores.

Operands lie by columns, so that a column of a tile is read in one piece; the least of a group is found across tiles, elementwise. How a
tile lies in the threads' registers: see `kernels.distance.triton_columns`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.distance.triton_columns import flat, spread
from kernels.distance.triton_metric import L1

UNROLLED = tl.constexpr(4)
"""Columns a step; prepared columns are a multiple of it."""


@triton.jit
def with_column(key, query, row, METRIC: tl.constexpr):
    """Keys with the term of one more column."""
    if METRIC == L1:
        return key + tl.abs(tl.load(query) - tl.load(row))
    return key - tl.load(query) * tl.load(row)


@triton.jit(do_not_specialize=["Q"])
def minima_columns(Queries, Rows, Offsets, Minima, Least, Q, groups, spans, query_stride, row_stride, D, METRIC: tl.constexpr,
                   NARROW: tl.constexpr, GROUP: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_N: tl.constexpr, EACH_Q: tl.constexpr,
                   EACH_N: tl.constexpr):  # fmt: skip
    """BLOCK_Q queries against BLOCK_N groups, whose rows lie BLOCK_N apart; NARROW is D where that is small, else 0.

    Least [Q, spans] is the minimum over the BLOCK_N groups. Queries and rows are padded to whole tiles.
    """
    blocks = tl.cdiv(Q, BLOCK_Q)
    first_query = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK_Q
    block = tl.program_id(0) // blocks
    queries = Queries + first_query + spread(EACH_Q, BLOCK_Q // (4 * EACH_Q))[:, :, None, None, :, None]
    within = spread(EACH_N, BLOCK_N // (4 * EACH_N))[None, None, :, :, None, :]
    least = tl.full([EACH_Q, 4, EACH_N, 4, BLOCK_Q // (4 * EACH_Q), BLOCK_N // (4 * EACH_N)], float("inf"), tl.float32)
    for member in range(0, GROUP):
        first = (block.to(tl.int64) * GROUP + member) * BLOCK_N
        key = tl.zeros_like(least) + tl.load(Offsets + first + within)
        query, row = queries, Rows + first + within
        if NARROW > 0:
            for _ in tl.static_range(0, NARROW):
                key = with_column(key, query, row, METRIC)
                query += query_stride
                row += row_stride
        else:
            for _start in range(0, D, UNROLLED):
                for _ in tl.static_range(0, UNROLLED):
                    key = with_column(key, query, row, METRIC)
                    query += query_stride
                    row += row_stride
        least = tl.minimum(least, key)
    minima = flat(least, BLOCK_Q, BLOCK_N)
    numbers = first_query + tl.arange(0, BLOCK_Q)
    places = block * BLOCK_N + tl.arange(0, BLOCK_N)
    tl.store(Minima + numbers[:, None] * groups + places[None, :], minima, mask=(numbers < Q)[:, None] & (places < groups)[None, :])
    tl.store(Least + numbers * spans + block, tl.min(minima, axis=1), mask=numbers < Q)
