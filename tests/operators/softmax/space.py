"""Block spaces: rows a chunk on the CPU, columns a step in Triton."""

from __future__ import annotations

from typing import Any

from kernels.contract import Block, Space


def _no_wider(problem: Any, block: Block) -> str | None:
    if block["BLOCK_COLUMNS"] > 256 and block["BLOCK_COLUMNS"] >= 4 * problem.columns:
        return f"BLOCK_COLUMNS = {block['BLOCK_COLUMNS']} is four times the {problem.columns} columns or more"
    return None


NUMPY = Space(axes={"ROWS": (64, 1024)}, default={"ROWS": 64})
TORCH = Space()
TRITON = Space(
    axes={"BLOCK_COLUMNS": (128, 256, 512), "num_warps": (1, 4)},
    default={"BLOCK_COLUMNS": 256, "num_warps": 4},
    rule=_no_wider,
    powers_of_two=frozenset({"BLOCK_COLUMNS", "num_warps"}),
)
