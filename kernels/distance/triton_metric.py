"""Device functions in Triton that distance and knn share: ranking keys, where the smallest is the nearest.

A key is the squared distance for l2, the distance for l1 and cosine, and the negative product for dot. `METRIC` is a
compile-time constant (`kernels.metrics.NUMBER`); row arguments are 64-bit row numbers, so that row * D never overflows.
Inputs are float32, float16 or bfloat16; all sums are in float32.
"""

from __future__ import annotations

import triton
import triton.language as tl

L2 = tl.constexpr(0)
L1 = tl.constexpr(1)
DOT = tl.constexpr(2)
COSINE = tl.constexpr(3)
UNROUNDED = tl.constexpr(512)
"""Columns of half-precision products that tensor cores sum on their own: they cut a sum to float32 instead of rounding it, which takes
off up to an epsilon each 16 columns, always towards zero. Beyond, sums are rounded, and no error grows faster than sqrt(D)."""


@triton.jit
def cosine_key(product, norms):
    """1 - cos of products and |x| |y|; 1 where a vector is zero."""
    return tl.where(norms == 0, 1.0, 1.0 - product / tl.where(norms == 0, 1.0, norms))


@triton.jit
def stream_sums(X, Y, query, rows, valid, first, last, D, METRIC: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
                UNROLL: tl.constexpr = 1):  # fmt: skip
    """Sums over columns `first` to `last` - 1 of one query and `rows` of Y, each read once: (terms, rows' squares, query's squares).

    Terms and rows' squares are [BLOCK_N]; squares are zero but for cosine. Sums stay elementwise until one reduction at the end.
    UNROLL steps of BLOCK_D columns are read at once.
    """
    columns = tl.arange(0, BLOCK_D)
    total = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    squares = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    query_squares = tl.zeros([BLOCK_D], tl.float32)
    for start in tl.range(first, last, BLOCK_D, loop_unroll_factor=UNROLL):
        inside = start + columns < last
        x = tl.load(X + query * D + start + columns, mask=inside, other=0.0).to(tl.float32)
        y = tl.load(Y + rows[:, None] * D + (start + columns)[None, :], mask=valid[:, None] & inside[None, :], other=0.0).to(tl.float32)
        if METRIC == L2:
            difference = y - x[None, :]
            total += difference * difference
        elif METRIC == L1:
            total += tl.abs(y - x[None, :])
        else:
            total += y * x[None, :]
        if METRIC == COSINE:
            squares += y * y
            query_squares += x * x
    return tl.sum(total, axis=1), tl.sum(squares, axis=1), tl.sum(query_squares, axis=0)


@triton.jit
def key_of(terms, squares, query_squares, METRIC: tl.constexpr):
    """Keys of the sums that `stream_sums` gives."""
    if METRIC == DOT:
        terms = 0.0 - terms
    if METRIC == COSINE:
        terms = cosine_key(terms, tl.sqrt_rn(squares) * tl.sqrt_rn(query_squares))
    return terms


@triton.jit
def stream_keys(X, Y, query, rows, valid, D, METRIC: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, UNROLL: tl.constexpr = 1):
    """Keys [BLOCK_N] of one query against `rows` of Y, each read once."""
    terms, squares, query_squares = stream_sums(X, Y, query, rows, valid, 0, D, D, METRIC, BLOCK_N, BLOCK_D, UNROLL)
    return key_of(terms, squares, query_squares, METRIC)


@triton.jit
def span_products(X, Y, queries, rows, first, last, D, BLOCK_Q: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
                  PASSES: tl.constexpr):  # fmt: skip
    """Products [BLOCK_Q, BLOCK_N] of `queries` of X and `rows` of Y over columns `first` to `last` - 1; all of them are read."""
    columns = tl.arange(0, BLOCK_D)
    total = tl.zeros([BLOCK_Q, BLOCK_N], tl.float32)
    for start in range(first, last, BLOCK_D):
        inside = start + columns < last
        x = tl.load(X + queries[:, None] * D + (start + columns)[None, :], mask=inside[None, :], other=0.0)
        y = tl.load(Y + rows[None, :] * D + (start + columns)[:, None], mask=inside[:, None], other=0.0)
        total = tl.dot(x, y, total, input_precision="tf32x3" if PASSES == 3 else "ieee")
    return total


