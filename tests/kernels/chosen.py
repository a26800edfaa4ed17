"""Checks the groups that knn's filter lets through, in Triton's interpreter or on a GPU: `python -m tests.kernels.chosen`.

Whatever the data, no group with one of the k nearest rows may be missing unless the query is left to exact arithmetic; and of ordinary
data few groups may be chosen, or the filter would be of no use. Prints what is wrong, a line a case.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from analysis.cli import run
from kernels import interpreter
from kernels.filter import NARROW, filtering
from kernels.filter.groups import Grouping
from kernels.knn import triton_impl
from kernels.knn.reference import knn
from kernels.knn.space import TRITON
from kernels.metrics import METRICS

K, QUERIES, ROWS = 3, 3, 700
BLOCK = {**TRITON.default, "GROUP": 8, "BLOCK_Q": 64, "SPAN": 2}


def kinds(rng: np.random.Generator, d: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(kind, queries, collection), each awkward for rounding in its own way."""

    def normal(count: int) -> np.ndarray:
        return rng.standard_normal((count, d), dtype=np.float32)

    yield "ordinary", normal(QUERIES), normal(ROWS)
    yield "far from the origin", normal(QUERIES) + 1000, normal(ROWS) + 1000
    yield "tiny units", normal(QUERIES) * np.float32(1e-12), normal(ROWS) * np.float32(1e-12)
    scales = np.float32(10) ** rng.uniform(-4, 4, (ROWS, 1)).astype(np.float32)
    yield "mixed scales", normal(QUERIES) * scales[:QUERIES], normal(ROWS) * scales
    one = normal(ROWS)
    one[7] *= 1e6
    yield "one long row", normal(QUERIES), one
    near = np.repeat(normal(1), ROWS, axis=0) + normal(ROWS) * np.float32(1e-4)
    yield "close together", near[:QUERIES] + normal(QUERIES) * np.float32(1e-4), near
    holes = normal(ROWS)
    holes[::5, 0] = np.nan
    holes[1::5, -1] = np.inf
    yield "not finite", normal(QUERIES), holes


def row_groups(grouping: Grouping) -> np.ndarray:
    """The group of each row, by the definition in `kernels.filter.groups`."""
    size, across, together = grouping.size, grouping.across, grouping.together
    rows = np.arange(ROWS)
    return rows // (size * across) * across + rows % (across * together) // together


def faults(metric: str, kind: str, queries: np.ndarray, collection: np.ndarray, device: str) -> Iterator[str]:
    rows, capacity = torch.from_numpy(collection).to(device), 40
    by = filtering.Filter(metric, rows, QUERIES, BLOCK)
    chosen = triton_impl.choose(by, torch.from_numpy(queries).to(device), rows, K, capacity)
    groups, counts = chosen.groups.cpu().numpy(), chosen.counts.cpu().numpy()
    left = set(chosen.left[: int(chosen.left_count)].tolist())
    distances, ids = knn(queries, collection, K, metric)
    of_rows, total = row_groups(by.grouping), len(np.unique(row_groups(by.grouping)))
    if kind == "ordinary" and (left or counts.max() > total // 3):
        yield f"{counts.max()} of {total} groups are chosen, and {len(left)} queries left"
    for query, (near, distance) in enumerate(zip(ids, distances, strict=True)):
        real = near[np.isfinite(distance)]
        missing = set(of_rows[real]) - set(groups[query, : counts[query]])
        if missing and query not in left:
            yield f"query {query}: groups {sorted(missing)} of its nearest rows {real.tolist()} are not among the {counts[query]} chosen"


def main() -> int:
    device, wrong = "cuda" if torch.cuda.is_available() else "cpu", 0
    if device == "cpu":
        interpreter.enable()
    triton_impl.choose_exactly = lambda *_: None  # what is left is not what is looked at
    for few in (0, 256):  # rows prepared, and as they are
        filtering.FEW = few
        for d in (3, 20, 150):
            for metric in METRICS:
                if few and (d < NARROW or metric == "l1"):
                    continue  # makes no difference there
                for kind, queries, collection in kinds(np.random.default_rng(d), d):
                    for fault in faults(metric, kind, queries, collection, device):
                        wrong += 1
                        print(f"{metric} d={d} few={few} {kind}: {fault}")
    return wrong


if __name__ == "__main__":
    run(main)
