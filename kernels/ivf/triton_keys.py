"""Which group of rows is to be looked at next."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.packing.triton_packing import flipped

LAST = tl.constexpr(0x7FFFFFFF)
"""The ticket of no group."""
UNROLL = tl.constexpr(4)
"""Steps of columns that are read at once where few rows are scored, so that a row costs one wait for memory and few registers."""


@triton.jit
def tickets(low, COUNT: tl.constexpr):
    """Lower bounds [COUNT] as integers in the same order, all different: a bound rounded down to make room for its place below."""
    ordered = flipped(low.to(tl.int32, bitcast=True))
    return tl.where(low < float("inf"), (ordered & -COUNT) | tl.arange(0, COUNT), LAST)


@triton.jit
def promises(ticket, worst, COUNT: tl.constexpr):
    """Whether the group of a ticket may hold a row that is better than the candidate `worst`."""
    return (ticket != LAST) & ((ticket & -COUNT) <= ((worst >> 32).to(tl.int32) & -COUNT))
