"""The filter on tensor cores: the least half-precision key of each group of rows, for each query. See `kernels.filter`."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.filter import EXACTLY

ACROSS, TOGETHER = 4, 2
"""How the tensor cores' results lie in the threads of a warp: each thread has every fourth pair of columns."""
CHUNK = tl.constexpr(EXACTLY)


@triton.jit
def group_minima(key, BLOCK_Q: tl.constexpr, BLOCK_N: tl.constexpr, GROUP: tl.constexpr):
    """The least key [BLOCK_Q, BLOCK_N / GROUP] of each group of a tile, without a word between threads."""
    apart = tl.reshape(key, [BLOCK_Q, BLOCK_N // (4 * GROUP), GROUP // 2, 4, 2])
    return tl.reshape(tl.min(tl.min(apart, axis=4), axis=2), [BLOCK_Q, BLOCK_N // GROUP])


@triton.jit(do_not_specialize=["Q", "span"])
def minima_held(Queries, Rows, Offsets, Minima, Least, Q, groups, spans, span, width, GROUP: tl.constexpr, BLOCK_Q: tl.constexpr,
                BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    """BLOCK_Q queries, held whole, against `span` tiles of BLOCK_N rows; programs of the same rows are neighbours.

    Least [Q, spans] are the minima over the span of each of the tile's groups. Rows are padded to whole tiles.
    """
    EACH: tl.constexpr = BLOCK_N // GROUP
    blocks = tl.cdiv(Q, BLOCK_Q)
    queries = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    part = tl.program_id(0) // blocks
    columns, each = tl.arange(0, BLOCK_D), tl.arange(0, EACH)
    inside, some = (columns < width)[None, :], (queries < Q)[:, None]
    query = tl.load(Queries + queries[:, None] * width + columns[None, :], mask=some & inside, other=0.0)
    first = part * span
    row = Rows + (first.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N))[:, None] * width + columns[None, :]
    offset = Offsets + first * BLOCK_N + tl.arange(0, BLOCK_N)
    out = Minima + queries[:, None] * groups + (first * EACH + each)[None, :]
    least = tl.full([BLOCK_Q, EACH], float("inf"), tl.float32)
    for _ in range(0, span):
        half = tl.load(row, mask=inside, other=0.0)
        key = tl.load(offset)[None, :] - tl.dot(query, tl.trans(half))
        minima = group_minima(key, BLOCK_Q, BLOCK_N, GROUP)
        tl.store(out, minima, mask=some)
        least = tl.minimum(least, minima)
        row += BLOCK_N * width
        offset += BLOCK_N
        out += EACH
    tl.store(Least + queries[:, None] * spans + (part * EACH + each)[None, :], least, mask=some)


@triton.jit(do_not_specialize=["Q"])
def minima_looped(Queries, Rows, Offsets, Minima, Least, Q, groups, spans, width, GROUP: tl.constexpr, BLOCK_Q: tl.constexpr,
                  BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    """BLOCK_Q queries against one tile of BLOCK_N rows, BLOCK_D columns at a time; Least [Q, spans] is the tile's minimum."""
    EACH: tl.constexpr = BLOCK_N // GROUP
    blocks = tl.cdiv(Q, BLOCK_Q)
    queries = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    tile = tl.program_id(0) // blocks
    rows = tile.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    some = (queries < Q)[:, None]
    key = tl.zeros([BLOCK_Q, BLOCK_N], tl.float32) + tl.load(Offsets + rows)[None, :]
    for chunk in range(0, width, CHUNK):
        product = tl.zeros([BLOCK_Q, BLOCK_N], tl.float32)
        for start in range(chunk, tl.minimum(chunk + CHUNK, width), BLOCK_D):
            columns = start + tl.arange(0, BLOCK_D)
            inside = (columns < width)[None, :]
            query = tl.load(Queries + queries[:, None] * width + columns[None, :], mask=some & inside, other=0.0)
            half = tl.load(Rows + rows[:, None] * width + columns[None, :], mask=inside, other=0.0)
            product = tl.dot(query, tl.trans(half), product)
        key -= product
    minima = group_minima(key, BLOCK_Q, BLOCK_N, GROUP)
    places = tile * EACH + tl.arange(0, EACH)
    tl.store(Minima + queries[:, None] * groups + places[None, :], minima, mask=some)
    tl.store(Least + queries * spans + tile, tl.min(minima, axis=1), mask=queries < Q)
