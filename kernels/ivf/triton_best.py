"""The k best candidates of a stream, held in registers: each that is better than the worst of them takes its place.

Candidates are packed integers (see `kernels.packing`), all different, so that one can be told from another by its value alone. Places
that nothing has taken yet hold integers of their own behind every candidate: their keys are that of no row.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.distance.triton_metric import distance_of
from kernels.packing.triton_packing import NOTHING

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
    held = taken(held)
    result = tl.full([K], NOTHING, tl.int64)
    for place in range(0, k):
        best = tl.min(held, axis=0)
        result = tl.where(tl.arange(0, K) == place, best, result)
        held = tl.where(held == best, NOTHING, held)
    return result


@triton.jit
def write(Distances, Ids, query, held, k, METRIC: tl.constexpr, K: tl.constexpr):
    """Distances and ids of what was held, as row `query` of the outputs; infinitely far and -1 where nothing was."""
    best = ascending(held, k, K)
    high, none = (best >> 32).to(tl.int32), best == NOTHING
    key = (high ^ ((high >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)
    place = tl.arange(0, K)
    tl.store(Distances + query * k + place, distance_of(tl.where(none, float("inf"), key), METRIC), mask=place < k)
    tl.store(Ids + query * k + place, tl.where(none, -1, best & 0xFFFFFFFF), mask=place < k)
