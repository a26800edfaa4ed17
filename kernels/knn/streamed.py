"""Exact nearest neighbours in a collection that stays on the host: chunks of it pass through the device, the k best so far are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from kernels.metrics import Metric
from kernels.packing import NONE, key_of, pack_torch, unpack_torch
from kernels.streaming import chunks

SHARE = 8
"""A chunk's share of the memory allowed: two lie on the device, a half-precision copy beside one, and the rest is scratch."""


def search(queries: Any, collection: np.ndarray, k: int, metric: Metric, memory: int) -> tuple[Any, Any]:
    """Distances and ids [Q, k] of torch `queries` [Q, D], where they lie; `memory` is in bytes. See `kernels.knn.knn_streamed`."""
    from kernels.knn import knn

    rows = max(1, min(len(collection), memory // (SHARE * collection.shape[1] * collection.itemsize)))
    best = torch.empty((len(queries), 0), dtype=torch.int64, device=queries.device)
    for start, chunk in chunks(collection, rows, str(queries.device)):
        distances, ids = knn(queries, chunk, k, metric)
        found = torch.where(ids < 0, NONE, pack_torch(key_of(metric, distances), ids + start))
        merged = torch.cat([best, found], dim=1)
        best = merged.topk(min(k, merged.shape[1]), dim=1, largest=False).values
    keys, ids = unpack_torch(best, k)
    return key_of(metric, keys), ids
