"""Elements of a row in Triton as 32-bit keys and ids, and bisection over keys, by which everything here selects."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.packing.triton_packing import NOTHING, flipped
from kernels.topk import NAN as NAN_KEY

LAST = tl.constexpr(0x7FFFFFFF)
"""The key of no element: the upper half of NOTHING."""
NAN = tl.constexpr(NAN_KEY)


@triton.jit
def key_of(values, LARGEST: tl.constexpr):
    """Keys that sort as floats do, or the other way round where LARGEST; equal for both zeros, and after all others for NaN."""
    values = values.to(tl.float32)
    values = 0.0 - values if LARGEST else values + 0.0  # neither gives -0.0
    return tl.where(values != values, NAN, flipped(values.to(tl.int32, bitcast=True)))


@triton.jit
def load(X, step, lane, first, length, PACKED: tl.constexpr, LARGEST: tl.constexpr):
    """Keys and ids of the elements step + lane of `length` at X. Ids of floats are their columns, counted from `first`.

    What lies beyond is NOTHING, or NaN of a column beyond.
    """
    pointers, valid = X + lane + step, lane < length - step  # the compiler folds a step that it knows into the address
    if PACKED:
        packed = tl.load(pointers, mask=valid, other=NOTHING)
        return (packed >> 32).to(tl.int32), packed.to(tl.int32)
    return key_of(tl.load(pointers, mask=valid, other=float("nan")), LARGEST), lane + first + step


@triton.jit
def pack(key, id):
    """Candidates as `kernels.packing` has them."""
    return (key.to(tl.int64) << 32) | id.to(tl.uint32, bitcast=True).to(tl.int64)


@triton.jit
def store_some(pointers, values, mask):
    """Store some elements of a matrix: as a vector, since the compiler moves those of a matrix between threads first."""
    flat: tl.constexpr = [values.numel]
    tl.store(tl.reshape(pointers, flat), tl.reshape(values, flat), mask=tl.reshape(mask, flat))


@triton.jit
def middle(low, high):
    """(low + high) / 2, rounded down, without overflow."""
    return (low & high) + ((low ^ high) >> 1)


@triton.jit
def bound(x, low, high, k, most):
    """A number that at least k of x do not exceed and, if equal elements allow it, no more than `most`; by bisection.

    Fewer than k of x do not exceed `low`, at least k do not exceed `high`.
    """
    low, high, found = tl.cast(low, tl.int32), tl.cast(high, tl.int32), most + 1
    while (found > most) & (low + 1 < high):
        between = middle(low, high)
        below = tl.sum((x <= between).to(tl.int32))
        enough = below >= k
        found = tl.where(enough, below, found)
        low, high = tl.where(enough, low, between), tl.where(enough, between, high)
    return high


@triton.jit
def first_bound(key, k, BUCKETS: tl.constexpr, KEPT: tl.constexpr):
    """A key that at least k <= KEPT elements of a matrix do not exceed, and in most data few more; and a key below all.

    Counting all elements at each step of a bisection would cost more than reading them. So they are dealt out to BUCKETS, and
    the k-th smallest of the buckets' minima is sought, give or take a few: it bounds the k-th smallest of all. The search
    starts from the largest minimum of fewer, larger buckets.
    """
    ROWS: tl.constexpr = key.shape[0]
    LANES: tl.constexpr = key.shape[1]
    FEW: tl.constexpr = max(KEPT, LANES)
    least = tl.min(tl.reshape(key, [ROWS * LANES // BUCKETS, BUCKETS // LANES, LANES]), axis=0)
    few = tl.min(tl.reshape(least, [BUCKETS // FEW, FEW // LANES, LANES]), axis=0)
    low = tl.min(few) - 1
    return bound(least, low, tl.minimum(tl.max(few), LAST - 1), k, k + (k >> 5)), low
