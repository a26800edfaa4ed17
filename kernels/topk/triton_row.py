"""The k smallest of rows short enough for a program to hold in registers, sorted."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.packing.triton_packing import NOTHING, flipped
from kernels.topk.triton_keys import LAST, bound, first_bound, load, pack, store_some


@triton.jit
def refine(key, id, low, high, k, most):
    """The bound `high` lowered until k to `most` elements do not exceed it, given a key below all.

    Where that many have the very key `high`, those of an id from `last` on get the key LAST; else `last` is LAST.
    """
    high, last = bound(key, low, high, k, most), tl.cast(LAST, tl.int32)
    under = tl.sum((key < high).to(tl.int32))
    if under + tl.sum((key == high).to(tl.int32)) > most:
        last = bound(tl.where(key == high, id, LAST), -1, LAST, k - under, most - under)
        key = tl.where((key == high) & (id >= last), LAST, key)
    return key, high, last


@triton.jit
def count(key, high):
    """How many elements of each column of a matrix do not exceed `high`, and how many in all."""
    in_lane = tl.sum((key <= high).to(tl.int32), axis=0)
    return in_lane, tl.sum(in_lane)


@triton.jit
def write_list(List, key, id, high, last, in_lane, found, k, ROOM: tl.constexpr):
    """Write the `found` elements that do not exceed `high`, `in_lane` of each column of the matrix, to List, and fill it up to ROOM.

    Where several elements are the k-th smallest, they fill it up to k, and else NOTHING does.
    """
    taken = (key <= high).to(tl.int32)
    place = (tl.cumsum(in_lane, axis=0) - in_lane)[None, :] + tl.cumsum(taken, axis=0)  # counted from 1
    store_some(List - 1 + place, pack(key, id), key <= high)
    slot = tl.arange(0, ROOM)
    fill = tl.where((slot < k) & (last != LAST), pack(high, last), NOTHING)
    tl.store(List + slot, fill, mask=slot >= found)


@triton.jit
def collect(X, length, List, k, TILE: tl.constexpr, LANES: tl.constexpr, BUCKETS: tl.constexpr, KEPT: tl.constexpr,
            ROOM: tl.constexpr, PACKED: tl.constexpr, LARGEST: tl.constexpr):  # fmt: skip
    """Write k to ROOM of the smallest of a row to List, or all where there are fewer; a key that none of them exceeds.

    Where more than ROOM lie below the bound by minima (many equal keys, or an order that puts the smallest into few buckets), the
    bisection goes on over all keys, and over the ids of equal ones, which are distinct: exact for any data, and slower.
    """
    step, lane = tl.arange(0, TILE // LANES)[:, None] * LANES, tl.arange(0, LANES)[None, :]
    key, id = load(X, step, lane, 0, length, PACKED, LARGEST)
    high, low = first_bound(key, k, BUCKETS, KEPT)
    in_lane, found = count(key, high)
    last = tl.cast(LAST, tl.int32)
    if found > ROOM:
        key, high, last = refine(key, id if PACKED else step + lane, low, high, k, ROOM)
        in_lane, found = count(key, high)
    write_list(List, key, id if PACKED else step + lane, high, last, in_lane, found, k, ROOM)
    return high


@triton.jit
def write(Packed, Values, Ids, row, packed, columns, k, SIZE: tl.constexpr, UNPACK: tl.constexpr, LARGEST: tl.constexpr):
    """The first k of sorted candidates as a row of the outputs: packed as they are, or values and ids.

    An id beyond the `columns` columns is that of no element: (worst, -1).
    """
    at = tl.arange(0, SIZE)
    if UNPACK:
        key, id = (packed >> 32).to(tl.int32), packed & 0xFFFFFFFF
        value = tl.where(id < columns, flipped(key).to(tl.float32, bitcast=True), float("inf"))
        value = 0.0 - value if LARGEST else value
        tl.store(Values + row * k + at, value.to(Values.dtype.element_ty), mask=at < k)
        tl.store(Ids + row * k + at, tl.where(id < columns, id, -1), mask=at < k)
    else:
        tl.store(Packed + row * k + at, packed, mask=at < k)


@triton.jit(do_not_specialize=["M", "columns", "k"], do_not_specialize_on_alignment=["X", "Lists"])
def topk_row(X, Lists, Packed, Values, Ids, M, columns, k, TILE: tl.constexpr, LANES: tl.constexpr, BUCKETS: tl.constexpr,
             KEPT: tl.constexpr, ROOM: tl.constexpr, SIZE: tl.constexpr, PACKED: tl.constexpr, LARGEST: tl.constexpr,
             UNPACK: tl.constexpr):  # fmt: skip
    """The k smallest of a row of M <= TILE elements. Lists is scratch of ROOM a row; SIZE of it, those that are sorted, hold the best."""
    row = tl.program_id(0).to(tl.int64)
    List = Lists + row * ROOM
    high = collect(X + row * M, M, List, k, TILE, LANES, BUCKETS, KEPT, ROOM, PACKED, LARGEST)
    tl.debug_barrier()  # what other threads wrote to the list is read
    if SIZE < ROOM:
        step, lane = tl.arange(0, ROOM // LANES)[:, None] * LANES, tl.arange(0, LANES)[None, :]
        key, id = load(List, step, lane, 0, ROOM, True, False)
        key, high, last = refine(key, id, tl.min(key) - 1, high, k, SIZE)
        in_lane, found = count(key, high)
        write_list(List, key, id, high, last, in_lane, found, k, SIZE)
        tl.debug_barrier()
    write(Packed, Values, Ids, row, tl.sort(tl.load(List + tl.arange(0, SIZE))), columns, k, SIZE, UNPACK, LARGEST)


@triton.jit(do_not_specialize=["M", "columns", "k"], do_not_specialize_on_alignment=["X", "Lists"])
def topk_sort(X, Packed, Values, Ids, M, columns, k, SIZE: tl.constexpr, PACKED: tl.constexpr, LARGEST: tl.constexpr, UNPACK: tl.constexpr):
    """The k smallest of a row of M <= SIZE elements by sorting it all."""
    row = tl.program_id(0).to(tl.int64)
    key, id = load(X + row * M, 0, tl.arange(0, SIZE), 0, M, PACKED, LARGEST)
    write(Packed, Values, Ids, row, tl.sort(pack(key, id)), columns, k, SIZE, UNPACK, LARGEST)