@triton.jit
def tile_products(X, Y, queries, rows, some, valid, D, BLOCK_Q: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
                  PASSES: tl.constexpr = 1):  # fmt: skip
    """Products [BLOCK_Q, BLOCK_N] of `queries` of X and `rows` of Y.

    float32 by PASSES: 1 is IEEE arithmetic, 3 is three TF32 passes on tensor cores, whose products are off by 2^-21 at most and whose
    sums of BLOCK_D columns are rounded when they are added up. float16 and bfloat16 products are exact.
    """
    queries, rows = tl.where(some, queries, 0), tl.where(valid, rows, 0)  # in place of a mask: their results are not used
    if X.dtype.element_ty == tl.float32:
        total = span_products(X, Y, queries, rows, 0, D, D, BLOCK_Q, BLOCK_N, BLOCK_D, PASSES)
    else:
        total = tl.zeros([BLOCK_Q, BLOCK_N], tl.float32)
        for first in range(0, D, UNROUNDED):
            total += span_products(X, Y, queries, rows, first, tl.minimum(first + UNROUNDED, D), D, BLOCK_Q, BLOCK_N, BLOCK_D, PASSES)
    return total


@triton.jit
def tile_differences(X, Y, queries, rows, some, valid, D, METRIC: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_N: tl.constexpr):
    """Sums [BLOCK_Q, BLOCK_N] of squared or absolute differences, a column at a time: no norms that could cancel.

    Reads rows as they lie, strided; `kernels.distance.triton_columns` is several times faster where a transposed copy pays.
    """
    total = tl.zeros([BLOCK_Q, BLOCK_N], tl.float32)
    for column in range(0, D):
        x = tl.load(X + queries * D + column, mask=some, other=0.0).to(tl.float32)
        y = tl.load(Y + rows * D + column, mask=valid, other=0.0).to(tl.float32)
        difference = x[:, None] - y[None, :]
        if METRIC == L2:
            total += difference * difference
        else:
            total += tl.abs(difference)
    return total


@triton.jit
def product_key(product, XNorms, YNorms, queries, rows, some, valid, METRIC: tl.constexpr):
    """Keys [BLOCK_Q, BLOCK_N] of products; the norms are read for cosine alone."""
    if METRIC == COSINE:
        x_norms = tl.load(XNorms + queries, mask=some, other=0.0)
        y_norms = tl.load(YNorms + rows, mask=valid, other=0.0)
        return cosine_key(product, x_norms[:, None] * y_norms[None, :])
    return 0.0 - product


@triton.jit
def tile_keys(X, Y, XNorms, YNorms, queries, rows, some, valid, D, METRIC: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_N: tl.constexpr,
              BLOCK_D: tl.constexpr):  # fmt: skip
    """Keys [BLOCK_Q, BLOCK_N] of `queries` against `rows`, which are read as they lie."""
    if (METRIC == L2) or (METRIC == L1):  # noqa: SIM109 - Triton compiles no `in`
        key = tile_differences(X, Y, queries, rows, some, valid, D, METRIC, BLOCK_Q, BLOCK_N)
    else:
        key = tile_products(X, Y, queries, rows, some, valid, D, BLOCK_Q, BLOCK_N, BLOCK_D)
        key = product_key(key, XNorms, YNorms, queries, rows, some, valid, METRIC)
    return key


@triton.jit
def distance_of(key, METRIC: tl.constexpr):
    """The distance that a key stands for."""
    if METRIC == L2:
        key = tl.sqrt_rn(key)
    elif METRIC == DOT:
        key = 0.0 - key
    return key
