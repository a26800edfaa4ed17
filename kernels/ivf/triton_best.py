"""The k best candidates of a stream, held in registers: each that is better than the worst of them takes its place.

Candidates are packed integers (see `kernels.packing`), all different, so that one can be told from another by its value alone. Places
that nothing has taken yet hold integers of their own behind every candidate: their keys are that of no row.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.packing.triton_packing import NOTHING, pick

LEAST = tl.constexpr(-(1 << 63))
"""What the places from k on hold: never the worst."""
NO_KEY = tl.constexpr(0x7FFFFFFF)


@triton.jit
def empty(k, K: tl.constexpr):
    """k empty places, of K."""
    place = tl.arange(0, K)
    return tl.where(place < k, NOTHING - 1 - place.to(tl.int64), LEAST)


@triton.jit
def insert(held, worst, candidates):
    """The best of `held` and `candidates` [M], NOTHING where there is none, and the worst of them."""
    best = tl.min(candidates, axis=0)
    while best < worst:
        held = tl.where(held == worst, best, held)
        candidates = tl.where(candidates == best, NOTHING, candidates)
        worst = tl.max(held, axis=0)
        best = tl.min(candidates, axis=0)
    return held, worst


@triton.jit
def taken(held):
    """What was held, with NOTHING in empty places."""
    return tl.where((held == LEAST) | ((held >> 32).to(tl.int32) == NO_KEY), NOTHING, held)


@triton.jit
def ascending(held, k, K: tl.constexpr):
    """The k candidates that were held, the best first, NOTHING behind them."""
    return pick(taken(held), k, K)
