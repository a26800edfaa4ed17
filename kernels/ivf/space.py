"""Block spaces of the inverted file's backends.

Triton: BLOCK_Q queries of a list share a read of its rows; SPLIT programs share a list; GROUP rows have one bound; SELECT_WARPS warps
look at the bounds of a query.
"""

from __future__ import annotations

from typing import Any

from kernels.contract import Block, Space
from kernels.distance.space import FEW, without_effect

__all__ = ["CUPY", "FEW", "NUMPY", "TORCH", "TRITON"]

NUMPY = Space(axes={"QUERIES": (64, 512, 4096)}, default={"QUERIES": 512})
CUPY = Space(
    axes={"BATCH": (256, 512, 1024)},
    default={"BATCH": 512},
    rule=lambda problem, block: f"BATCH = {block['BATCH']} is less than the 256 threads" if block["BATCH"] < 256 else None,
    powers_of_two=frozenset({"BATCH"}),
)
TORCH = Space(axes={"ROWS": (16384, 65536, 262144)}, default={"ROWS": 65536})

_TRITON = {"BLOCK_Q": 32, "GROUP": 4, "SPLIT": 4, "SELECT_WARPS": 1, "num_stages": 2}


def _rule(problem: Any, block: Block) -> str | None:
    if block["BLOCK_Q"] < 16 or not 2 <= block["GROUP"] <= 16:
        return f"BLOCK_Q = {block['BLOCK_Q']} is less than 16, or GROUP = {block['GROUP']} not 2 to 16"
    return without_effect(problem, block, tuple(_TRITON), _TRITON) if problem.q < FEW else None


TRITON = Space(
    axes={"BLOCK_Q": (16, 32, 64), "GROUP": (2, 4), "SPLIT": (4,), "SELECT_WARPS": (1, 2), "num_stages": (2, 3)},
    default=_TRITON,
    rule=_rule,
    powers_of_two=frozenset({"BLOCK_Q", "GROUP", "SPLIT", "SELECT_WARPS"}),
)
