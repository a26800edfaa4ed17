"""float32 on the CPU: distances a chunk of rows at a time, and the k best kept."""

from __future__ import annotations

import numpy as np

from kernels.contract import Arrays, Block
from kernels.distance.numpy_impl import between, spans
from kernels.knn import Knn
from kernels.knn.space import NUMPY as SPACE
from kernels.packing import key_of, pack_numpy, unpack_numpy

ARRAYS = "numpy"
DEVICES = ("cpu",)
QUERIES = 256
"""Queries a pass over the collection: bounds the scores held at once to QUERIES x ROWS a core."""

__all__ = ["ARRAYS", "DEVICES", "SPACE", "run"]


def run(problem: Knn, inputs: Arrays, block: Block) -> Arrays:
    """Distances and ids [q, k]."""
    queries, collection = inputs["queries"], inputs["collection"]
    batches = [queries[start : start + QUERIES] for start in range(0, max(len(queries), 1), QUERIES)]
    found = [_search(problem, batch, collection, block["ROWS"]) for batch in batches]
    distances, ids = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return {"distances": distances, "ids": ids}


def _search(problem: Knn, queries: np.ndarray, collection: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    def nearest(start: int, stop: int) -> np.ndarray:
        best = np.empty((len(queries), 0), np.int64)
        for first in range(start, stop, rows):
            chunk = np.arange(first, min(first + rows, stop))
            keys = key_of(problem.metric, between(problem.metric, queries, collection[chunk[0] : chunk[-1] + 1]))
            best = _smallest(np.concatenate([best, pack_numpy(keys, chunk)], axis=1), problem.k)
        return best

    candidates = np.concatenate(spans(problem.metric, len(collection), rows, nearest), axis=1)
    keys, ids = unpack_numpy(np.sort(_smallest(candidates, problem.k), axis=1), problem.k)
    return key_of(problem.metric, keys), ids


def _smallest(candidates: np.ndarray, k: int) -> np.ndarray:
    return candidates if candidates.shape[1] <= k else np.partition(candidates, k - 1, axis=1)[:, :k]
