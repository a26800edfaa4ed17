"""Block spaces of the top-k backends."""

from __future__ import annotations

from typing import Any

from kernels.contract import Block, Space

__all__ = ["CUPY", "NUMPY", "TORCH", "TRITON"]


def _no_bfloat16(problem: Any, block: Block) -> str | None:
    return "NumPy has no bfloat16" if problem.dtype == "bfloat16" else None


NUMPY = Space(rule=_no_bfloat16)
TORCH = Space()

_TRITON = {"TILE": 16384, "KEYS": 32, "REGISTERS": 128}


def _triton_rule(problem: Any, block: Block) -> str | None:
    """Leaves out tiles that differ in nothing that is used: those larger than a row."""
    if block["TILE"] != _TRITON["TILE"] and problem.columns <= min(block["TILE"], _TRITON["TILE"]):
        return f"TILE without effect for {problem.columns} columns"
    return None


TRITON = Space(
    axes={"TILE": (4096, 16384, 32768), "KEYS": (16, 32), "REGISTERS": (64, 128)},
    default=_TRITON,
    rule=_triton_rule,
    powers_of_two=frozenset({"TILE", "KEYS"}),
)

_CUPY = {"THREADS": 512, "ITEMS": 16}


def _cupy_rule(problem: Any, block: Block) -> str | None:
    if problem.dtype == "bfloat16":
        return "CuPy has no bfloat16"
    if block["THREADS"] * block["ITEMS"] < 2 * problem.k:
        return f"THREADS x ITEMS = {block['THREADS'] * block['ITEMS']} is less than 2 k"
    return None


CUPY = Space(
    axes={"THREADS": (256, 512), "ITEMS": (8, 16)},
    default=_CUPY,
    rule=_cupy_rule,
    powers_of_two=frozenset({"THREADS"}),
)
