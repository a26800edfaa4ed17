"""Candidates in Triton: see `kernels.packing`."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.packing import NONE

NOTHING = tl.constexpr(NONE)


@triton.jit
def flipped(bits):
    """The bits of a float32 as an integer that sorts as it does; its own inverse."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def pack(key, row, valid):
    """Candidates of float32 keys and rows (64-bit, below 2^32); NOTHING where not valid."""
    key = tl.where(key != key, float("inf"), key)
    return tl.where(valid, (flipped(key.to(tl.int32, bitcast=True)).to(tl.int64) << 32) | row, NOTHING)


@triton.jit
def unpack(packed):
    """(keys, rows) of candidates; infinite and -1 for NOTHING."""
    key = flipped((packed >> 32).to(tl.int32)).to(tl.float32, bitcast=True)
    none = packed == NOTHING
    return tl.where(none, float("inf"), key), tl.where(none, -1, packed & 0xFFFFFFFF)


@triton.jit
def pick(values, k, K: tl.constexpr):
    """The k smallest of different candidates, ascending, as [K] with NOTHING behind them."""
    picked = tl.full([K], NOTHING, tl.int64)
    for place in range(0, k):
        best = tl.min(values, axis=0)
        picked = tl.where(tl.arange(0, K) == place, best, picked)
        values = tl.where(values == best, NOTHING, values)
    return picked
