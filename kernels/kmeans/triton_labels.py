"""The nearest centroid of each point where rows are long, straight from products of halves. See `kernels.kmeans.triton_impl`.

A tile of points meets all centroids in one program, which keeps the three least keys and where the first two are: beside a product over
many columns that costs little. Where the second is more than two radii from the least, the label is known; where only the third
is, two centroids are left, which are compared by direct differences. All else meets the centroids again in two halves (PARTS = 2),
and what is open then is decided by direct differences with all.

A key carries its column in its last bits, so that a minimum is a place, too; the radii allow for what that cuts off.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.filter import EXACTLY, TILE
from kernels.kmeans.triton_groups import append, listed, products
from kernels.kmeans.triton_halves import far, framed, halves, loaded, point_bounds, precedes, radius_in, row_keys

SPAN = tl.constexpr(TILE)
PIECE = tl.constexpr(EXACTLY)
HUGE = tl.constexpr(2.0**126)
"""The key of a place without a centroid: above all others, and finite whatever its last bits are."""
EPSILON, TINY = tl.constexpr(2.0**-23), tl.constexpr(2.0**-100)
"""Of float32: the distance of neighbours, relative, and a value below which it is not looked for."""


@triton.jit
def three_least(key, BLOCK_N: tl.constexpr):
    """The three least keys [rows] of each row [BLOCK_N], least first, each with its column in its last bits."""
    packed = (key.to(tl.int32, bitcast=True) & -BLOCK_N) | tl.arange(0, BLOCK_N)[None, :]
    packed = packed.to(tl.float32, bitcast=True)
    first = tl.min(packed, axis=1)
    packed = tl.where(packed == first[:, None], float("inf"), packed)
    second = tl.min(packed, axis=1)
    return first, second, tl.min(tl.where(packed == second[:, None], float("inf"), packed), axis=1)


@triton.jit
def column_of(packed, BLOCK_N: tl.constexpr):
    """What `three_least` put into the last bits."""
    return packed.to(tl.int32, bitcast=True) & (BLOCK_N - 1)


@triton.jit
def cut_off(packed, BLOCK_N: tl.constexpr):
    """How far a key may be from what `three_least` made of it."""
    return (tl.abs(packed) + TINY) * (BLOCK_N * EPSILON)


@triton.jit
def merged(least, ids, found, start, BLOCK_N: tl.constexpr):
    """The three least of `least` and of those `found` in the block of centroids from `start`, and the ids of the first two."""
    a, b, c = least
    x, y, z = found
    a_id, b_id = ids
    x_id, y_id = start + column_of(x, BLOCK_N), start + column_of(y, BLOCK_N)
    loser, loser_id = tl.maximum(a, x), tl.where(x < a, a_id, x_id)
    second = tl.minimum(loser, tl.minimum(b, y))
    second_id = tl.where(second == loser, loser_id, tl.where(second == b, b_id, y_id))
    third = tl.minimum(tl.minimum(tl.maximum(a, y), tl.maximum(b, x)), tl.minimum(c, z))
    return (tl.minimum(a, x), second, third), (tl.where(x < a, x_id, a_id), second_id)


@triton.jit
def settle(points, some, least, ids, radius, Labels, Rivals, Pairs, PairCount, Left, LeftCount, D, BLOCK_N: tl.constexpr):
    """Write labels and rivals of points; list those that two centroids are left for, and those that are open."""
    first, second, third = least
    reach = first + cut_off(first, BLOCK_N) + radius
    within = reach < 0.375 * far(D) * far(D)  # what lies far outside the frame is no candidate
    decided = within & (second - cut_off(second, BLOCK_N) - radius > reach)
    pair = within & (third - cut_off(third, BLOCK_N) - radius > reach) & (decided == 0)
    tl.store(Labels + points, ids[0], mask=some)
    tl.store(Rivals + points, ids[1], mask=some & pair)
    append(Pairs, PairCount, points, some & pair)
    append(Left, LeftCount, points, some & (decided == 0) & (pair == 0))


@triton.jit
def span_products(X, Values, Centre, First, Second, points, some, factor, at, begin, end, D, width, METRIC: tl.constexpr,
                  PARTS: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    """Products of points and centroids over the columns from `begin` to before `end`."""
    product = tl.zeros([BLOCK_Q, BLOCK_N], tl.float32)
    for start in range(begin, end, BLOCK_D):
        columns = start + tl.arange(0, BLOCK_D)
        inside = (columns < width)[None, :]
        if PARTS == 2:
            first, second = halves(framed(loaded(X, points, some, columns, D), Centre, columns, factor, D, METRIC))
            product += products(first, second, First, Second, at + columns[None, :], inside, PARTS)
        else:
            first = tl.load(Values + points[:, None] * width + columns[None, :], mask=some[:, None] & inside, other=0.0)
            product = tl.dot(first, tl.trans(tl.load(First + at + columns[None, :], mask=inside, other=0.0)), product)
    return product


@triton.jit(do_not_specialize=["N", "tiles"])
def labels_kernel(X, Values, PointNorms, PointErrors, PointFactors, Centre, First, Second, Offsets, Bounds, Labels, Rivals, Pairs,
                  PairCount, List, ListCount, Left, LeftCount, N, tiles, D, width, METRIC: tl.constexpr, PARTS: tl.constexpr,
                  LONG: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    """Labels of all points in the half precision they were prepared in, or for PARTS = 2 of listed ones as they are.

    LONG: there are more than PIECE columns, after which a sum is added up in float32 proper, as the radius presumes.
    """
    count = N
    if PARTS == 2:
        count = tl.load(ListCount)
    for tile in range(tl.program_id(0), tl.cdiv(count, BLOCK_Q), tl.num_programs(0)):
        points, some = listed(List, ListCount, tile, N, PARTS == 2, BLOCK_Q)
        norm = tl.load(PointNorms + points, mask=some, other=0.0)
        error = tl.load(PointErrors + points, mask=some, other=0.0)
        factor = tl.zeros([BLOCK_Q], tl.float32)
        if PARTS == 2:
            norm, error = point_bounds(norm * norm, factor, D, METRIC, PARTS)
            factor = tl.load(PointFactors + points, mask=some & (error < float("inf")), other=0.0)  # 0: halves cannot hold it
        least = tl.full([BLOCK_Q], HUGE, tl.float32), tl.full([BLOCK_Q], HUGE, tl.float32), tl.full([BLOCK_Q], HUGE, tl.float32)
        ids = tl.zeros([BLOCK_Q], tl.int32), tl.zeros([BLOCK_Q], tl.int32)
        for block in range(0, tiles * SPAN // BLOCK_N):
            rows = block * BLOCK_N + tl.arange(0, BLOCK_N)
            at = rows[:, None].to(tl.int64) * width
            product = span_products(X, Values, Centre, First, Second, points, some, factor, at, 0, tl.minimum(width, PIECE), D, width,
                                    METRIC, PARTS, BLOCK_Q, BLOCK_N, BLOCK_D)  # fmt: skip
            if LONG:
                for begin in range(PIECE, width, PIECE):
                    product += span_products(X, Values, Centre, First, Second, points, some, factor, at, begin,
                                             tl.minimum(begin + PIECE, width), D, width, METRIC, PARTS, BLOCK_Q, BLOCK_N,
                                             BLOCK_D)  # fmt: skip
            found = three_least(tl.minimum(tl.load(Offsets + rows), HUGE)[None, :] - product, BLOCK_N)
            least, ids = merged(least, ids, found, block * BLOCK_N, BLOCK_N)
        radius = radius_in(Bounds, norm, error, D, METRIC, PARTS)
        settle(points, some, least, ids, radius, Labels, Rivals, Pairs, PairCount, Left, LeftCount, D, BLOCK_N)


@triton.jit(do_not_specialize=["K"])
def pairs_kernel(X, C, Labels, Rivals, Pairs, PairCount, K, D, METRIC: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):
    """The nearer one of two centroids for each listed point, of equals the first, by direct differences in float32."""
    for tile in range(tl.program_id(0), tl.cdiv(tl.load(PairCount), ROWS), tl.num_programs(0)):
        points, some = listed(Pairs, PairCount, tile, 0, True, ROWS)
        own = tl.load(Labels + points, mask=some, other=0).to(tl.int64)
        rival = tl.load(Rivals + points, mask=some, other=0).to(tl.int64)
        near = row_keys(X, C, points, some, own, K, D, METRIC, ROWS, BLOCK_D)
        other = row_keys(X, C, points, some, rival, K, D, METRIC, ROWS, BLOCK_D)
        tl.store(Labels + points, rival.to(tl.int32), mask=some & precedes(other, rival, near, own))
