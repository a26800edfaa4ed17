"""The baseline: torch's own softmax. It has no block parameters."""

from __future__ import annotations

import torch

from kernels.contract import Arrays, Block

from .space import TORCH as SPACE

ARRAYS = "torch"
DEVICES = ("cpu", "cuda")

__all__ = ["ARRAYS", "DEVICES", "SPACE", "run"]


def run(problem: object, inputs: Arrays, block: Block) -> Arrays:
    return {"y": torch.softmax(inputs["x"], dim=1)}
