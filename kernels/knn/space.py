"""Block spaces of the nearest-neighbour backends."""

from __future__ import annotations

from typing import Any

from kernels.contract import Block, Space
from kernels.distance.space import FEW, tile_rule, without_effect
from kernels.filter import FEW as FEW_RAW
from kernels.filter import NARROW

__all__ = ["CUPY", "FEW", "NUMPY", "TORCH", "TRITON"]

NUMPY = Space(axes={"ROWS": (256, 1024, 4096)}, default={"ROWS": 1024})
TORCH = Space(axes={"ROWS": (4096, 65536, 262144, 1048576)}, default={"ROWS": 262144})


REGISTERS = 65536
"""Registers of a multiprocessor."""
PICKED = 16
"""Neighbours of one query up to which a single launch finds them."""
_TRITON = {
    "BLOCK_Q": 128, "BLOCK_N": 128, "BLOCK_D": 64, "GROUP": 32, "HELD": 128, "SPAN": 16, "ELEMENTS": 8192,
    "num_warps": 8, "num_stages": 2, "maxnreg": 128,
}  # fmt: skip
_SINGLE, _FILTER = ("ELEMENTS",), ("BLOCK_Q", "BLOCK_N", "GROUP")


def triton_rule(problem: Any, block: Block) -> str | None:
    """Why a block cannot work, or differs from the default only in what the problem's kernel does not have."""
    if block["BLOCK_N"] < 4 * block["GROUP"]:
        return f"BLOCK_N = {block['BLOCK_N']} is less than four groups of {block['GROUP']}"
    if 32 * block["num_warps"] * block["maxnreg"] > REGISTERS:
        return f"{block['num_warps']} warps of {block['maxnreg']} registers a thread are more than {REGISTERS}"
    if problem.q == 1 and problem.k <= PICKED:
        unused: tuple[str, ...] = (*_FILTER, "BLOCK_D", "HELD", "SPAN", "num_stages")
    elif problem.metric == "l1" or problem.d < NARROW:
        unused = (*_SINGLE, "BLOCK_D", "HELD", "SPAN", "num_stages")
    else:
        width = problem.d * (2 if problem.q <= FEW_RAW else 1)
        unused = (*_SINGLE, "BLOCK_D" if width <= block["HELD"] else "SPAN")
        if (width <= block["HELD"]) == (width <= _TRITON["HELD"]):
            unused = (*unused, "HELD")
    return without_effect(problem, block, unused, _TRITON)


TRITON = Space(
    axes={
        "BLOCK_Q": (64, 128), "BLOCK_N": (128,), "BLOCK_D": (64,), "GROUP": (8, 32), "HELD": (128, 256), "SPAN": (16,),
        "ELEMENTS": (4096, 8192), "num_warps": (4, 8), "num_stages": (2, 3), "maxnreg": (128, 255),
    },
    default=_TRITON,
    rule=triton_rule,
    powers_of_two=frozenset({"BLOCK_Q", "BLOCK_N", "BLOCK_D", "GROUP", "SPAN", "ELEMENTS", "num_warps"}),
)  # fmt: skip

_CUPY = {"BLOCK_Q": 64, "BLOCK_N": 128, "BLOCK_D": 16}
CUPY = Space(
    axes={"BLOCK_Q": (32, 64, 128), "BLOCK_N": (32, 64, 128), "BLOCK_D": (8, 16, 32)},
    default=_CUPY,
    rule=tile_rule(_CUPY, ("BLOCK_Q", "BLOCK_D")),
    powers_of_two=frozenset({"BLOCK_Q", "BLOCK_N", "BLOCK_D"}),
)
