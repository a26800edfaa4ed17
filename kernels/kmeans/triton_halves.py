"""Points and centroids on their way to tensor cores: in the filter's frame, in one or two half-precision numbers, with their bounds.

Two halves, first + SECOND * second, keep 22 bits, small numbers too, since the second is stored as large as the first. A product of two
such numbers leaves out that of the second halves.

What lies far outside the frame must not spoil the bounds of all else. A centroid beyond `far` takes no part in products. For a point
within far / 8 its key is at least 3/8 far², so that it is not the nearest where a key is below that; a point beyond far / 8 has
no bounds, and is compared by direct differences. See `kernels.filter` for frame, keys and bounds.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.distance.triton_metric import COSINE, L2
from kernels.filter import ROUNDING
from kernels.filter.groups import radius_of
from kernels.filter.prepare import UNIT, bounds_of, scale_of

SECOND = tl.constexpr(2.0**-11)
FIRST = tl.constexpr(2.0**11)
HUGE = tl.constexpr(2.0**126)
"""The key of a place without a centroid: above all others, and finite whatever its last bits are."""
LARGEST = tl.constexpr(65504.0)
"""The largest number of half precision."""
LOST = tl.constexpr(8 * ROUNDING)
"""Relative error of two halves, 2^-22, and of a product without that of the second halves, as much again."""
LEAST = tl.constexpr(2.0**-36)
"""Absolute error of two halves of a value below half precision's normal numbers."""


@triton.jit
def far(D):
    """Norms in the frame of what lies far outside it. Values are mostly below 128 there, and norms below 128 sqrt D."""
    return tl.minimum(2048.0 * tl.sqrt(D.to(tl.float32)), LARGEST)


@triton.jit
def loaded(X, rows, some, columns, D):
    """Columns of rows of X in float32, 0 where there are none."""
    return tl.load(X + rows[:, None] * D + columns[None, :], mask=some[:, None] & (columns < D)[None, :], other=0.0)


@triton.jit
def squares_of(X, rows, some, D, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):
    """Squared norms of rows as they are."""
    squares = tl.zeros([ROWS], tl.float32)
    for start in range(0, D, BLOCK_D):
        x = loaded(X, rows, some, start + tl.arange(0, BLOCK_D), D)
        squares += tl.sum(x * x, axis=1)
    return squares


@triton.jit
def factor_of(squares, Largest, METRIC: tl.constexpr):
    """What brings rows of these squared norms into the frame: the scale, or for cosine UNIT over the norm, 0 for a zero row."""
    if METRIC == COSINE:
        return tl.where(squares > 0, UNIT / tl.sqrt_rn(tl.where(squares > 0, squares, 1.0)), 0.0)
    return tl.zeros_like(squares) + scale_of(tl.load(Largest))


@triton.jit
def framed(x, Centre, columns, factor, D, METRIC: tl.constexpr):
    """Columns of rows x in the frame, by their factors, which for l2 are a power of two: one rounding either way."""
    if METRIC == L2:
        centre = tl.load(Centre + columns, mask=columns < D, other=0.0)[None, :]
        return tl.fma(x, tl.broadcast_to(factor[:, None], x.shape), -centre * factor[:, None])
    else:
        return x * factor[:, None]


@triton.jit
def halves(value):
    """Two half-precision numbers for values within its range."""
    first = value.to(tl.float16)
    return first, ((value - first.to(tl.float32)) * FIRST).to(tl.float16)


@triton.jit
def measured(value, PARTS: tl.constexpr):
    """(first, second, squared norms, squared errors of the first half where PARTS is 1) of values [rows, columns]."""
    first, second = halves(value)
    squares = tl.sum(value * value, axis=1)
    errors = tl.zeros_like(squares)
    if PARTS == 1:
        rest = value - first.to(tl.float32)
        errors = tl.sum(rest * rest, axis=1)
    return first, second, squares, errors


