"""A candidate as one 64-bit integer: its ranking key in the upper half, its id in the lower.

Comparing such integers compares keys and, where keys are equal, ids: one sort or top-k gives neighbours in their order with
ties by the smaller id. A float's bits compare as a signed integer does once the bits below the sign of negative numbers are
flipped. NaN is taken for +inf. The largest integer stands for "no row" and comes last.
"""

from __future__ import annotations

from typing import Any

NONE = (1 << 63) - 1
FLIP = 0x7FFFFFFF


def key_of(metric: str, distances: Any) -> Any:
    """Ranking keys, smallest first, of distances."""
    return 0.0 - distances if metric == "dot" else distances


def pack_numpy(keys: Any, ids: Any) -> Any:
    """NumPy float32 `keys` and int64 `ids`, broadcast, as int64 candidates."""
    import numpy as np

    bits = np.where(np.isnan(keys), np.float32(np.inf), keys).view(np.int32)
    return ((bits ^ ((bits >> 31) & FLIP)).astype(np.int64) << 32) | ids


def unpack_numpy(packed: Any, k: int) -> tuple[Any, Any]:
    """Keys and ids [Q, k] of sorted candidates [Q, <= k]; (inf, -1) where there is no row."""
    import numpy as np

    packed = np.concatenate([packed, np.full((len(packed), k - packed.shape[1]), NONE)], axis=1)
    bits = (packed >> 32).astype(np.int32)
    keys, ids = (bits ^ ((bits >> 31) & FLIP)).view(np.float32), packed & 0xFFFFFFFF
    return np.where(packed == NONE, np.float32(np.inf), keys), np.where(packed == NONE, -1, ids)


def pack_torch(keys: Any, ids: Any) -> Any:
    """The same for torch tensors."""
    import torch

    bits = torch.where(torch.isnan(keys), float("inf"), keys).view(torch.int32)
    return ((bits ^ ((bits >> 31) & FLIP)).to(torch.int64) << 32) | ids


def unpack_torch(packed: Any, k: int) -> tuple[Any, Any]:
    """The same for torch tensors."""
    import torch

    packed = torch.cat([packed, packed.new_full((len(packed), k - packed.shape[1]), NONE)], dim=1)
    bits = (packed >> 32).to(torch.int32)
    keys, ids = (bits ^ ((bits >> 31) & FLIP)).view(torch.float32), packed & 0xFFFFFFFF
    return torch.where(packed == NONE, float("inf"), keys), torch.where(packed == NONE, -1, ids)
