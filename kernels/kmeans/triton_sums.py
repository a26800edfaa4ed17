"""The sums of each centroid's points, by chunks of points that come sorted by group, and the means. See `kernels.kmeans.triton_impl`.

A chunk is at most CHUNK places of the sorted order, `Order`, all of one group. Its sums are a product of the labels, 0 or 1, with the
points in two halves; those of the chunks are added in their order, so that nothing depends on which program comes first.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.distance.triton_metric import L2
from kernels.filter.groups import group_of, member_of
from kernels.filter.prepare import UNIT, scale_of
from kernels.kmeans.triton_halves import SECOND, framed, halves, loaded


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
def points_at(Order, at, last, ROWS: tl.constexpr):
    """(points, whether there are any) at ROWS places from `at`, of those before `last`."""
    places = at + tl.arange(0, ROWS)
    some = places < last
    return tl.load(Order + places, mask=some, other=0), some


@triton.jit
def store_chunk(Sums, Counts, Inertia, sums, counts, inertia, columns, D, SIZE: tl.constexpr):
    """Write what a program found of its chunk (first grid axis) in a block of columns (second): counts are the same for each."""
    chunk, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    members = chunk * SIZE + tl.arange(0, SIZE)
    tl.store(Sums + members[:, None] * D + columns[None, :], sums, mask=(columns < D)[None, :])
    tl.store(Inertia + chunk * tl.num_programs(1) + block, tl.sum(inertia, axis=0))
    if block == 0:
        tl.store(Counts + members, tl.sum(counts, axis=1))


@triton.jit
def costs_of(x, C, own, some, columns, factor, first_columns, D, METRIC: tl.constexpr):
    """What these columns add to the inertia of points x, by direct differences to their own centroids."""
    c = loaded(C, own, some, columns, D)
    if METRIC == L2:
        return tl.sum((x - c) * (x - c), axis=1)
    part = tl.sum(x * c, axis=1) * (factor * (-1.0 / UNIT))
    return tl.where(some & first_columns, 1.0 + part, part)


@triton.jit(do_not_specialize=["groups"])
def sums_kernel(X, C, Centre, Order, Starts, FirstChunks, Labels, Factors, Errors, Sums, Counts, Inertia, groups, D,
                METRIC: tl.constexpr, SIZE: tl.constexpr, ACROSS: tl.constexpr, TOGETHER: tl.constexpr, CHUNK: tl.constexpr,
                PLACES: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    """Sums, counts and inertia [chunks, blocks of columns] of a chunk (first grid axis) over BLOCK_D columns (second), by the labels."""
    _, start, last = chunk_of(FirstChunks, Starts, groups, CHUNK, PLACES)
    columns = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    sums = tl.zeros([SIZE, BLOCK_D], tl.float32)
    counts = tl.zeros([SIZE, ROWS], tl.int32)
    inertia = tl.zeros([ROWS], tl.float32)
    for at in range(start, last, ROWS):
        points, some = points_at(Order, at, last, ROWS)
        label = tl.load(Labels + points, mask=some, other=0).to(tl.int64)
        factor = tl.load(Factors + points, mask=some, other=0.0)
        far_out = (tl.load(Errors + points, mask=some, other=0.0) < float("inf")) == 0
        x = loaded(X, points, some, columns, D)
        inertia += costs_of(x, C, label, some, columns, factor, tl.program_id(1) == 0, D, METRIC)
        first, second = halves(framed(x, Centre, columns, tl.where(far_out, 0.0, factor), D, METRIC))
        own = member_of(label, SIZE, ACROSS, TOGETHER)
        sums, counts = with_sums(sums, counts, first, second, own, some, far_out, X, Centre, points, columns, factor, D, METRIC, SIZE)
    store_chunk(Sums, Counts, Inertia, sums, counts, inertia, columns, D, SIZE)


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
