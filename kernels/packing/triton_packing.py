"""Candidates in Triton: see `kernels.packing`."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.packing import NONE

NOTHING = tl.constexpr(NONE)


@triton.jit
def pack(key, row, valid):
    """Candidates of float32 keys and rows (64-bit, below 2^32); NOTHING where not valid."""
    key = tl.where(key != key, float("inf"), key)
    bits = key.to(tl.int32, bitcast=True)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return tl.where(valid, (ordered.to(tl.int64) << 32) | row, NOTHING)