@triton.jit
def point_bounds(squares, errors, D, METRIC: tl.constexpr, PARTS: tl.constexpr):
    """(n, e) of points in one half or two; e is infinite for what is not finite or far outside the frame."""
    norm = tl.sqrt(squares)
    _, _, error = bounds_of(squares, errors, D, METRIC)
    if PARTS == 2:
        error += norm * LOST + D * LEAST
    return norm, tl.where(norm < 0.125 * far(D), error, float("inf"))


@triton.jit
def radius_in(Bounds, norm, error, D, METRIC: tl.constexpr, PARTS: tl.constexpr):
    """The radius of each point, by its n and e and the largest of the centroids."""
    return radius_of(norm, norm, error, tl.load(Bounds), tl.load(Bounds + PARTS), D, METRIC)


@triton.jit
def part_of_keys(x, c, axis: tl.constexpr, METRIC: tl.constexpr):
    """What columns of points x and centroids c, along an axis, add to direct keys: squared differences, or for cosine negative products."""
    if METRIC == COSINE:
        return 0.0 - tl.sum(x * c, axis=axis)
    else:
        return tl.sum((x - c) * (x - c), axis=axis)


@triton.jit
def direct_keys(X, C, points, rows, some, valid, D, METRIC: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_N: tl.constexpr,
                BLOCK_D: tl.constexpr):  # fmt: skip
    """Direct keys [BLOCK_Q, BLOCK_N] in float32, whose order is that of distances."""
    total = tl.zeros([BLOCK_Q, BLOCK_N], tl.float32)
    for start in range(0, D, BLOCK_D):
        columns = start + tl.arange(0, BLOCK_D)
        x, c = loaded(X, points, some, columns, D)[:, None, :], loaded(C, rows, valid, columns, D)[None, :, :]
        total += part_of_keys(x, c, 2, METRIC)
    return total


@triton.jit
def row_keys(X, C, points, some, ids, D, METRIC: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):
    """Direct keys of points and one centroid each."""
    total = tl.zeros([ROWS], tl.float32)
    for start in range(0, D, BLOCK_D):
        columns = start + tl.arange(0, BLOCK_D)
        total += part_of_keys(loaded(X, points, some, columns, D), loaded(C, ids, some, columns, D), 1, METRIC)
    return total


@triton.jit(do_not_specialize=["K"])
def centroids_kernel(C, Centre, Largest, First, Second, Offsets, Bounds, K, D, width, METRIC: tl.constexpr, ROWS: tl.constexpr,
                     BLOCK_D: tl.constexpr):  # fmt: skip
    """A tile of centroids in two halves, with offsets; beyond the last centroid and far outside the frame they are `HUGE`.

    Bounds [3], zero before, are the largest n, and the largest e of one half and of two.
    """
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    some = rows < K
    factor = factor_of(squares_of(C, rows, some, D, ROWS, BLOCK_D), Largest, METRIC)
    squares = tl.zeros([ROWS], tl.float32)
    errors = tl.zeros([ROWS], tl.float32)
    for start in range(0, width, BLOCK_D):
        columns = start + tl.arange(0, BLOCK_D)
        value = framed(loaded(C, rows, some, columns, D), Centre, columns, factor, D, METRIC)
        value = tl.minimum(tl.maximum(value, -LARGEST), LARGEST)  # finite, lest a key be less than all: what is cut is `far`
        first, second, square, error = measured(value, 1)
        place, inside = rows[:, None] * width + columns[None, :], (columns < width)[None, :]
        tl.store(First + place, first, mask=inside)
        tl.store(Second + place, second, mask=inside)
        squares += square
        errors += error
    offset, norm, error = bounds_of(squares, tl.zeros_like(squares), D, METRIC)
    near = some & (squares < far(D) * far(D))
    norm = tl.where(near, norm, 0.0)
    tl.store(Offsets + rows, tl.where(near, offset, HUGE))
    tl.atomic_max(Bounds, tl.max(norm, axis=0))
    tl.atomic_max(Bounds + 1, tl.max(tl.where(near, error + tl.sqrt(errors), 0.0), axis=0))
    tl.atomic_max(Bounds + 2, tl.max(tl.where(near, error + norm * LOST + D * LEAST, 0.0), axis=0))
