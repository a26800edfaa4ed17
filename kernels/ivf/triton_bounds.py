"""Lower bounds of the keys of rows, a group of rows at a time, by products of tensor cores in TF32.

For l2 queries and rows are taken relative to an origin o near them, the centroid of the list: |q - r|² = |q'|² + |r'|² - 2 q'·r' with
q' = q - o, r' = r - o. A number cut to TF32 is off by less than 2^-10 of itself, so a product of two by 2^-9, and by Cauchy-Schwarz q'·r'
is off by less than 2^-9 |q'| |r'|, twice that being at most 2^-9 (|q'|² + |r'|²). Sums of D terms in float32, of the exact keys that
the bounds are compared with too, add (D + 16) 2^-21 at most. So (1 - s) (|q'|² + |r'|²) - 2 q'·r' with s = 2^-9 + (D + 16) 2^-21 is never
above the key. For dot the same s times |q| |r| is taken off, for cosine s. L1 has no products; its sums are exact but for their rounding.

A tile of ROWS rows gives SLOTS pairs of rows, those that one thread of the tensor cores' result holds, so that the lesser of a pair is
found without a word between threads. GROUP / 2 tiles make a block, and pairs in the same slot of its tiles a group. A list has room for
`blocks` blocks; where it is longer, a group of block b + blocks joins that of block b. A bound is infinite where a group has no row, finite
elsewhere, and -inf where nothing is known.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.distance.triton_metric import DOT, L1, L2, tile_differences

ROWS = tl.constexpr(64)
SLOTS = tl.constexpr(32)
LARGEST = tl.constexpr(3.4028234663852886e38)
SMALL = tl.constexpr(1e-30)
"""Squared norms below this, zero apart, have lost digits that cosine would need."""


@triton.jit
def row_of_group(slot, member):
    """Where in its block a member of a group lies."""
    return slot // 8 * 16 + slot % 8 + member % 2 * 8 + member // 2 * 64


@triton.jit
def slack(D):
    return 0.001953125 + (D + 16) * 4.76837158203125e-07


@triton.jit
def lesser(a, b):
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def relative(Y, rows, valid, columns, Origin, D, METRIC: tl.constexpr):
    """Columns of rows, for l2 relative to the origin; zero beyond D.

    The origin is read again for each tile, through shared memory: to hold it would take as many registers as the rows.
    """
    inside = columns < D
    y = tl.load(Y + rows[:, None] * D + columns[None, :], mask=valid[:, None] & inside[None, :], other=0.0)
    if METRIC == L2:
        y -= tl.load(Origin + columns, mask=inside, other=0.0)[None, :]
    return y


@triton.jit
def side(squares, D, METRIC: tl.constexpr):
    """What a query or a row brings to its bounds, of its squared norm: a summand, or a factor."""
    if METRIC == L2:
        return tl.where(squares < float("inf"), squares * (1.0 - slack(D)), -float("inf"))
    if METRIC == DOT:
        return tl.sqrt(squares)
    known = (squares == 0.0) | ((squares > SMALL) & (squares < float("inf")))
    return tl.where(known, tl.where(squares == 0.0, 0.0, 1.0 / tl.sqrt(squares)), float("nan"))


@triton.jit
def bounds(products, row_squares, query_squares, D, METRIC: tl.constexpr):
    """Lower bounds [rows, queries]."""
    row, query = side(row_squares, D, METRIC)[:, None], side(query_squares, D, METRIC)[None, :]
    if METRIC == L2:
        return (row + query) - 2.0 * products
    if METRIC == DOT:
        return 0.0 - (products + (row * slack(D)) * query)
    return (1.0 - slack(D)) - products * row * query


@triton.jit
def pair_minima(low, BLOCK_Q: tl.constexpr):
    """The lesser bound [SLOTS, BLOCK_Q] of each pair of rows of a tile [ROWS, BLOCK_Q]."""
    return tl.reshape(tl.reduce(tl.reshape(low, [ROWS // 16, 2, 8, BLOCK_Q]), 1, lesser), [SLOTS, BLOCK_Q])


@triton.jit
def tile_bounds(X, Y, Origin, queries, some, rows, valid, x, query_squares, D, METRIC: tl.constexpr, WHOLE: tl.constexpr,
                BLOCK_Q: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    """Lower bounds [ROWS, BLOCK_Q], infinite for rows that are not valid; x and query_squares are used where WHOLE."""
    columns = tl.arange(0, BLOCK_D)
    if METRIC == L1:
        low = tile_differences(Y, X, rows, queries, valid, some, D, METRIC, ROWS, BLOCK_Q) * (1.0 - (D + 16) * 4.76837158203125e-07)
    elif WHOLE:
        y = relative(Y, rows, valid, columns, Origin, D, METRIC)
        low = bounds(tl.dot(y, tl.trans(x), input_precision="tf32"), tl.sum(y * y, axis=1), query_squares, D, METRIC)
    else:
        products = tl.zeros([ROWS, BLOCK_Q], tl.float32)
        row_squares = tl.zeros([ROWS], tl.float32)
        squares = tl.zeros([BLOCK_Q], tl.float32)
        for start in range(0, D, BLOCK_D):
            part = relative(X, queries, some, start + columns, Origin, D, METRIC)
            y = relative(Y, rows, valid, start + columns, Origin, D, METRIC)
            products = tl.dot(y, tl.trans(part), products, input_precision="tf32")
            row_squares += tl.sum(y * y, axis=1)
            squares += tl.sum(part * part, axis=1)
        low = bounds(products, row_squares, squares, D, METRIC)
    return low + tl.where(valid, 0.0, float("inf"))[:, None]


@triton.jit
def write_bounds(X, Y, Origin, Low, queries, some, places, start, length, first, splits, blocks, D, METRIC: tl.constexpr,
                 WHOLE: tl.constexpr, GROUP: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    """Bounds of BLOCK_Q `queries` and every splits-th block, from `first` on, of a list, to rows `places` of Low [*, blocks * SLOTS].

    `splits` divides `blocks`. WHOLE: D is at most BLOCK_D, and the queries stay where they are.
    """
    TILES: tl.constexpr = GROUP // 2
    Low += places[None, :] * blocks * SLOTS + tl.arange(0, SLOTS)[:, None]
    x = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    if WHOLE and METRIC != L1:
        x = relative(X, queries, some, tl.arange(0, BLOCK_D), Origin, D, METRIC)
    query_squares = tl.sum(x * x, axis=1)
    own = tl.cdiv(tl.maximum(tl.cdiv(length, TILES * ROWS) - first, 0), splits)  # blocks of this program
    least = tl.full([SLOTS, BLOCK_Q], float("inf"), tl.float32)
    for step in range(0, own * TILES):
        block = first + step // TILES * splits
        at = (block * TILES + step % TILES) * ROWS + tl.arange(0, ROWS)
        low = tile_bounds(X, Y, Origin, queries, some, start + at, at < length, x, query_squares, D, METRIC, WHOLE, BLOCK_Q, BLOCK_D)
        least = lesser(least, pair_minima(low, BLOCK_Q))
        if step % TILES == TILES - 1:
            known = tl.where(least == least, tl.minimum(least, LARGEST), -float("inf"))
            there = block * TILES * ROWS + row_of_group(tl.arange(0, SLOTS), 0) < length
            known = tl.where(there[:, None], known, float("inf"))
            out = Low + block % blocks * SLOTS
            if block >= blocks:
                known = tl.minimum(known, tl.load(out, mask=some[None, :], other=float("inf")))
            tl.store(out, known, mask=some[None, :])
            least = tl.full([SLOTS, BLOCK_Q], float("inf"), tl.float32)
    for block in range(first + own * splits, blocks, splits):
        tl.store(Low + block * SLOTS, tl.full([SLOTS, BLOCK_Q], float("inf"), tl.float32), mask=some[None, :])
