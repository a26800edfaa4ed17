"""The k smallest, and not many more, of long rows or segments of them, which a program reads twice: for minima, then for all below.

The second reading is the cheap part only as long as it has no barriers. So each lane (a column of the matrices that a program
reads) writes what it finds to slots of its own, and these are moved together at the end.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.packing.triton_packing import NOTHING
from kernels.topk.triton_keys import LAST, first_bound, load, middle, pack, store_some


@triton.jit
def minima(X, length, ROWS: tl.constexpr, LANES: tl.constexpr, PACKED: tl.constexpr, LARGEST: tl.constexpr):
    """The smallest keys of the elements whose number is the same modulo ROWS x LANES."""
    step, lane = tl.arange(0, ROWS)[:, None] * LANES, tl.arange(0, LANES)[None, :]
    least = tl.full([ROWS, LANES], LAST, tl.int32)
    for start in range(0, length, ROWS * LANES):
        key, _ = load(X + start, step, lane, start, length - start, PACKED, LARGEST)
        least = tl.minimum(least, key)
    return least


@triton.jit
def deal(X, first, length, high, Slots, DEPTH: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr,
         PACKED: tl.constexpr, LARGEST: tl.constexpr):  # fmt: skip
    """Write the elements that do not exceed `high` to Slots [DEPTH, LANES], each to its lane's next; how many each lane has.

    What a lane has beyond DEPTH is counted, but not written.
    """
    step, lane = tl.arange(0, ROWS)[:, None] * LANES, tl.arange(0, LANES)[None, :]
    in_lane = tl.zeros([LANES], tl.int32)
    for start in range(0, length, ROWS * LANES):
        key, id = load(X + start, step, lane, first + start, length - start, PACKED, LARGEST)
        slot = in_lane[None, :] + tl.cumsum((key <= high).to(tl.int32), axis=0)  # counted from 1
        store_some((Slots - LANES + lane) + slot.to(tl.int64) * LANES, pack(key, id), (key <= high) & (slot <= DEPTH))
        in_lane = tl.max(slot, axis=0)
    return in_lane


@triton.jit
def gather(Slots, in_lane, List, ROWS: tl.constexpr, LANES: tl.constexpr):
    """Move what `deal` wrote to List, without gaps."""
    row, lane = tl.arange(0, ROWS)[:, None], tl.arange(0, LANES)[None, :]
    before = (tl.cumsum(in_lane, axis=0) - in_lane)[None, :]
    for top in range(0, tl.max(in_lane), ROWS):
        there = top + row < in_lane[None, :]
        packed = tl.load(Slots + (top + row) * LANES + lane, mask=there)
        store_some(List + before + top + row, packed, there)


@triton.jit
def strictly(X, start, first, length, limit, ROWS: tl.constexpr, LANES: tl.constexpr, PACKED: tl.constexpr, LARGEST: tl.constexpr):
    """The packed elements from `start` on, and which of them there are and are less than `limit`."""
    step, lane = tl.arange(0, ROWS)[:, None] * LANES, tl.arange(0, LANES)[None, :]
    key, id = load(X + start, step, lane, first + start, length - start, PACKED, LARGEST)
    packed = pack(key, id)
    return packed, (packed < limit) & (lane < length - start - step)


@triton.jit
def exact(X, first, length, low, high, List, k, width, ROWS: tl.constexpr, LANES: tl.constexpr, PACKED: tl.constexpr,
          LARGEST: tl.constexpr):  # fmt: skip
    """Write k to `width` of the smallest elements to List by bisection over all, a reading a step; how many, and what fills it up to k.

    Fewer than k elements are less than `low`, and at least k less than `high` if there are so many.
    """
    found = width + 1
    while (found > width) & (low + 1 < high):
        between = middle(low, high)
        in_lane = tl.zeros([LANES], tl.int32)
        for start in range(0, length, ROWS * LANES):
            _, taken = strictly(X, start, first, length, between, ROWS, LANES, PACKED, LARGEST)
            in_lane += tl.sum(taken.to(tl.int32), axis=0)
        below = tl.sum(in_lane)
        enough = below >= k
        found = tl.where(enough, below, found)
        low, high = tl.where(enough, low, between), tl.where(enough, between, high)
    # too many are left where equal elements are the k-th smallest: those are `low`; or where `high` was never enough
    limit = tl.where((found > width) & (high != NOTHING), low, high)
    found = tl.cast(0, tl.int32)
    for start in range(0, length, ROWS * LANES):
        packed, taken = strictly(X, start, first, length, limit, ROWS, LANES, PACKED, LARGEST)
        in_lane = tl.sum(taken.to(tl.int32), axis=0)
        place = found + (tl.cumsum(in_lane, axis=0) - in_lane)[None, :] + tl.cumsum(taken.to(tl.int32), axis=0)  # counted from 1
        store_some(List - 1 + place, packed, taken)
        found += tl.sum(in_lane)
    return found, limit


@triton.jit(do_not_specialize=["M", "k", "width", "segments"], do_not_specialize_on_alignment=["X", "Lists", "Slots"])
def topk_stream(X, Lists, Slots, M, k, width, segments, ROWS: tl.constexpr, LANES: tl.constexpr, BUCKETS: tl.constexpr,
                KEPT: tl.constexpr, ROOM: tl.constexpr, DEPTH: tl.constexpr, PACKED: tl.constexpr, LARGEST: tl.constexpr):  # fmt: skip
    """A list of `width` <= ROOM candidates, k smallest and some more, of each of the `segments` equal segments of a row of M.

    Slots is scratch of DEPTH x LANES a segment. Where lanes have more than DEPTH below the bound by minima, or the list has no
    room for all, the slow way is taken: exact for any data. So it is where NaN is among the k smallest, since segments are longer
    than lists: what `load` gives beyond the segment, NaN as well, is taken by the quick way alone.
    """
    place = tl.program_id(0).to(tl.int64)
    row, segment = tl.program_id(0) // segments, tl.program_id(0) % segments
    length, rest = M // segments, M % segments
    first = segment * length + tl.minimum(segment, rest)
    length += (segment < rest).to(tl.int32)
    X += row.to(tl.int64) * M + first
    List, Slots = Lists + place * width, Slots + place * DEPTH * LANES
    high, low = first_bound(minima(X, length, ROWS, LANES, PACKED, LARGEST), k, BUCKETS, KEPT)
    in_lane = deal(X, first, length, high, Slots, DEPTH, ROWS, LANES, PACKED, LARGEST)
    found, fill = tl.sum(in_lane), tl.cast(NOTHING, tl.int64)
    if (tl.max(in_lane) <= DEPTH) & (found <= width):
        tl.debug_barrier()  # slots are read that other threads may have written
        gather(Slots, in_lane, List, ROWS, LANES)
    else:
        none = (low + 1).to(tl.int64) << 32
        enough = tl.where(found >= k, (high + 1).to(tl.int64) << 32, NOTHING)
        found, fill = exact(X, first, length, none, enough, List, k, width, ROWS, LANES, PACKED, LARGEST)
    slot = tl.arange(0, ROOM)
    tl.store(List + slot, tl.where(slot < k, fill, NOTHING), mask=(slot >= found) & (slot < width))
