"""Block spaces of the distance backends, and which kernel a problem goes to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kernels.contract import Block, Space

FEW = 8
"""Below so many queries the collection is streamed once a query; from there on it is cut into tiles of queries x rows."""
LONG = 1 << 16
"""Columns up to which one block of threads sums a pair; where there are more, and few pairs, several share it in two steps."""
PAIRS = 1 << 12
"""Pairs up to which sharing pays: beyond, there are blocks enough without."""
SPAN = 1 << 14
"""Columns that one block sums of a shared pair; a number of its own, so that a result does not depend on the GPU."""


def shared(problem: Any) -> bool:
    """Whether several blocks share each pair of vectors."""
    return problem.d > LONG and problem.q * problem.n <= PAIRS


def tiled(problem: Any) -> bool:
    """Whether queries and rows are many enough for tiles; otherwise rows are streamed."""
    return min(problem.q, problem.n) >= FEW and not shared(problem)


def without_effect(problem: Any, block: Block, unused: tuple[str, ...], default: Block) -> str | None:
    """The reason to leave `block` out where it differs from the default in axes that its kernel does not use."""
    idle = [axis for axis in unused if block[axis] != default[axis]]
    return f"{', '.join(idle)} without effect for {problem.metric} with q = {problem.q}" if idle else None


def tile_rule(default: Block, tiled: tuple[str, ...], products: tuple[str, ...] = ()) -> Callable[[Any, Block], str | None]:
    """The rule of a backend with a streaming and a tiled kernel: it leaves out blocks that differ in nothing that is used.

    `tiled` are the axes that the tiled kernel alone has; `products` those that it has for dot and cosine alone.
    """

    def rule(problem: Any, block: Block) -> str | None:
        if min(problem.q, problem.n) < FEW:
            return without_effect(problem, block, tiled, default)
        return without_effect(problem, block, products if problem.metric in ("l2", "l1") else (), default)

    return rule


def _no_bfloat16(problem: Any, block: Block) -> str | None:
    return "NumPy has no bfloat16" if problem.dtype == "bfloat16" else None


NUMPY = Space(axes={"ROWS": (256, 1024, 4096)}, default={"ROWS": 1024}, rule=_no_bfloat16)
TORCH = Space(axes={"ROWS": (4096, 65536, 262144, 1048576)}, default={"ROWS": 262144})

_TRITON = {"BLOCK_Q": 128, "BLOCK_N": 64, "BLOCK_D": 32, "PASSES": 3, "num_warps": 8, "num_stages": 3}


def _triton(problem: Any, block: Block) -> str | None:
    """PASSES is the number of passes of a float32 product: 1 in IEEE arithmetic, or 3 in TF32 on tensor cores (see `tile_products`)."""
    if not tiled(problem):
        return without_effect(problem, block, ("BLOCK_Q", "BLOCK_D", "PASSES", "num_stages"), _TRITON)
    threads = 32 * block["num_warps"]
    each = block["BLOCK_Q"] * block["BLOCK_N"] // threads
    if problem.metric in ("l2", "l1"):
        if not 16 <= each <= 64 or max(block["BLOCK_Q"], block["BLOCK_N"]) >= threads:
            return f"{each} results a thread, and {threads} threads; a tile of differences has 16 to 64, and more threads than rows"
        return without_effect(problem, block, ("BLOCK_D", "PASSES", "num_stages"), _TRITON)
    if block["PASSES"] not in (1, 3):
        return f"PASSES = {block['PASSES']} is neither 1 nor 3"
    if not 32 <= each <= 128:
        return f"{each} results a thread; a tile of products has 32 to 128"
    return without_effect(problem, block, () if problem.dtype == "float32" else ("PASSES",), _TRITON)


TRITON = Space(
    axes={
        "BLOCK_Q": (64, 128),
        "BLOCK_N": (64, 128, 256),
        "BLOCK_D": (32, 64),
        "PASSES": (1, 3),
        "num_warps": (4, 8),
        "num_stages": (3,),
    },
    default=_TRITON,
    rule=_triton,
    powers_of_two=frozenset({"BLOCK_Q", "BLOCK_N", "BLOCK_D", "num_warps"}),
)

_CUPY = {"BLOCK_Q": 64, "BLOCK_N": 128, "BLOCK_D": 16}


def _cupy(problem: Any, block: Block) -> str | None:
    if problem.dtype == "bfloat16":
        return "CuPy has no bfloat16"
    return None if tiled(problem) else without_effect(problem, block, ("BLOCK_Q", "BLOCK_N", "BLOCK_D"), _CUPY)


CUPY = Space(
    axes={"BLOCK_Q": (32, 64, 128), "BLOCK_N": (32, 64, 128), "BLOCK_D": (8, 16, 32)},
    default=_CUPY,
    rule=_cupy,
    powers_of_two=frozenset({"BLOCK_Q", "BLOCK_N", "BLOCK_D"}),
)
