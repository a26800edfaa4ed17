"""float32 on the CPU: each probed list against all queries that probe it, its rows read once for a batch of queries."""

from __future__ import annotations

import numpy as np

from kernels.contract import Arrays, Block
from kernels.distance.numpy_impl import between, spans
from kernels.ivf.problem import Ivf
from kernels.ivf.space import NUMPY as SPACE
from kernels.packing import NONE, key_of, pack_numpy, unpack_numpy

ARRAYS = "numpy"
DEVICES = ("cpu",)
HELD = 1 << 24
"""Candidates of a batch at most, unless one query has more."""

__all__ = ["ARRAYS", "DEVICES", "SPACE", "run"]


def run(problem: Ivf, inputs: Arrays, block: Block) -> Arrays:
    """Distances and ids [q, k]."""
    queries = inputs["queries"]
    step = max(1, min(block["QUERIES"], HELD // (problem.nprobe * problem.k)))
    batches = [queries[start : start + step] for start in range(0, max(len(queries), 1), step)]
    found = [_search(problem, batch, inputs) for batch in batches]
    distances, ids = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return {"distances": distances, "ids": ids}


def _search(problem: Ivf, queries: np.ndarray, inputs: Arrays) -> tuple[np.ndarray, np.ndarray]:
    rows, ids, offsets = inputs["rows"], inputs["ids"], inputs["offsets"]
    probes = nearest_lists(problem, queries, inputs["centroids"]).ravel()
    best = np.full((len(probes), problem.k), NONE)
    pairs = np.argsort(probes, kind="stable")  # of queries and lists, list after list
    edges = np.searchsorted(probes[pairs], np.arange(problem.lists + 1))
    probed = np.flatnonzero(edges[1:] > edges[:-1])

    def scan(start: int, stop: int) -> None:
        for number in probed[start:stop]:
            pair, part = pairs[edges[number] : edges[number + 1]], slice(offsets[number], offsets[number + 1])
            keys = key_of(problem.metric, between(problem.metric, queries[pair // problem.nprobe], rows[part]))
            found = _smallest(pack_numpy(keys, ids[part]), problem.k)
            best[pair, : found.shape[1]] = found

    spans(problem.metric, len(probed), 1, scan)
    best = np.sort(_smallest(best.reshape(len(queries), problem.nprobe * problem.k), problem.k), axis=1)
    keys, found_ids = unpack_numpy(best, problem.k)
    return key_of(problem.metric, keys), found_ids


def nearest_lists(problem: Ivf, queries: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """The lists [Q, nprobe] that each query probes, in any order."""
    keys = key_of(problem.metric, between(problem.metric, queries, centroids))
    return _smallest(pack_numpy(keys, np.arange(problem.lists)), problem.nprobe) & 0xFFFFFFFF


def _smallest(candidates: np.ndarray, k: int) -> np.ndarray:
    return candidates if candidates.shape[1] <= k else np.partition(candidates, k - 1, axis=1)[:, :k]
