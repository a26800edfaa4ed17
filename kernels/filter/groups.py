"""Which rows a group has, and how far its least key may be from what the filter found. See `kernels.filter`."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl

from kernels.distance.triton_metric import L1, L2
from kernels.filter import ACCUMULATION, EXACTLY, NARROW, ROUNDING

STEP = tl.constexpr(ACCUMULATION)
ONCE = tl.constexpr(ROUNDING)
NARROW = tl.constexpr(NARROW)
EXACTLY = tl.constexpr(EXACTLY)


@dataclass(frozen=True)
class Grouping:
    """Groups of `size` rows, `across` of them interleaved, each with `together` neighbouring rows at a time."""

    size: int
    across: int
    together: int

    @property
    def constants(self) -> dict[str, int]:
        """The same as the kernels' compile-time constants."""
        return {"SIZE": self.size, "ACROSS": self.across, "TOGETHER": self.together}


@triton.jit
def group_rows(group, member, SIZE: tl.constexpr, ACROSS: tl.constexpr, TOGETHER: tl.constexpr):
    """The row (64-bit) of each `member` (0 to SIZE - 1) of groups; may lie beyond the last row."""
    block = (group // ACROSS).to(tl.int64) * (SIZE * ACROSS)
    return block + member // TOGETHER * (ACROSS * TOGETHER) + group % ACROSS * TOGETHER + member % TOGETHER


@triton.jit
def group_of(row, SIZE: tl.constexpr, ACROSS: tl.constexpr, TOGETHER: tl.constexpr):
    """The group that a row is in: with `member_of` the inverse of `group_rows`."""
    return row // (SIZE * ACROSS) * ACROSS + row % (ACROSS * TOGETHER) // TOGETHER


@triton.jit
def member_of(row, SIZE: tl.constexpr, ACROSS: tl.constexpr, TOGETHER: tl.constexpr):
    """Which member of its group a row is."""
    return row % (SIZE * ACROSS) // (ACROSS * TOGETHER) * TOGETHER + row % TOGETHER


@triton.jit
def roundings(D):
    """Roundings that a float32 sum over D columns goes through, block by block and pairwise within, and those around it."""
    return tl.minimum(D, 16) + D // 64 + 4


@triton.jit
def radius_of(minimum, query_norm, query_error, norm, error, D, METRIC: tl.constexpr):
    """How far the exact least key of a group may be from `minimum`; infinite or NaN where nothing is known."""
    radius = tl.zeros_like(minimum)
    if METRIC == L1:
        radius += tl.where(minimum < float("inf"), minimum * ((D + 4) * ONCE), 0.0)
    else:
        radius += query_norm * error + query_error * (norm + error) + query_norm * norm * (roundings(D) * ONCE)
        if D >= NARROW:
            radius += query_norm * norm * ((tl.minimum(D, EXACTLY) // 16 + 1) * STEP)
        if METRIC == L2:
            radius += 0.5 * norm * norm * (roundings(D) * ONCE)
    return radius
