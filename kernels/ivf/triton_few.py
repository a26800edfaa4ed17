"""Few queries, in two launches, whose last programs end the step: the lists to probe, then their rows.

1. Programs score blocks of centroids, and the one that ends last for a query picks its lists.
2. Each list goes to several programs, which keep the k best of their rows; the one that ends last for a query picks the k best of those.

All keys are float32 from direct differences. A third launch, or one torch call more, would cost more than the work in it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.contract import Arrays
from kernels.distance.triton_impl import stream_width
from kernels.distance.triton_metric import stream_keys
from kernels.ivf.problem import Ivf
from kernels.ivf.space import FEW
from kernels.ivf.triton_best import ascending, empty, insert, taken
from kernels.ivf.triton_keys import UNROLL
from kernels.knn.answer import write
from kernels.metrics import NUMBER
from kernels.packing.triton_packing import NOTHING, pack

MOST_K = 128
MOST_PROBES = 1024
"""Neighbours and probes up to which picking one after the other is quick."""
PROGRAMS = 512
"""Programs that share the rows: some a multiprocessor, even on the largest GPUs."""
CENTROIDS, ROWS, CHUNK = 32, 64, 1024
"""Centroids and rows that a program scores at a time, and candidates that a last program looks at at a time."""


@triton.jit(do_not_specialize=["lists", "nprobe", "blocks"])
def ivf_few_lists(X, Centroids, Scores, Probes, Ended, lists, nprobe, blocks, D, METRIC: tl.constexpr, P: tl.constexpr,
                  BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, CHUNK: tl.constexpr):  # fmt: skip
    """One of the `blocks` blocks of centroids of a query. Ended must be zero, and is zero again for the next kernel."""
    query = (tl.program_id(0) // blocks).to(tl.int64)
    rows = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    key = stream_keys(X, Centroids, query, rows, rows < lists, D, METRIC, BLOCK_N, BLOCK_D, UNROLL)
    tl.store(Scores + query * lists + rows, pack(key, rows, rows < lists), mask=rows < lists)
    tl.debug_barrier()
    if tl.atomic_add(Ended + query, 1, sem="acq_rel") == blocks - 1:
        held = empty(nprobe, P)
        worst = tl.max(held, axis=0)
        for first in range(0, lists, CHUNK):
            at = first + tl.arange(0, CHUNK)
            scores = tl.load(Scores + query * lists + at, mask=at < lists, other=NOTHING, cache_modifier=".cg")
            held, worst = insert(held, worst, scores)
        tl.store(Probes + query * nprobe + tl.arange(0, P), (held & 0xFFFFFFFF).to(tl.int32), mask=tl.arange(0, P) < nprobe)
        tl.store(Ended + query, 0)


@triton.jit(do_not_specialize=["k", "nprobe", "parts"])
def ivf_few_rows(X, Y, RowIds, Offsets, Probes, Candidates, Ended, Distances, Ids, k, nprobe, parts, D, METRIC: tl.constexpr,
                 K: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, CHUNK: tl.constexpr):  # fmt: skip
    """One of the `parts` parts of a probed list, every parts-th block of its rows. Ended must be zero."""
    query = (tl.program_id(0) // (nprobe * parts)).to(tl.int64)
    place = tl.program_id(0) % (nprobe * parts)
    number = tl.load(Probes + query * nprobe + place // parts)
    start = tl.load(Offsets + number)
    length = (tl.load(Offsets + number + 1) - start).to(tl.int32)
    held = empty(k, K)
    worst = tl.max(held, axis=0)
    for first in range(place % parts * BLOCK_N, length, parts * BLOCK_N):
        at = first + tl.arange(0, BLOCK_N)
        rows, valid = start + at, at < length
        key = stream_keys(X, Y, query, rows, valid, D, METRIC, BLOCK_N, BLOCK_D, UNROLL)
        held, worst = insert(held, worst, pack(key, tl.load(RowIds + rows, mask=valid, other=0), valid))
    Candidates += query * nprobe * parts * K
    tl.store(Candidates + place * K + tl.arange(0, K), taken(held))
    tl.debug_barrier()
    if tl.atomic_add(Ended + query, 1, sem="acq_rel") == nprobe * parts - 1:
        best = empty(k, K)
        worst = tl.max(best, axis=0)
        for first in range(0, nprobe * parts * K, CHUNK):
            at = first + tl.arange(0, CHUNK)
            candidates = tl.load(Candidates + at, mask=at < nprobe * parts * K, other=NOTHING, cache_modifier=".cg")
            best, worst = insert(best, worst, candidates)
        write(Distances, Ids, query, ascending(best, k, K), k, METRIC, K)


def suits(problem: Ivf) -> bool:
    return problem.q < FEW and problem.k <= MOST_K and problem.nprobe <= MOST_PROBES


def search(problem: Ivf, inputs: Arrays, distances: torch.Tensor, ids: torch.Tensor) -> None:
    """Write distances and ids [q, k]."""
    queries, rows = inputs["queries"], inputs["rows"]
    q, k, lists, nprobe, device = problem.q, problem.k, problem.lists, problem.nprobe, queries.device
    blocks = triton.cdiv(lists, CENTROIDS)
    parts = max(1, min(PROGRAMS // (q * nprobe), triton.cdiv(problem.n, ROWS)))
    held = triton.next_power_of_2(k)
    scores = torch.empty((q, lists), dtype=torch.int64, device=device)
    candidates = torch.empty((q, nprobe * parts * held), dtype=torch.int64, device=device)
    probes = torch.empty((q, nprobe), dtype=torch.int32, device=device)
    ended = torch.zeros(q, dtype=torch.int32, device=device)
    sizes = {"METRIC": NUMBER[problem.metric], "BLOCK_D": stream_width(problem.d, 32), "CHUNK": CHUNK, "num_warps": 4}
    ivf_few_lists[(q * blocks,)](
        queries, inputs["centroids"], scores, probes, ended, lists, nprobe, blocks, problem.d,
        P=triton.next_power_of_2(nprobe), BLOCK_N=CENTROIDS, **sizes,
    )  # fmt: skip
    ivf_few_rows[(q * nprobe * parts,)](
        queries, rows, inputs["ids"], inputs["offsets"], probes, candidates, ended, distances, ids, k, nprobe, parts, problem.d,
        K=held, BLOCK_N=ROWS, **sizes,
    )  # fmt: skip
