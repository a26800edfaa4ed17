"""The nearest centroid of each point among those of its group, and in the same pass the sums. See `kernels.kmeans.triton_impl`.

Points come in the chunks of `kernels.kmeans.triton_sums`, so that a program needs no more than its group's SIZE centroids. Keys are
products of two halves. Where another is within their error of the best, both are compared by direct differences; where more are, or the
point lies far outside the frame, so are all SIZE.

The inertia takes its distances from the keys, and from direct differences where those are small against the norms.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.distance.triton_metric import COSINE
from kernels.filter.groups import group_rows
from kernels.filter.prepare import UNIT, scale_of
from kernels.kmeans.triton_halves import (
    SECOND,
    direct_keys,
    factor_of,
    far,
    framed,
    halves,
    loaded,
    point_bounds,
    precedes,
    radius_in,
    row_keys,
    squares_of,
)
from kernels.kmeans.triton_sums import chunk_of, points_at, store_chunk, with_sums


@triton.jit
def first_of(key, least, SIZE: tl.constexpr):
    """The first member of each row of keys [points, SIZE] that is the least one."""
    return tl.min(tl.where(key == least[:, None], tl.arange(0, SIZE)[None, :], SIZE - 1), axis=1)


@triton.jit
def direct(key, own, count, X, C, points, some, group, squares, K, D, METRIC: tl.constexpr, SIZE: tl.constexpr, ACROSS: tl.constexpr,
           TOGETHER: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    """(member, cost) by direct keys: of the best alone, of the two best where `count` is 2, of all where it is more."""
    near = row_keys(X, C, points, some, group_rows(group, own, SIZE, ACROSS, TOGETHER), K, D, METRIC, ROWS, BLOCK_D)
    if tl.max(count, axis=0) > 1:
        others = tl.where(tl.arange(0, SIZE)[None, :] == own[:, None], float("inf"), key)
        rival = first_of(others, tl.min(others, axis=1), SIZE)
        other = row_keys(X, C, points, some, group_rows(group, rival, SIZE, ACROSS, TOGETHER), K, D, METRIC, ROWS, BLOCK_D)
        swap = (count == 2) & precedes(other, rival, near, own)
        own, near = tl.where(swap, rival, own), tl.where(swap, other, near)
        if tl.max(count, axis=0) > 2:
            ids = group_rows(group, tl.arange(0, SIZE), SIZE, ACROSS, TOGETHER)
            every = direct_keys(X, C, points, ids, some, ids < K, D, METRIC, ROWS, SIZE, 16)
            every = tl.where((ids < K)[None, :], every, float("inf"))
            least = tl.min(every, axis=1)
            own, near = tl.where(count > 2, first_of(every, least, SIZE), own), tl.where(count > 2, least, near)
    if METRIC == COSINE:
        near = 1.0 + near / tl.sqrt_rn(tl.where(squares > 0, squares, 1.0))
    return own, near


@triton.jit
def decide(key, norm, error, Bounds, Largest, X, C, points, some, group, squares, K, D, METRIC: tl.constexpr, SIZE: tl.constexpr,
           ACROSS: tl.constexpr, TOGETHER: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    """(member, cost) of each point by keys [points, SIZE]: which centroid is nearest, and its part of the inertia."""
    best = tl.min(key, axis=1)
    own = first_of(key, best, SIZE)
    radius = radius_in(Bounds, norm, error, D, METRIC, 2)
    count = tl.sum((key <= (best + 2 * radius)[:, None]).to(tl.int32), axis=1)
    count = tl.where(best + radius < 0.375 * far(D) * far(D), count, SIZE)
    if METRIC == COSINE:
        cost = 1.0 + best / (UNIT * UNIT)
        small = count < 0
    else:
        half = best + 0.5 * norm * norm
        small = (half > 0.125 * norm * tl.load(Bounds)) == 0
        scale = scale_of(tl.load(Largest))
        cost = 2 * half / (scale * scale)
    count = tl.where(some, count, 1)
    if tl.max(((small & some) | (count > 1)).to(tl.int32), axis=0) > 0:
        own, cost = direct(key, own, count, X, C, points, some, group, squares, K, D, METRIC, SIZE, ACROSS, TOGETHER, ROWS, BLOCK_D)
    return own, tl.where(some, cost, 0.0)


@triton.jit
def point_of(X, PointNorms, Largest, points, some, D, METRIC: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):
    """(squares, factor, n, e, whether far outside the frame) of points; squares are those of cosine."""
    squares = tl.zeros([ROWS], tl.float32)
    if METRIC == COSINE:
        squares = squares_of(X, points, some, D, ROWS, BLOCK_D)
    norm = tl.load(PointNorms + points, mask=some, other=0.0)
    norm, error = point_bounds(norm * norm, tl.zeros([ROWS], tl.float32), D, METRIC, 2)
    return squares, factor_of(squares, Largest, METRIC), norm, error, (error < float("inf")) == 0


@triton.jit(do_not_specialize=["groups", "K"])
def assign_held(X, C, PointNorms, Centre, Largest, First, Second, Offsets, Bounds, Order, Starts, FirstChunks, Labels, Sums,
                Counts, Inertia, groups, K, D, width, METRIC: tl.constexpr, SIZE: tl.constexpr, ACROSS: tl.constexpr,
                TOGETHER: tl.constexpr, CHUNK: tl.constexpr, PLACES: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    """Labels, sums, counts and inertia of a chunk, ROWS points at a time, held whole."""
    group, start, last = chunk_of(FirstChunks, Starts, groups, CHUNK, PLACES)
    members, columns = tl.arange(0, SIZE), tl.arange(0, BLOCK_D)
    ids = group_rows(group, members, SIZE, ACROSS, TOGETHER)
    offset = tl.load(Offsets + ids)
    place, inside = ids[:, None] * width + columns[None, :], (columns < width)[None, :]
    first_rows, second_rows = tl.load(First + place, mask=inside, other=0.0), tl.load(Second + place, mask=inside, other=0.0)
    sums = tl.zeros([SIZE, BLOCK_D], tl.float32)
    counts = tl.zeros([SIZE, ROWS], tl.int32)
    inertia = tl.zeros([ROWS], tl.float32)
    for at in range(start, last, ROWS):
        points, some = points_at(Order, at, last, ROWS)
        squares, factor, norm, error, far_out = point_of(X, PointNorms, Largest, points, some, D, METRIC, ROWS, BLOCK_D)
        inner = tl.where(some & (far_out == 0), factor, 0.0)  # what halves cannot hold has no part in products
        first, second = halves(framed(loaded(X, points, some, columns, D), Centre, columns, inner, D, METRIC))
        product = tl.dot(first, tl.trans(second_rows), tl.dot(second, tl.trans(first_rows)))
        key = offset[None, :] - tl.dot(first, tl.trans(first_rows), product * SECOND)
        own, cost = decide(key, norm, error, Bounds, Largest, X, C, points, some, group, squares, K, D, METRIC, SIZE, ACROSS, TOGETHER,
                           ROWS, BLOCK_D // 2 if BLOCK_D > 64 else BLOCK_D)  # fmt: skip
        tl.store(Labels + points, group_rows(group, own, SIZE, ACROSS, TOGETHER).to(tl.int32), mask=some)
        inertia += cost
        sums, counts = with_sums(sums, counts, first, second, own, some, far_out, X, Centre, points, columns, factor, D, METRIC, SIZE)
    store_chunk(Sums, Counts, Inertia, sums, counts, inertia, columns, D, SIZE)
