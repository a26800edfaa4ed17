"""Triton: see `kernels.topk.triton_select`, which other operators select with as well."""

from __future__ import annotations

import torch

from kernels.contract import Arrays, Block
from kernels.topk import TopK
from kernels.topk.space import TRITON as SPACE
from kernels.topk.triton_select import select

ARRAYS = "torch"
DEVICES = ("cuda",)

__all__ = ["ARRAYS", "DEVICES", "SPACE", "run"]


def run(problem: TopK, inputs: Arrays, block: Block) -> Arrays:
    """Values and ids [rows, k]."""
    rows = inputs["values"]
    values = torch.empty((len(rows), problem.k), dtype=rows.dtype, device=rows.device)
    ids = torch.empty((len(rows), problem.k), dtype=torch.int64, device=rows.device)
    select(rows, problem.k, block, largest=problem.largest, values=values, ids=ids)
    return {"values": values, "ids": ids}
