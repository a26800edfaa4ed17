"""The nearest centroid of each point among those of its group, and the sums of each centroid's points. See `kernels.kmeans.triton_impl`.

Points come sorted by group, `Order`; a program takes a chunk of at most CHUNK of them, all of one group, so that it needs no more than the
group's SIZE centroids. Keys are products of two halves. Where another is within their error of the best, both are compared by direct
differences; where more are, or the point lies far outside the frame, so are all SIZE. The sums of a chunk are a product of the
labels, 0 or 1, with the halves; nothing depends on which program comes first, so that a result is the same on every run.

The inertia takes its distances from the keys, and from direct differences where those are small against the norms.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.distance.triton_metric import COSINE, L2
from kernels.filter.groups import group_of, group_rows, member_of
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
    radius_in,
    squares_of,
)


@triton.jit(do_not_specialize=["N", "groups"])
def chunks_kernel(Ordered, Starts, FirstChunks, N, groups, CHUNK: tl.constexpr, PLACES: tl.constexpr):
    """Where each group starts among the sorted points, and its first chunk, both [groups + 1]; by halving, in one program."""
    group = tl.arange(0, PLACES)
    low = tl.zeros([PLACES], tl.int32)
    high = low + N
    while tl.max(high - low, axis=0) > 0:
        middle = low + (high - low) // 2
        open_ = low < high
        above = tl.load(Ordered + middle, mask=open_, other=0).to(tl.int32) >= group
        low, high = tl.where(open_ & (above == 0), middle + 1, low), tl.where(open_ & above, middle, high)
    tl.store(Starts + group, low, mask=group <= groups)
    tl.debug_barrier()
    length = tl.load(Starts + group + 1, mask=group < groups, other=0) - tl.where(group < groups, low, 0)
    chunks = (length + CHUNK - 1) // CHUNK
    tl.store(FirstChunks + group, tl.cumsum(chunks, axis=0) - chunks, mask=group <= groups)


@triton.jit
def chunk_of(FirstChunks, Starts, groups, CHUNK: tl.constexpr, PLACES: tl.constexpr):
    """(group, first, last) of this program's chunk: places in Order from `first` to before `last`, none in a chunk beyond the last."""
    chunk, places = tl.program_id(0), tl.arange(0, PLACES)
    firsts = tl.load(FirstChunks + places, mask=places <= groups, other=0x7FFFFFFF)
    group = tl.sum((firsts <= chunk).to(tl.int32), axis=0) - 1
    used = group < groups
    group = tl.where(used, group, 0)
    first = tl.load(Starts + group) + (chunk - tl.load(FirstChunks + group)) * CHUNK
    last = tl.minimum(first + CHUNK, tl.load(Starts + group + 1))
    return group, first, tl.where(used, last, first)


@triton.jit
def row_keys(X, C, points, some, ids, K, D, METRIC: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):
    """Direct keys of points and one centroid each."""
    total = tl.zeros([ROWS], tl.float32)
    ids = tl.minimum(ids, K - 1)  # a rival may be a place without a centroid
    for start in range(0, D, BLOCK_D):
        columns = start + tl.arange(0, BLOCK_D)
        x, c = loaded(X, points, some, columns, D), loaded(C, ids, some, columns, D)
        if METRIC == COSINE:
            total -= tl.sum(x * c, axis=1)
        else:
            total += tl.sum((x - c) * (x - c), axis=1)
    return total


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
        swap = (count == 2) & ((other < near) | ((other == near) & (rival < own)))
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
def with_sums(sums, counts, first, second, own, some, far_out, X, Centre, points, columns, factor, D, METRIC: tl.constexpr,
              SIZE: tl.constexpr):  # fmt: skip
    """Sums [SIZE, columns] with the points of each member, by their halves, those `far_out` one by one as they are; and counts."""
    members = tl.arange(0, SIZE)[:, None]
    label = (own[None, :] == members) & some[None, :]
    counts += label.to(tl.int32)
    label &= (far_out == 0)[None, :]
    part = tl.dot(tl.where(label, 1.0, 0.0).to(tl.float16), first)
    sums += tl.dot(tl.where(label, SECOND, 0.0).to(tl.float16), second, part)
    if tl.max((far_out & some).to(tl.int32), axis=0) > 0:
        value = framed(loaded(X, points, some, columns, D), Centre, columns, factor, D, METRIC)
        for member in range(0, SIZE):
            mine = some & far_out & (own == member)
            sums += tl.where(members == member, tl.sum(tl.where(mine[:, None], value, 0.0), axis=0)[None, :], 0.0)
    return sums, counts


@triton.jit
def store_sums(Sums, sums, columns, D, SIZE: tl.constexpr):
    """Write a block of columns of the sums of this program's chunk."""
    place = (tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE))[:, None] * D + columns[None, :]
    tl.store(Sums + place, sums, mask=(columns < D)[None, :])


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
        places = at + tl.arange(0, ROWS)
        some = places < last
        points = tl.load(Order + places, mask=some, other=0)
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
    store_sums(Sums, sums, columns, D, SIZE)
    tl.store(Counts + tl.program_id(0).to(tl.int64) * SIZE + members, tl.sum(counts, axis=1))
    tl.store(Inertia + tl.program_id(0), tl.sum(inertia, axis=0))


