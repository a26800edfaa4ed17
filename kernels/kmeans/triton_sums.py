"""Labels, and sums of each centroid's points, by pieces of the points as they come sorted by group. See `kernels.kmeans.triton_impl`.

A piece is CHUNK places of the sorted order `Order`, whatever groups it spans. As groups only rise from place to place, piece + group
is another number for each group of each piece: the place of its sums. A piece adds up float32 values in a fixed order, means add up
those of the pieces in theirs in float64, so nothing depends on which program comes first.

For l2 what is added up are differences to the first centroid of the group, so that no digit is lost to an offset that all points share.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.distance.triton_metric import COSINE, L2
from kernels.filter.prepare import UNIT
from kernels.kmeans.triton_halves import loaded, part_of_keys
from kernels.kmeans.triton_labels import centroid_of, group_with, member_with

APART = tl.constexpr(4)
"""Rows of a tile that lie in one thread, where it has a warp for every fourth."""


@triton.jit(do_not_specialize=["N", "groups"])
def starts_kernel(Sorted, Starts, N, groups, BLOCK: tl.constexpr):
    """Where each group starts among the sorted points [groups + 1], by halving."""
    group = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    low = tl.zeros([BLOCK], tl.int32)
    high = low + N
    while tl.max(high - low, axis=0) > 0:
        middle = low + (high - low) // 2
        open_ = low < high
        above = tl.load(Sorted + middle, mask=open_, other=0).to(tl.int32) >= group
        low, high = tl.where(open_ & (above == 0), middle + 1, low), tl.where(open_ & above, middle, high)
    tl.store(Starts + group, low, mask=group <= groups)


@triton.jit
def decided(x, rows, ids, some, K, METRIC: tl.constexpr, SIZE: tl.constexpr, ROWS: tl.constexpr):
    """(member, key) of the nearest to each point x of the SIZE centroids `rows` of its group, by direct keys; of equals the first."""
    least = tl.full([ROWS], float("inf"), tl.float32)
    own = tl.zeros([ROWS], tl.int32)
    for member in tl.static_range(SIZE):
        key = part_of_keys(x, rows[member][None, :], 1, METRIC)
        nearer = (key < least) & (ids[member] < K)
        own, least = tl.where(nearer, member, own), tl.where(nearer, key, least)
    return tl.where(some, own, SIZE), tl.where(some, least, 0.0)


@triton.jit
def members_of(C, group, columns, K, D, SIZE: tl.constexpr):
    """(ids, rows) of the SIZE centroids of a group; zeros beyond the last."""
    ids, rows = (), ()  # type: tuple, tuple
    for member in tl.static_range(SIZE):
        id = centroid_of(group, member, SIZE)
        ids += (id,)
        rows += (tl.load(C + id * D + columns, mask=(columns < D) & (id < K), other=0.0),)
    return ids, rows


@triton.jit
def divided(x, own, sums, counts, SIZE: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):
    """Sums and counts of each member, with points x that have it for their own."""
    more, many = (), ()  # type: tuple, tuple
    for member in tl.static_range(SIZE):
        mine = own == member
        value = tl.reshape(tl.where(mine[:, None], x, 0.0), [APART, ROWS // APART, BLOCK_D])
        more += (sums[member] + tl.sum(value, axis=0),)
        many += (counts[member] + mine.to(tl.int32),)
    return more, many


@triton.jit
def alone(x, row, some, METRIC: tl.constexpr):
    """What columns x of points add to the sum of their centroid, whose columns are `row`, and to the inertia but for cosine's ones."""
    if METRIC == L2:
        x = tl.where(some[:, None], x - row[None, :], 0.0)
        return x, x * x
    else:
        return x, 0.0 - x * row[None, :]


