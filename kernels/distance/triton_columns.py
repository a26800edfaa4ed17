"""Differences a column at a time, for l2 and l1, which no matrix product gives without cancelling: on operands that lie by columns.

A tile's operands of one column are then neighbours in memory. The tile has six axes, [EACH_Q, 4, EACH_N, 4, TQ, TN], of which Triton's
default layout gives the last two to the threads and the others to each thread's registers: with TQ x TN threads a thread holds
(4 EACH_Q) x (4 EACH_N) results and loads 4 EACH_Q + 4 EACH_N operands a column, four to an instruction. The results do not depend on it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

UNROLLED = tl.constexpr(4)
"""Columns a step: loads of later ones are under way while earlier ones are summed."""
REGISTERS = 128
"""Registers a thread, so that two blocks of 256 threads with 64 results each share a multiprocessor; what spills does so after the loop."""
CORNER = 64
"""Rows and columns that a program transposes."""


@triton.jit
def spread(EACH: tl.constexpr, THREADS: tl.constexpr):
    """The numbers below 4 EACH THREADS as [EACH, 4, THREADS]: each thread has runs of four, and neighbouring threads neighbouring runs."""
    runs = tl.arange(0, EACH)[:, None, None] * (4 * THREADS) + tl.arange(0, THREADS)[None, None, :] * 4
    return runs + tl.arange(0, 4)[None, :, None]


@triton.jit
def column_differences(X, Y, x_stride, y_stride, D, METRIC: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_N: tl.constexpr,
                       EACH_Q: tl.constexpr, EACH_N: tl.constexpr):  # fmt: skip
    """Sums of squared (METRIC 0, l2) or absolute differences of the vectors from X and Y on, which lie by columns: a tile of six axes.

    X and Y point at the first of BLOCK_Q and BLOCK_N vectors; columns are `x_stride` and `y_stride` apart; D is a multiple of UNROLLED
    (see `by_columns`). EACH_Q and EACH_N: see `shares`. `flat` makes [BLOCK_Q, BLOCK_N] of it.
    """
    x_at = X + spread(EACH_Q, BLOCK_Q // (4 * EACH_Q))[:, :, None, None, :, None]
    y_at = Y + spread(EACH_N, BLOCK_N // (4 * EACH_N))[None, None, :, :, None, :]
    total = tl.zeros([EACH_Q, 4, EACH_N, 4, BLOCK_Q // (4 * EACH_Q), BLOCK_N // (4 * EACH_N)], tl.float32)
    for _start in range(0, D, UNROLLED):
        for _ in tl.static_range(UNROLLED):
            difference = tl.load(x_at) - tl.load(y_at)
            total += difference * difference if METRIC == 0 else tl.abs(difference)
            x_at += x_stride
            y_at += y_stride
    return total


@triton.jit
def flat(tile, BLOCK_Q: tl.constexpr, BLOCK_N: tl.constexpr):
    """A tile of six axes as [BLOCK_Q, BLOCK_N]. What is elementwise comes before: after it, addresses take the registers."""
    return tl.reshape(tl.permute(tile, (0, 4, 1, 2, 5, 3)), [BLOCK_Q, BLOCK_N])


def shares(block_q: int, block_n: int, num_warps: int) -> dict[str, int]:
    """EACH_Q and EACH_N of `column_differences` for a tile of 16, 32 or 64 results a thread."""
    fours = block_q * block_n // (32 * num_warps * 16)
    return {"EACH_Q": min(fours, 2), "EACH_N": max(fours // 2, 1)}


@triton.jit(do_not_specialize=["N", "depth"])
def transpose(Rows, Columns, N, D, depth, stride, CORNER: tl.constexpr):
    """CORNER rows and columns of Rows [N, D] into Columns [depth, stride], with zeros around."""
    across = tl.cdiv(depth, CORNER)
    rows = (tl.program_id(0) // across).to(tl.int64) * CORNER + tl.arange(0, CORNER)
    columns = tl.program_id(0) % across * CORNER + tl.arange(0, CORNER)
    values = tl.load(Rows + rows[:, None] * D + columns[None, :], mask=(rows < N)[:, None] & (columns < D)[None, :], other=0.0)
    place = Columns + columns[:, None].to(tl.int64) * stride + rows[None, :]
    tl.store(place, tl.trans(values.to(tl.float32)), mask=(columns < depth)[:, None] & (rows < stride)[None, :])


def by_columns(rows: torch.Tensor, block: int) -> torch.Tensor:
    """`rows` [N, D] as float32 [depth, stride]: column d of all rows together, then zeros, which change no sum of differences.

    `stride` is N rounded up to a multiple of `block` (itself one of 16), and `depth` is D rounded up to a multiple of UNROLLED.
    """
    n, d = rows.shape
    depth, stride = triton.cdiv(d, UNROLLED.value) * UNROLLED.value, triton.cdiv(n, block) * block
    columns = torch.empty((depth, stride), dtype=torch.float32, device=rows.device)
    grid = triton.cdiv(stride, CORNER) * triton.cdiv(depth, CORNER)
    transpose[(grid,)](rows, columns, n, d, depth, stride, CORNER=CORNER)
    return columns
