"""Block spaces of the k-means backends."""

from __future__ import annotations

from typing import Any

from kernels.contract import Block, Space
from kernels.filter import NARROW

NUMPY = Space(axes={"ROWS": (256, 1024, 4096)}, default={"ROWS": 1024})
TORCH = Space(axes={"ROWS": (4096, 16384, 65536)}, default={"ROWS": 16384})

CUPY = Space(
    axes={"BLOCK_Q": (32, 64, 128), "BLOCK_N": (32, 64, 128), "BLOCK_D": (8, 16, 32)},
    default={"BLOCK_Q": 64, "BLOCK_N": 64, "BLOCK_D": 16},
    powers_of_two=frozenset({"BLOCK_Q", "BLOCK_N", "BLOCK_D"}),
)

WIDEST = 128
"""Columns up to which the Triton backend holds a point whole; beyond, products are summed a block of columns at a time."""


def triton_rule(problem: Any, block: Block) -> str | None:
    if block["BLOCK_Q"] * block["BLOCK_N"] > 128 * 32 * block["num_warps"]:
        return f"a product of {block['BLOCK_Q']} x {block['BLOCK_N']} takes more than half the registers of {block['num_warps']} warps"
    idle = set(TRITON.axes) - {"BLOCK_Q", "num_warps"} if problem.d < NARROW else {"GROUP"} if problem.d > WIDEST else set()
    changed = sorted(axis for axis in idle if block[axis] != TRITON.default[axis])
    return f"{changed[0]} is without effect for d = {problem.d}" if changed else None


TRITON = Space(
    axes={
        "BLOCK_Q": (64, 128), "BLOCK_N": (128, 256), "BLOCK_D": (64,), "GROUP": (2, 4), "ROWS": (32,), "CHUNK": (1024, 2048),
        "num_warps": (4, 8), "num_stages": (2, 3, 4),
    },
    default={"BLOCK_Q": 128, "BLOCK_N": 128, "BLOCK_D": 64, "GROUP": 2, "ROWS": 32, "CHUNK": 1024, "num_warps": 4, "num_stages": 2},
    rule=triton_rule,
    powers_of_two=frozenset({"BLOCK_Q", "BLOCK_N", "BLOCK_D", "GROUP", "ROWS", "CHUNK", "num_warps"}),
)  # fmt: skip