@triton.jit(do_not_specialize=["N", "K"])
def sums_kernel(X, C, Factors, Sorted, Order, Starts, Labels, Sums, Counts, Inertia, N, K, D, METRIC: tl.constexpr, SIZE: tl.constexpr,
                CHUNK: tl.constexpr, ROWS: tl.constexpr, STAGES: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    """Sums [pieces + groups, SIZE, D], counts and inertia [pieces, blocks] of a piece (first grid axis) over BLOCK_D columns (second).

    Where a group is more than one centroid, BLOCK_D columns are all, and the labels are decided here.
    """
    piece, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    columns = block * BLOCK_D + tl.arange(0, BLOCK_D)
    at = tl.maximum(tl.program_id(0) * CHUNK, tl.load(Starts))  # points without a group come first
    end = tl.minimum(tl.program_id(0) * CHUNK + CHUNK, N)
    inertia = tl.zeros([ROWS], tl.float32)
    if METRIC == COSINE:
        inertia += tl.where((block == 0) & (tl.arange(0, ROWS) == 0), tl.maximum(end - at, 0), 0)
    while at < end:
        group = tl.load(Sorted + at).to(tl.int64)
        last = tl.minimum(tl.load(Starts + group + 1), end)
        ids, rows = members_of(C, group, columns, K, D, SIZE)
        sums, counts = (), ()  # type: tuple, tuple
        for _ in tl.static_range(SIZE):
            sums += (tl.zeros([ROWS if SIZE == 1 else ROWS // APART, BLOCK_D], tl.float32),)
            counts += (tl.zeros([ROWS], tl.int32),)
        costs = tl.zeros([ROWS, BLOCK_D] if SIZE == 1 else [ROWS], tl.float32)
        for start in tl.range(at, last, ROWS, num_stages=STAGES):
            places = start + tl.arange(0, ROWS)
            some = places < last
            points = tl.load(Order + places, mask=some, other=0)
            x = loaded(X, points, some, columns, D)
            if METRIC == COSINE:
                x *= (tl.load(Factors + points, mask=some, other=0.0) * (1.0 / UNIT))[:, None]
            if SIZE == 1:
                value, cost = alone(x, rows[0], some, METRIC)
                costs += cost
                sums, counts = (sums[0] + value,), (counts[0] + some.to(tl.int32),)
            else:
                own, cost = decided(x, rows, ids, some, K, METRIC, SIZE, ROWS)
                costs += cost
                tl.store(Labels + points, centroid_of(group, own, SIZE).to(tl.int32), mask=some)
                sums, counts = divided(x - rows[0][None, :] if METRIC == L2 else x, own, sums, counts, SIZE, ROWS, BLOCK_D)
        for member in tl.static_range(SIZE):
            place = (piece + group) * SIZE + member
            tl.store(Sums + place * D + columns, tl.sum(sums[member], axis=0), mask=columns < D)
            tl.store(Counts + place, tl.sum(counts[member], axis=0))
        inertia += tl.sum(costs, axis=1) if SIZE == 1 else costs
        at = last
    tl.store(Inertia + piece * tl.num_programs(1) + block, tl.sum(inertia, axis=0))


@triton.jit
def means_kernel(Sums, Counts, Starts, C, Means, Sizes, D, METRIC: tl.constexpr, SIZE: tl.constexpr, CHUNK: tl.constexpr,
                 PIECES: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    """Mean and number of the points of one centroid (first grid axis), BLOCK_D columns (second) of it; without points it stays."""
    row = tl.program_id(0).to(tl.int64)
    group, member = group_with(row, SIZE), member_with(row, SIZE)
    columns = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    start, end = tl.load(Starts + group), tl.load(Starts + group + 1)
    total = tl.zeros([BLOCK_D], tl.float64)
    count = 0
    for piece in range(start // CHUNK, tl.cdiv(end, CHUNK), PIECES):
        pieces = piece + tl.arange(0, PIECES)
        some = (pieces * CHUNK < end) & (end > start)
        place = (pieces + group) * SIZE + member
        count += tl.sum(tl.load(Counts + place, mask=some, other=0), axis=0)
        sums = tl.load(Sums + place[:, None] * D + columns[None, :], mask=some[:, None] & (columns < D)[None, :], other=0.0)
        total += tl.sum(sums.to(tl.float64), axis=0)
    inside, place = columns < D, row * D + columns
    c = tl.load(C + place, mask=inside, other=0.0)
    mean = total / tl.maximum(count, 1)
    if METRIC == L2:
        mean += tl.load(C + centroid_of(group, 0, SIZE) * D + columns, mask=inside & (count > 0), other=0.0)
    tl.store(Means + place, tl.where(count > 0, mean.to(tl.float32), c), mask=inside)
    if tl.program_id(1) == 0:
        tl.store(Sizes + row, count)
