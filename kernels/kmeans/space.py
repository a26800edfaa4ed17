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
    if block["GROUP"] > 32 and problem.d <= WIDEST:
        return f"GROUP = {block['GROUP']} is for points of more than {WIDEST} columns"
    if block["BLOCK_Q"] * 4 * block["GROUP"] > 128 * 32 * block["num_warps"]:
        return f"a product of {block['BLOCK_Q']} x {4 * block['GROUP']} takes more than half the registers of {block['num_warps']} warps"
    if problem.d < NARROW and block["num_stages"] > 2:
        return f"num_stages without effect for d = {problem.d}"
    return None


TRITON = Space(
    axes={
        "BLOCK_Q": (64, 128, 256), "BLOCK_D": (64,), "GROUP": (32, 64), "ROWS": (32, 64), "CHUNK": (512, 1024), "num_warps": (4, 8),
        "num_stages": (2, 3),
    },
    default={"BLOCK_Q": 128, "BLOCK_D": 64, "GROUP": 32, "ROWS": 64, "CHUNK": 512, "num_warps": 8, "num_stages": 2},
    rule=triton_rule,
    powers_of_two=frozenset({"BLOCK_Q", "BLOCK_D", "GROUP", "ROWS", "CHUNK", "num_warps"}),
)  # fmt: skip
