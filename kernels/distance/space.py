"""Block spaces of the distance backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kernels.contract import Block, Space

FEW = 8
"""Below so many queries the collection is streamed once a query; from there on it is cut into tiles of queries x rows."""


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


NUMPY = Space(axes={"ROWS": (256, 1024, 4096)}, default={"ROWS": 1024})
TORCH = Space(axes={"ROWS": (4096, 65536, 262144, 1048576)}, default={"ROWS": 262144})

_TRITON = {"BLOCK_Q": 64, "BLOCK_N": 64, "BLOCK_D": 32, "num_warps": 4, "num_stages": 2}
TRITON = Space(
    axes={"BLOCK_Q": (32, 64), "BLOCK_N": (64, 128), "BLOCK_D": (32, 64), "num_warps": (4, 8), "num_stages": (2, 3)},
    default=_TRITON,
    rule=tile_rule(_TRITON, ("BLOCK_Q", "num_stages"), ("BLOCK_D", "num_stages")),
    powers_of_two=frozenset({"BLOCK_Q", "BLOCK_N", "BLOCK_D", "num_warps"}),
)

_CUPY = {"BLOCK_Q": 64, "BLOCK_N": 128, "BLOCK_D": 16}
CUPY = Space(
    axes={"BLOCK_Q": (32, 64, 128), "BLOCK_N": (32, 64, 128), "BLOCK_D": (8, 16, 32)},
    default=_CUPY,
    rule=tile_rule(_CUPY, ("BLOCK_Q", "BLOCK_N", "BLOCK_D")),
    powers_of_two=frozenset({"BLOCK_Q", "BLOCK_N", "BLOCK_D"}),
)
