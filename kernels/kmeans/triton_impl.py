"""Triton: the group of centroids by half-precision bounds, the centroid within the group in two halves, sums by sorted groups.

1. Centroids are centred, scaled and halved, and the group that holds each point's nearest centroid is found (`triton_groups`): on
   tensor cores for nearly all points, by more exact arithmetic for those that the bounds leave open.
2. Points are sorted by group, with a stable sort of small integers.
3. Each chunk of points of one group meets that group's centroids alone: labels, and in the same pass over the points the sums
   of each centroid's (`triton_assign`). Where rows are too long to be held, the sums take another pass.
4. Sums of the chunks are added in their order, so that a result is the same on every run.

So the points are read twice an iteration, three times where rows are long. Scratch is some 40 bytes a point, the sums of the
chunks, and for long rows half the bytes of the points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton

from kernels.contract import Arrays, Block
from kernels.filter import EXACTLY, NARROW, TILE, tensor_cores
from kernels.filter.groups import Grouping
from kernels.filter.prepare import Frame, half_width
from kernels.kmeans import KMeans, triton_assign, triton_groups
from kernels.kmeans.lloyd import iterate
from kernels.kmeans.space import TRITON as SPACE
from kernels.kmeans.space import WIDEST
from kernels.kmeans.torch_impl import centre_of, unit
from kernels.kmeans.triton_halves import centroids_kernel, points_kernel
from kernels.metrics import NUMBER

ARRAYS = "torch"
DEVICES = ("cuda",)
NARROW_GROUPS = 64
"""Groups of a block where products are float32."""
LISTED = 1024
"""Programs that share a list; each goes on until it is done."""
HALF_A_MULTIPROCESSOR, THIRD_OF_A_MULTIPROCESSOR = 128, 168
"""Registers a thread with which two programs of 8 warps, or three of 4, share a multiprocessor: some load while others multiply."""

__all__ = ["ARRAYS", "DEVICES", "SPACE", "prepare", "run", "step"]


@dataclass(frozen=True)
class Points:
    """Points [N, D], the frame that they are seen in, their norms in it [N], and where rows are long also halves and e [N]."""

    values: torch.Tensor
    frame: Frame
    norms: torch.Tensor
    half: tuple[torch.Tensor, torch.Tensor] | None


@dataclass(frozen=True)
class Centroids:
    """Centroids [K, D], and in two halves [padded, width] with offsets [padded] and bounds [4] (see `centroids_kernel`).

    columns [D, padded] are float32, where d is below NARROW. They are in `count` groups, whose last may be empty.
    """

    values: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor
    columns: torch.Tensor
    offsets: torch.Tensor
    bounds: torch.Tensor
    grouping: Grouping

    @property
    def count(self) -> int:
        return triton.cdiv(len(self.values), self.grouping.size * self.grouping.across) * self.grouping.across


def run(problem: KMeans, inputs: Arrays, block: Block) -> Arrays:
    """Labels [n] and inertia of the last iteration, centroids [k, d] after it, and how many points each has [k]."""
    return iterate(problem, inputs, block, prepare, step)


def prepare(problem: KMeans, points: torch.Tensor, block: Block) -> Points:
    """The frame, and for long rows a half-precision copy: what all iterations share."""
    by = Frame(*centre_of(problem.metric, points))
    (n, d), width, device = points.shape, half_width(problem.d), points.device
    norms, half = torch.empty(n, device=device), None
    if d > WIDEST:
        half = torch.empty((n, width), dtype=torch.float16, device=device), torch.empty(n, device=device)
        arguments = (points, by.centre, by.largest, half[0], norms, half[1], n, d, width)
        points_kernel[(triton.cdiv(n, 64),)](*arguments, METRIC=NUMBER[problem.metric], ROWS=64, BLOCK_D=64)
    return Points(points, by, norms, half)


def step(problem: KMeans, points: Points, centroids: torch.Tensor, block: Block) -> Arrays:
    """One iteration."""
    ready = _centroids(problem.metric, points.frame, centroids if problem.metric == "l2" else unit(centroids), block)
    groups = _groups(problem.metric, points, ready, block)
    labels, sums, counts, inertia, first_chunks = _assigned(problem.metric, points, ready, groups, block)
    means, points_of = torch.empty_like(ready.values), torch.empty(problem.k, dtype=torch.int32, device=groups.device)
    width = min(128, triton.next_power_of_2(problem.d))
    triton_assign.means_kernel[(problem.k, triton.cdiv(problem.d, width))](
        sums, counts, first_chunks, ready.values, points.frame.centre, points.frame.largest, means, points_of, problem.k, problem.d,
        METRIC=NUMBER[problem.metric], CHUNKS=16, BLOCK_D=width, **ready.grouping.constants,
    )  # fmt: skip
    moved = means if problem.metric == "l2" else unit(means)
    return {"labels": labels, "centroids": moved, "counts": points_of, "inertia": inertia.sum(dtype=torch.float64)}


def _centroids(metric: str, by: Frame, centroids: torch.Tensor, block: Block) -> Centroids:
    (k, d), width, device = centroids.shape, half_width(centroids.shape[1]), centroids.device
    narrow = d < NARROW
    across, together = (NARROW_GROUPS, 1) if narrow else (tensor_cores.ACROSS, tensor_cores.TOGETHER)
    grouping = Grouping(block["GROUP"], across, together)
    span = max(TILE, grouping.size * across)
    padded = triton.cdiv(k, span) * span
    first, second = torch.empty((2, padded, width), dtype=torch.float16, device=device)
    columns = torch.empty((d if narrow else 0, padded), device=device)
    offsets, bounds = torch.empty(padded, device=device), torch.zeros(4, device=device)
    centroids_kernel[(padded // TILE,)](
        centroids, by.centre, by.largest, first, second, columns, offsets, bounds, k, padded, d, width, METRIC=NUMBER[metric],
        COLUMNS=narrow, ROWS=TILE, BLOCK_D=min(64, triton.next_power_of_2(width)), num_warps=8,
    )  # fmt: skip
    return Centroids(centroids, first, second, columns, offsets, bounds, grouping)


def _groups(metric: str, points: Points, ready: Centroids, block: Block) -> torch.Tensor:
    """The group [N] of each point's nearest centroid; the number of groups for a point that is not finite."""
    (n, d), k, device = points.values.shape, len(ready.values), points.values.device
    groups = torch.empty(n, dtype=torch.uint8 if ready.count < 256 else torch.int16, device=device)
    undecided, left = torch.empty((2, n), dtype=torch.int32, device=device)
    undecided_count, left_count = torch.zeros((2, 1), dtype=torch.int32, device=device)
    if d < NARROW:
        triton_groups.groups_narrow[(triton.cdiv(n, block["BLOCK_Q"]),)](
            points.values, ready.columns, points.frame.centre, points.frame.largest, ready.offsets, ready.bounds, points.norms, groups,
            left, left_count, n, k, len(ready.offsets), d, METRIC=NUMBER[metric], GROUP=block["GROUP"], BLOCK_Q=block["BLOCK_Q"],
            BLOCK_N=NARROW_GROUPS, num_warps=block["num_warps"],
        )  # fmt: skip
    else:
        none = (undecided, undecided_count)
        _groups_by_halves(1, block["BLOCK_Q"], metric, points, ready, (groups, *none, undecided, undecided_count), block)
        _groups_by_halves(2, 64, metric, points, ready, (groups, undecided, undecided_count, left, left_count), block)
    triton_groups.groups_exact[(min(LISTED, triton.cdiv(n, 32)),)](
        points.values, ready.values, groups, left, left_count, k, ready.count, d, METRIC=NUMBER[metric], BLOCK_Q=32, BLOCK_N=64, BLOCK_D=16,
        **ready.grouping.constants,
    )  # fmt: skip
    return groups


