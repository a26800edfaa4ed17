"""Exact keys of a few rows at a time, in float32 by direct differences, and which group of rows is to be looked at next."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.distance.triton_metric import COSINE, L1, L2, key_of

LAST = tl.constexpr(0x7FFFFFFF)
"""The ticket of no group."""


@triton.jit
def row_keys(X, Y, query, rows, valid, D, METRIC: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):
    """Keys [ROWS] of one query and `rows` of Y, as `stream_keys` of `kernels.distance.triton_metric` has them.

    Several steps of BLOCK_D columns are read at once, so that a row costs one wait for memory and few registers.
    """
    columns = tl.arange(0, BLOCK_D)
    total = tl.zeros([ROWS, BLOCK_D], tl.float32)
    squares = tl.zeros([ROWS, BLOCK_D], tl.float32)
    query_squares = tl.zeros([BLOCK_D], tl.float32)
    for start in tl.range(0, D, BLOCK_D, loop_unroll_factor=4):
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
    return key_of(tl.sum(total, axis=1), tl.sum(squares, axis=1), tl.sum(query_squares, axis=0), METRIC)


@triton.jit
def tickets(low, COUNT: tl.constexpr):
    """Lower bounds [COUNT] as integers in the same order, all different: a bound rounded down to make room for its place below."""
    bits = low.to(tl.int32, bitcast=True)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return tl.where(low < float("inf"), (ordered & -COUNT) | tl.arange(0, COUNT), LAST)


@triton.jit
def promises(ticket, worst, COUNT: tl.constexpr):
    """Whether the group of a ticket may hold a row that is better than the candidate `worst`."""
    return (ticket != LAST) & ((ticket & -COUNT) <= ((worst >> 32).to(tl.int32) & -COUNT))
