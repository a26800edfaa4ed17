"""Block spaces of the matrix product: the tile of C that a program computes, and the slice of K that it takes at a step."""

from __future__ import annotations

from typing import Any

from kernels.contract import Block, Space

MOST_SHARED = 227 << 10
"""Bytes of shared memory of a block on the GPU that has most (sm_90); the compile stage prunes what a smaller one cannot hold."""
WARP = 32
SIZE = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes of an element."""


def _triton_rule(problem: Any, block: Block) -> str | None:
    threads = WARP * block["num_warps"]
    accumulators = block["BLOCK_M"] * block["BLOCK_N"] // threads
    if accumulators > 128:
        return f"{accumulators} accumulators a thread, and it has 255 registers"
    stage = (block["BLOCK_M"] + block["BLOCK_N"]) * block["BLOCK_K"] * SIZE[problem.dtype]
    if block["num_stages"] * stage > MOST_SHARED:
        return f"{block['num_stages']} stages of {stage:,} B exceed the {MOST_SHARED:,} B of shared memory"
    if block["BLOCK_K"] < 16:
        return "a step of Triton's matrix product takes at least 16 of K"
    if problem.precision == "fp32" and block["BLOCK_K"] > 32:
        return "in fp32 a thread holds its operands of a whole step in registers"
    return None


TRITON = Space(
    axes={
        "BLOCK_M": (64, 128),
        "BLOCK_N": (64, 128, 256),
        "BLOCK_K": (32, 64),
        "GROUP_M": (1, 8),
        "num_warps": (4, 8),
        "num_stages": (3, 4),
    },
    default={"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 32, "GROUP_M": 8, "num_warps": 8, "num_stages": 3},
    rule=_triton_rule,
    powers_of_two=frozenset({"BLOCK_M", "BLOCK_N", "BLOCK_K", "num_warps"}),
)


def _cupy_rule(problem: Any, block: Block) -> str | None:
    if problem.precision == "bf16":
        return "CuPy has no bfloat16 arrays"
    odd = [axis for axis in ("BLOCK_M", "BLOCK_N") if block[axis] % 64]
    if odd:
        return f"{odd[0]} = {block[odd[0]]}: 16 threads take 4 neighbouring elements each, so a multiple of 64 is needed"
    if block["BLOCK_K"] * min(block["BLOCK_M"], block["BLOCK_N"]) % 256:
        return f"BLOCK_K = {block['BLOCK_K']}: 256 threads cannot share a slice of {min(block['BLOCK_M'], block['BLOCK_N'])} rows evenly"
    shared = 4 * block["BLOCK_K"] * (block["BLOCK_M"] + block["BLOCK_N"] + 8)
    if shared > 48 << 10:
        return f"{shared:,} B of shared memory exceed the 49,152 B that every GPU has"
    return None


CUPY = Space(
    axes={"BLOCK_M": (64, 128), "BLOCK_N": (64, 128), "BLOCK_K": (8, 16), "GROUP_M": (1, 8)},
    default={"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 8, "GROUP_M": 8},
    rule=_cupy_rule,
    powers_of_two=frozenset({"BLOCK_M", "BLOCK_N", "BLOCK_K"}),
)