@triton.jit(do_not_specialize=["groups", "K"])
def assign_looped(X, C, PointNorms, Centre, Largest, First, Second, Offsets, Bounds, Order, Starts, FirstChunks, Labels,
                  Factors, Inertia, groups, K, D, width, METRIC: tl.constexpr, SIZE: tl.constexpr, ACROSS: tl.constexpr,
                  TOGETHER: tl.constexpr, CHUNK: tl.constexpr, PLACES: tl.constexpr, ROWS: tl.constexpr,
                  BLOCK_D: tl.constexpr):  # fmt: skip
    """Labels and inertia of a chunk, BLOCK_D columns at a time; and each point's factor, negative far outside the frame."""
    group, start, last = chunk_of(FirstChunks, Starts, groups, CHUNK, PLACES)
    ids = group_rows(group, tl.arange(0, SIZE), SIZE, ACROSS, TOGETHER)
    offset = tl.load(Offsets + ids)
    inertia = tl.zeros([ROWS], tl.float32)
    for at in range(start, last, ROWS):
        places = at + tl.arange(0, ROWS)
        some = places < last
        points = tl.load(Order + places, mask=some, other=0)
        squares, factor, norm, error, far_out = point_of(X, PointNorms, Largest, points, some, D, METRIC, ROWS, BLOCK_D)
        inner = tl.where(some & (far_out == 0), factor, 0.0)
        key = tl.zeros([ROWS, SIZE], tl.float32) + offset[None, :]
        for block in range(0, width, BLOCK_D):
            columns = block + tl.arange(0, BLOCK_D)
            place, inside = ids[:, None] * width + columns[None, :], (columns < width)[None, :]
            first_rows, second_rows = tl.load(First + place, mask=inside, other=0.0), tl.load(Second + place, mask=inside, other=0.0)
            first, second = halves(framed(loaded(X, points, some, columns, D), Centre, columns, inner, D, METRIC))
            product = tl.dot(first, tl.trans(second_rows), tl.dot(second, tl.trans(first_rows)))
            key -= tl.dot(first, tl.trans(first_rows), product * SECOND)
        own, cost = decide(key, norm, error, Bounds, Largest, X, C, points, some, group, squares, K, D, METRIC, SIZE, ACROSS, TOGETHER,
                           ROWS, BLOCK_D // 2 if BLOCK_D > 64 else BLOCK_D)  # fmt: skip
        tl.store(Labels + points, group_rows(group, own, SIZE, ACROSS, TOGETHER).to(tl.int32), mask=some)
        tl.store(Factors + points, tl.where(far_out, 0.0 - factor, factor), mask=some)
        inertia += cost
    tl.store(Inertia + tl.program_id(0), tl.sum(inertia, axis=0))


@triton.jit(do_not_specialize=["groups"])
def sums_looped(X, Centre, Order, Starts, FirstChunks, Labels, Factors, Sums, Counts, groups, D, METRIC: tl.constexpr,
                SIZE: tl.constexpr, ACROSS: tl.constexpr, TOGETHER: tl.constexpr, CHUNK: tl.constexpr, PLACES: tl.constexpr,
                ROWS: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    """Sums of a chunk (first grid axis) over BLOCK_D columns (second), by the labels, and counts."""
    _, start, last = chunk_of(FirstChunks, Starts, groups, CHUNK, PLACES)
    columns = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    sums = tl.zeros([SIZE, BLOCK_D], tl.float32)
    counts = tl.zeros([SIZE, ROWS], tl.int32)
    for at in range(start, last, ROWS):
        places = at + tl.arange(0, ROWS)
        some = places < last
        points = tl.load(Order + places, mask=some, other=0)
        own = member_of(tl.load(Labels + points, mask=some, other=0), SIZE, ACROSS, TOGETHER)
        factor = tl.load(Factors + points, mask=some, other=0.0)
        first, second = halves(framed(loaded(X, points, some, columns, D), Centre, columns, tl.maximum(factor, 0.0), D, METRIC))
        far_out, factor = factor < 0, tl.abs(factor)
        sums, counts = with_sums(sums, counts, first, second, own, some, far_out, X, Centre, points, columns, factor, D, METRIC, SIZE)
    store_sums(Sums, sums, columns, D, SIZE)
    if tl.program_id(1) == 0:
        tl.store(Counts + tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE), tl.sum(counts, axis=1))


@triton.jit(do_not_specialize=["K"])
def means_kernel(Sums, Counts, FirstChunks, C, Centre, Largest, Means, Sizes, K, D, METRIC: tl.constexpr, SIZE: tl.constexpr,
                 ACROSS: tl.constexpr, TOGETHER: tl.constexpr, CHUNKS: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    """Mean and number of the points of one centroid (first grid axis), BLOCK_D columns (second) of it, from the chunks of its group."""
    row = tl.program_id(0)
    columns = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    group, member = group_of(row, SIZE, ACROSS, TOGETHER), member_of(row, SIZE, ACROSS, TOGETHER)
    last = tl.load(FirstChunks + group + 1)
    total = tl.zeros([BLOCK_D], tl.float64)
    count = 0
    for at in range(tl.load(FirstChunks + group), last, CHUNKS):
        chunks = at + tl.arange(0, CHUNKS)
        place, some = chunks.to(tl.int64) * SIZE + member, chunks < last
        count += tl.sum(tl.load(Counts + place, mask=some, other=0), axis=0)
        sums = tl.load(Sums + place[:, None] * D + columns[None, :], mask=some[:, None] & (columns < D)[None, :], other=0.0)
        total += tl.sum(sums.to(tl.float64), axis=0)
    inside, place = columns < D, row.to(tl.int64) * D + columns
    mean = total / tl.maximum(count, 1)
    if METRIC == L2:  # noqa: SIM108 - Triton would load either way
        mean = tl.load(Centre + columns, mask=inside, other=0.0) + mean / scale_of(tl.load(Largest))
    else:
        mean = mean / UNIT
    tl.store(Means + place, tl.where(count > 0, mean.to(tl.float32), tl.load(C + place, mask=inside, other=0.0)), mask=inside)
    if tl.program_id(1) == 0:
        tl.store(Sizes + row, count)
