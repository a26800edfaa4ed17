"""The baseline in plain torch, on the CPU and on a GPU: torch.topk of packed candidates, which makes ties come by id."""

from __future__ import annotations

import torch

from kernels.contract import Arrays, Block
from kernels.packing import FLIP, NONE
from kernels.topk import NAN, TopK
from kernels.topk.space import TORCH as SPACE

ARRAYS = "torch"
DEVICES = ("cpu", "cuda")
ELEMENTS = 1 << 25
"""Elements that are packed at once."""

__all__ = ["ARRAYS", "DEVICES", "SPACE", "run"]


def run(problem: TopK, inputs: Arrays, block: Block) -> Arrays:
    """Values and ids [rows, k]."""
    rows = inputs["values"]
    step = max(1, ELEMENTS // max(1, rows.shape[1]))
    found = [_unpack(_best(part, problem.k, problem.largest), problem.largest, rows.dtype) for part in rows.split(step)]
    values, ids = (torch.cat(parts) for parts in zip(*found, strict=True))
    return {"values": values, "ids": ids}


def _best(rows: torch.Tensor, k: int, largest: bool) -> torch.Tensor:
    """The k best candidates of each row, sorted, padded with NONE."""
    best = torch.full((len(rows), k), NONE, device=rows.device)
    for first in range(0, rows.shape[1], ELEMENTS):
        candidates = torch.cat([best, _pack(rows[:, first : first + ELEMENTS], first, largest)], dim=1)
        best = candidates.topk(k, dim=1, largest=False).values
    return best


def _pack(values: torch.Tensor, first: int, largest: bool) -> torch.Tensor:
    """Elements and their columns, from `first` on, as integers that sort as wanted (see `kernels.packing`), NaN last."""
    wide = values.float()
    bits = (0 - wide if largest else wide + 0).view(torch.int32)  # neither gives -0.0
    keys = torch.where(wide.isnan(), NAN, bits ^ ((bits >> 31) & FLIP))
    return (keys.to(torch.int64) << 32) | torch.arange(first, first + values.shape[1], device=values.device)


def _unpack(packed: torch.Tensor, largest: bool, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    bits = (packed >> 32).to(torch.int32)
    values = torch.where(packed == NONE, float("inf"), (bits ^ ((bits >> 31) & FLIP)).view(torch.float32))
    return (0 - values if largest else values).to(dtype), torch.where(packed == NONE, -1, packed & 0xFFFFFFFF)