def _groups_by_halves(parts: int, rows: int, metric: str, points: Points, ready: Centroids, lists: tuple[torch.Tensor, ...],
                      block: Block) -> None:  # fmt: skip
    """`lists` are the groups, the list of points to take for two parts, its count, the list of those left open, and its count."""
    (n, d), (padded, width) = points.values.shape, ready.first.shape
    by, halved = (points.frame.centre, points.frame.largest), (ready.first, ready.second, ready.offsets, ready.bounds)
    tiles = triton.cdiv(n, rows)
    grid = (tiles if parts == 1 else min(LISTED, tiles),)
    stages = block["num_stages"] if parts == 1 else 1  # two halves take twice the shared memory
    options: dict[str, Any] = {"num_warps": block["num_warps"], "num_stages": stages}
    options |= {"METRIC": NUMBER[metric], "PARTS": parts, "BLOCK_Q": rows, "BLOCK_N": ready.grouping.size * ready.grouping.across}
    if points.half is not None:
        half, errors = points.half
        triton_groups.groups_looped[grid](
            points.values, half, points.norms, errors, *by, *halved, *lists, n, padded // TILE, d, width, LONG=width > EXACTLY,
            BLOCK_D=block["BLOCK_D"], **options,
        )  # fmt: skip
        return
    if parts == 1 and block["num_warps"] == 8 and rows <= 128:
        options["maxnreg"] = HALF_A_MULTIPROCESSOR
    arguments = (points.values, *by, *halved, points.norms, *lists, n, padded // TILE, d, width)
    triton_groups.groups_held[grid](*arguments, BLOCK_D=triton.next_power_of_2(width), **options)


def _assigned(metric: str, points: Points, ready: Centroids, groups: torch.Tensor, block: Block) -> tuple[torch.Tensor, ...]:
    """Labels [N]; of each chunk of points of a group the sums [SIZE, D], counts [SIZE] and inertia; and the first chunk of each group."""
    (n, d), k, device, count, chunk = points.values.shape, len(ready.values), groups.device, ready.count, block["CHUNK"]
    ordered, order = groups.sort(stable=True)
    starts, first_chunks = torch.empty((2, count + 1), dtype=torch.int32, device=device)
    places = triton.next_power_of_2(count + 1)
    triton_assign.chunks_kernel[(1,)](ordered, starts, first_chunks, n, count, CHUNK=chunk, PLACES=places)
    capacity = n // chunk + count  # chunks that there can be at most
    labels = torch.full((n,), -1, dtype=torch.int32, device=device)
    sums, inertia = torch.empty((capacity, ready.grouping.size, d), device=device), torch.empty(capacity, device=device)
    counts = torch.empty((capacity, ready.grouping.size), dtype=torch.int32, device=device)
    by, chunks = (points.frame.centre, points.frame.largest), (order, starts, first_chunks, labels)
    given = (points.values, ready.values, points.norms, *by, ready.first, ready.second, ready.offsets, ready.bounds, *chunks)
    options: dict[str, Any] = {
        "METRIC": NUMBER[metric],
        "CHUNK": chunk,
        "PLACES": places,
        "ROWS": block["ROWS"],
        **ready.grouping.constants,
    }
    warps = ready.grouping.size // 8
    options |= {"num_warps": warps, "num_stages": 1, "maxnreg": THIRD_OF_A_MULTIPROCESSOR if warps == 4 else HALF_A_MULTIPROCESSOR}
    width = ready.first.shape[1]
    if points.half is None:
        held = triton.next_power_of_2(width)
        triton_assign.assign_held[(capacity,)](*given, sums, counts, inertia, count, k, d, width, BLOCK_D=held, **options)
    else:
        factors = torch.empty(n, device=device)
        triton_assign.assign_looped[(capacity,)](*given, factors, inertia, count, k, d, width, BLOCK_D=128, **options)
        arguments = (points.values, by[0], *chunks, factors, sums, counts, count, d)
        triton_assign.sums_looped[(capacity, triton.cdiv(d, 128))](*arguments, BLOCK_D=128, **options)
    return labels, sums, counts, inertia, first_chunks
