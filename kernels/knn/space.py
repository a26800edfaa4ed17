"""Block spaces of the nearest-neighbour backends. BLOCK_N is also the size of the groups among which rows are selected."""

from __future__ import annotations

from kernels.contract import Space
from kernels.distance.space import FEW, tile_rule

__all__ = ["CUPY", "FEW", "NUMPY", "TORCH", "TRITON"]

NUMPY = Space(axes={"ROWS": (256, 1024, 4096)}, default={"ROWS": 1024})
TORCH = Space(axes={"ROWS": (4096, 65536, 262144, 1048576)}, default={"ROWS": 262144})

_TRITON = {"BLOCK_Q": 32, "BLOCK_N": 128, "BLOCK_D": 32, "num_warps": 4, "num_stages": 2}
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
    rule=tile_rule(_CUPY, ("BLOCK_Q", "BLOCK_D")),
    powers_of_two=frozenset({"BLOCK_Q", "BLOCK_N", "BLOCK_D"}),
)
