"""On the CPU: the k best of packed candidates by partition, then sorted, some rows at a time."""

from __future__ import annotations

import numpy as np

from kernels.contract import Arrays, Block
from kernels.packing import FLIP, NONE
from kernels.topk import NAN, TopK
from kernels.topk.space import NUMPY as SPACE

ARRAYS = "numpy"
DEVICES = ("cpu",)
ELEMENTS = 1 << 22
"""Elements that are packed at once, unless one row has more."""

__all__ = ["ARRAYS", "DEVICES", "SPACE", "run"]


def run(problem: TopK, inputs: Arrays, block: Block) -> Arrays:
    """Values and ids [rows, k]."""
    rows = inputs["values"]
    values, ids = np.empty((len(rows), problem.k), rows.dtype), np.empty((len(rows), problem.k), np.int64)
    step = max(1, ELEMENTS // max(1, rows.shape[1]))
    for first in range(0, len(rows), step):
        part = slice(first, first + step)
        values[part], ids[part] = _unpack(_smallest(_pack(rows[part], problem.largest), problem.k), problem.largest)
    return {"values": values, "ids": ids}


def _pack(values: np.ndarray, largest: bool) -> np.ndarray:
    """Elements and their columns as integers that sort as wanted (see `kernels.packing`), NaN last."""
    wide = values.astype(np.float32)
    bits = (0 - wide if largest else wide + 0).view(np.int32)  # neither gives -0.0
    keys = np.where(np.isnan(wide), np.int32(NAN), bits ^ ((bits >> 31) & FLIP))
    return (keys.astype(np.int64) << 32) | np.arange(values.shape[1])


def _smallest(packed: np.ndarray, k: int) -> np.ndarray:
    if packed.shape[1] > k:
        packed = np.partition(packed, k - 1, axis=1)[:, :k]
    padding = np.full((len(packed), k - packed.shape[1]), NONE)
    return np.concatenate([np.sort(packed, axis=1), padding], axis=1)


def _unpack(packed: np.ndarray, largest: bool) -> tuple[np.ndarray, np.ndarray]:
    bits = (packed >> 32).astype(np.int32)
    values = np.where(packed == NONE, np.float32(np.inf), (bits ^ ((bits >> 31) & FLIP)).view(np.float32))
    return 0 - values if largest else values, np.where(packed == NONE, -1, packed & 0xFFFFFFFF)
