"""The filter on rows as they are, in TF32: for few queries, which a half-precision copy of the collection would cost more.

TF32 drops the last 13 bits of a float32 on its way into the tensor cores; what that is of a row is measured as its e(x), or bounded. Rows
are read once, their bounds come out beside the minima, and there is no centre: far from the origin little is left out.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.distance.triton_metric import COSINE
from kernels.filter.prepare import bounds_of, coarse
from kernels.filter.tensor_cores import CHUNK, group_minima

DROPPED = tl.constexpr(2.0**-20)
"""The square of the largest relative error of TF32."""


@triton.jit
def keys_and_bounds(product, squares, errors, valid, D, METRIC: tl.constexpr):
    """Keys of products [BLOCK_Q, BLOCK_N], and the largest n and e of the rows."""
    if METRIC == COSINE:
        inverse = tl.where(squares > 0, 1.0 / tl.sqrt_rn(tl.where(squares > 0, squares, 1.0)), 0.0)
        product *= inverse[None, :]
        squares *= inverse * inverse
        errors *= inverse * inverse
    offset, norm, error = bounds_of(squares, errors, D, METRIC)
    key = tl.where(valid, offset, float("inf"))[None, :] - product
    return key, tl.max(tl.where(valid, norm, 0.0), axis=0), tl.max(tl.where(valid, error, 0.0), axis=0)


@triton.jit(do_not_specialize=["Q", "N", "span"])
def minima_raw_held(Queries, Rows, Minima, Least, Norms, Errors, Q, N, groups, spans, span, D, width, METRIC: tl.constexpr,
                    GROUP: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    """BLOCK_Q queries, held whole, against `span` tiles of BLOCK_N rows; Least and bounds are of a span."""
    EACH: tl.constexpr = BLOCK_N // GROUP
    blocks = tl.cdiv(Q, BLOCK_Q)
    queries = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    part = tl.program_id(0) // blocks
    columns, each = tl.arange(0, BLOCK_D), tl.arange(0, EACH)
    some = (queries < Q)[:, None]
    query = tl.load(Queries + queries[:, None] * width + columns[None, :], mask=some & (columns < width)[None, :], other=0.0)
    least = tl.full([BLOCK_Q, EACH], float("inf"), tl.float32)
    largest, worst = 0.0, 0.0
    for tile in range(part * span, part * span + span):
        rows = tl.arange(0, BLOCK_N).to(tl.int64) + tile * BLOCK_N
        row = tl.load(Rows + rows[:, None] * D + columns[None, :], mask=(rows < N)[:, None] & (columns < D)[None, :], other=0.0)
        product = tl.dot(query, tl.trans(row), input_precision="tf32")
        squares = tl.sum(row * row, axis=1)
        errors = squares * DROPPED  # the most it can be: measuring it would take longer than the rows do to arrive
        key, norm, error = keys_and_bounds(product, squares, errors, rows < N, D, METRIC)
        largest, worst = tl.maximum(largest, norm), tl.maximum(worst, error)
        minima = group_minima(key, BLOCK_Q, BLOCK_N, GROUP)
        tl.store(Minima + queries[:, None] * groups + (tile * EACH + each)[None, :], minima, mask=some)
        least = tl.minimum(least, minima)
    tl.store(Least + queries[:, None] * spans + (part * EACH + each)[None, :], least, mask=some)
    tl.store(Norms + part, largest)
    tl.store(Errors + part, worst)


@triton.jit(do_not_specialize=["Q", "N"])
def minima_raw_looped(Queries, Rows, Minima, Least, Norms, Errors, Q, N, groups, spans, D, width, METRIC: tl.constexpr,
                      GROUP: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    """BLOCK_Q queries against one tile of BLOCK_N rows, BLOCK_D columns at a time; Least and bounds are of the tile."""
    EACH: tl.constexpr = BLOCK_N // GROUP
    blocks = tl.cdiv(Q, BLOCK_Q)
    queries = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    tile = tl.program_id(0) // blocks
    rows = tile.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    some, valid = (queries < Q)[:, None], rows < N
    squares = tl.zeros([BLOCK_N], tl.float32)
    errors = tl.zeros([BLOCK_N], tl.float32)
    total = tl.zeros([BLOCK_Q, BLOCK_N], tl.float32)
    for chunk in range(0, D, CHUNK):
        product = tl.zeros([BLOCK_Q, BLOCK_N], tl.float32)
        for start in range(chunk, tl.minimum(chunk + CHUNK, D), BLOCK_D):
            columns = start + tl.arange(0, BLOCK_D)
            inside = (columns < D)[None, :]
            query = tl.load(Queries + queries[:, None] * width + columns[None, :], mask=some & inside, other=0.0)
            row = tl.load(Rows + rows[:, None] * D + columns[None, :], mask=valid[:, None] & inside, other=0.0)
            product = tl.dot(query, tl.trans(row), product, input_precision="tf32")
            error = row - coarse(row)
            squares += tl.sum(row * row, axis=1)
            errors += tl.sum(error * error, axis=1)
        total += product
    key, norm, error = keys_and_bounds(total, squares, errors, valid, D, METRIC)
    minima = group_minima(key, BLOCK_Q, BLOCK_N, GROUP)
    tl.store(Minima + queries[:, None] * groups + (tile * EACH + tl.arange(0, EACH))[None, :], minima, mask=some)
    tl.store(Least + queries * spans + tile, tl.min(minima, axis=1), mask=queries < Q)
    tl.store(Norms + tile, norm)
    tl.store(Errors + tile, error)
