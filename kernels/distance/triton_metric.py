"""Device functions in Triton that distance and knn share: ranking keys, where the smallest is the nearest.

A key is the squared distance for l2, the distance for l1 and cosine, and the negative product for dot. `METRIC` is a
compile-time constant (`kernels.metrics.NUMBER`); `ROW` arguments are 64-bit row numbers, so that row * D never overflows.
"""

from __future__ import annotations

import triton
import triton.language as tl

L2 = tl.constexpr(0)
L1 = tl.constexpr(1)
DOT = tl.constexpr(2)
COSINE = tl.constexpr(3)


@triton.jit
def cosine_key(product, norms):
    """1 - cos of products and |x| |y|; 1 where a vector is zero."""
    return tl.where(norms == 0, 1.0, 1.0 - product / tl.where(norms == 0, 1.0, norms))


@triton.jit
def stream_keys(X, Y, query, rows, valid, D, METRIC: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    """Keys [BLOCK_N] of one query against `rows` of Y, each read once; sums stay elementwise until one reduction at the end."""
    columns = tl.arange(0, BLOCK_D)
    total = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    squares = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    query_squares = tl.zeros([BLOCK_D], tl.float32)
    for start in range(0, D, BLOCK_D):
        inside = start + columns < D
        x = tl.load(X + query * D + start + columns, mask=inside, other=0.0)
        y = tl.load(Y + rows[:, None] * D + (start + columns)[None, :], mask=valid[:, None] & inside[None, :], other=0.0)
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
    key = tl.sum(total, axis=1)
    if METRIC == DOT:
        key = 0.0 - key
    if METRIC == COSINE:
        key = cosine_key(key, tl.sqrt_rn(tl.sum(squares, axis=1)) * tl.sqrt_rn(tl.sum(query_squares, axis=0)))
    return key


@triton.jit
def tile_products(X, Y, queries, rows, some, valid, D, BLOCK_Q: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    """Products [BLOCK_Q, BLOCK_N] of `queries` of X and `rows` of Y in IEEE float32."""
    columns = tl.arange(0, BLOCK_D)
    total = tl.zeros([BLOCK_Q, BLOCK_N], tl.float32)
    for start in range(0, D, BLOCK_D):
        inside = start + columns < D
        x = tl.load(X + queries[:, None] * D + (start + columns)[None, :], mask=some[:, None] & inside[None, :], other=0.0)
        y = tl.load(Y + rows[None, :] * D + (start + columns)[:, None], mask=valid[None, :] & inside[:, None], other=0.0)
        total = tl.dot(x, y, total, input_precision="ieee")
    return total


@triton.jit
def tile_differences(X, Y, queries, rows, some, valid, D, METRIC: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_N: tl.constexpr):
    """Sums [BLOCK_Q, BLOCK_N] of squared or absolute differences, a column at a time: no norms that could cancel."""
    total = tl.zeros([BLOCK_Q, BLOCK_N], tl.float32)
    for column in range(0, D):
        x = tl.load(X + queries * D + column, mask=some, other=0.0)
        y = tl.load(Y + rows * D + column, mask=valid, other=0.0)
        difference = x[:, None] - y[None, :]
        if METRIC == L2:
            total += difference * difference
        else:
            total += tl.abs(difference)
    return total


@triton.jit
def tile_keys(X, Y, XNorms, YNorms, queries, rows, some, valid, D, METRIC: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_N: tl.constexpr,
              BLOCK_D: tl.constexpr):  # fmt: skip
    """Keys [BLOCK_Q, BLOCK_N] of `queries` against `rows`; the norms are read for cosine alone."""
    if (METRIC == L2) or (METRIC == L1):  # noqa: SIM109 - Triton compiles no `in`
        key = tile_differences(X, Y, queries, rows, some, valid, D, METRIC, BLOCK_Q, BLOCK_N)
    else:
        key = tile_products(X, Y, queries, rows, some, valid, D, BLOCK_Q, BLOCK_N, BLOCK_D)
    if METRIC == DOT:
        key = 0.0 - key
    if METRIC == COSINE:
        x_norms = tl.load(XNorms + queries, mask=some, other=0.0)
        y_norms = tl.load(YNorms + rows, mask=valid, other=0.0)
        key = cosine_key(key, x_norms[:, None] * y_norms[None, :])
    return key


@triton.jit
def distance_of(key, METRIC: tl.constexpr):
    """The distance that a key stands for."""
    if METRIC == L2:
        key = tl.sqrt_rn(key)
    elif METRIC == DOT:
        key = 0.0 - key
    return key
