"""Triton: the nearest centroid by half-precision bounds and what they leave open by more exact arithmetic, sums by sorted groups.

1. Centroids are centred, scaled and halved. The group of centroids that holds each point's nearest one is found on tensor cores for
   nearly all points, and by more exact arithmetic for those that the bounds leave open (`triton_groups`). Where rows are too long
   to be held, the products take long enough for the nearest centroid itself to be found beside them (`triton_labels`).
2. Points are sorted by group, with a stable sort of small integers.
3. Each chunk of points of one group meets that group's centroids alone: labels, and in the same pass over the points the sums
   of each centroid's (`triton_assign`); or where labels are known, the sums (`triton_sums`).
4. Sums of the chunks are added in their order, so that a result is the same on every run.

So the points are read twice an iteration. Scratch is some 40 bytes a point, the sums of the chunks, and for long rows half the
bytes of the points, which are read once more to fill it.
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
from kernels.kmeans import KMeans, triton_assign, triton_groups, triton_labels, triton_sums
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
LONG_COLUMNS = 64
"""Columns that a program sums of long rows."""
HALF_A_MULTIPROCESSOR, THIRD_OF_A_MULTIPROCESSOR = 128, 168
"""Registers a thread with which two programs of 8 warps, or three of 4, share a multiprocessor: some load while others multiply."""

__all__ = ["ARRAYS", "DEVICES", "SPACE", "prepare", "run", "step"]


@dataclass(frozen=True)
class Long:
    """Long rows in half precision [N, width], their e [N] (infinite far outside the frame), and what brings them into the frame [N]."""

    half: torch.Tensor
    errors: torch.Tensor
    factors: torch.Tensor


@dataclass(frozen=True)
class Points:
    """Points [N, D], the frame that they are seen in, their norms in it [N], and where rows are long also what follows of them."""

    values: torch.Tensor
    frame: Frame
    norms: torch.Tensor
    long: Long | None


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

    @property
    def group_dtype(self) -> torch.dtype:
        """Of group numbers up to `count`, as small as can be: sorting reads and writes them by the byte."""
        return torch.uint8 if self.count < 256 else torch.int16

    @property
    def tiles(self) -> int:
        return len(self.offsets) // TILE


@dataclass(frozen=True)
class Found:
    """Labels [N]; of each chunk of points of a group the sums [SIZE, D], counts [SIZE] and inertia; and the first chunk of each group."""

    labels: torch.Tensor
    sums: torch.Tensor
    counts: torch.Tensor
    inertia: torch.Tensor
    first_chunks: torch.Tensor


def run(problem: KMeans, inputs: Arrays, block: Block) -> Arrays:
    """Labels [n] and inertia of the last iteration, centroids [k, d] after it, and how many points each has [k]."""
    return iterate(problem, inputs, block, prepare, step)


def prepare(problem: KMeans, points: torch.Tensor, block: Block) -> Points:
    """The frame, and for long rows a half-precision copy: what all iterations share."""
    by = Frame(*centre_of(problem.metric, points))
    (n, d), width, device = points.shape, half_width(problem.d), points.device
    norms, long = torch.empty(n, device=device), None
    if d > WIDEST:
        long = Long(torch.empty((n, width), dtype=torch.float16, device=device), *torch.empty((2, n), device=device))
        arguments = (points, by.centre, by.largest, long.half, norms, long.errors, long.factors, n, d, width)
        points_kernel[(triton.cdiv(n, 64),)](*arguments, METRIC=NUMBER[problem.metric], ROWS=64, BLOCK_D=64)
    return Points(points, by, norms, long)


def step(problem: KMeans, points: Points, centroids: torch.Tensor, block: Block) -> Arrays:
    """One iteration."""
    ready = _centroids(problem.metric, points.frame, centroids if problem.metric == "l2" else unit(centroids), block)
    found = (_short if points.long is None else _long)(problem.metric, points, ready, block)
    means, points_of = torch.empty_like(ready.values), torch.empty(problem.k, dtype=torch.int32, device=ready.values.device)
    width = min(128, triton.next_power_of_2(problem.d))
    triton_sums.means_kernel[(problem.k, triton.cdiv(problem.d, width))](
        found.sums, found.counts, found.first_chunks, ready.values, points.frame.centre, points.frame.largest, means, points_of, problem.k,
        problem.d, METRIC=NUMBER[problem.metric], CHUNKS=16, BLOCK_D=width, **ready.grouping.constants,
    )  # fmt: skip
    moved = means if problem.metric == "l2" else unit(means)
    return {"labels": found.labels, "centroids": moved, "counts": points_of, "inertia": found.inertia.sum(dtype=torch.float64)}


def _centroids(metric: str, by: Frame, centroids: torch.Tensor, block: Block) -> Centroids:
    (k, d), width, device = centroids.shape, half_width(centroids.shape[1]), centroids.device
    narrow, long = d < NARROW, d > WIDEST
    across, together = (NARROW_GROUPS, 1) if narrow else (1, 1) if long else (tensor_cores.ACROSS, tensor_cores.TOGETHER)
    grouping = Grouping(block["GROUP"], across, together)
    span = max(TILE, _block_n(block), grouping.size * across)
    padded = triton.cdiv(k, span) * span
    first, second = torch.empty((2, padded, width), dtype=torch.float16, device=device)
    columns = torch.empty((d if narrow else 0, padded), device=device)
    offsets, bounds = torch.empty(padded, device=device), torch.zeros(4, device=device)
    centroids_kernel[(padded // TILE,)](
        centroids, by.centre, by.largest, first, second, columns, offsets, bounds, k, padded, d, width, METRIC=NUMBER[metric],
        COLUMNS=narrow, ROWS=TILE, BLOCK_D=min(64, triton.next_power_of_2(width)), num_warps=8,
    )  # fmt: skip
    return Centroids(centroids, first, second, columns, offsets, bounds, grouping)


def _block_n(block: Block) -> int:
    """Centroids of a tile of tensor cores: the groups that they interleave."""
    return tensor_cores.ACROSS * block["GROUP"]


def _short(metric: str, points: Points, ready: Centroids, block: Block) -> Found:
    """Groups of the points, then labels and sums in one pass."""
    by, d, width = points.frame, points.values.shape[1], ready.first.shape[1]
    groups = _groups(metric, points, ready, block)
    chunks, found = _sorted(groups, torch.full(groups.shape, -1, dtype=torch.int32, device=groups.device), ready, d, 1, block)
    triton_assign.assign_held[(len(found.sums),)](
        points.values, ready.values, points.norms, by.centre, by.largest, ready.first, ready.second, ready.offsets, ready.bounds, *chunks,
        found.labels, found.sums, found.counts, found.inertia, ready.count, len(ready.values), d, width, METRIC=NUMBER[metric],
        BLOCK_D=triton.next_power_of_2(width), **_chunk_options(ready, block),
    )  # fmt: skip
    return found


def _long(metric: str, points: Points, ready: Centroids, block: Block) -> Found:
    """Labels of the points, then sums by them."""
    assert points.long is not None
    d, labels = points.values.shape[1], _labels(metric, points, points.long, ready, block)
    groups = torch.where(labels < 0, ready.count, labels // ready.grouping.size).to(ready.group_dtype)
    blocks = triton.cdiv(d, LONG_COLUMNS)
    chunks, found = _sorted(groups, labels, ready, d, blocks, block)
    triton_sums.sums_kernel[(len(found.sums), blocks)](
        points.values, ready.values, points.frame.centre, *chunks, labels, points.long.factors, points.long.errors, found.sums,
        found.counts, found.inertia, ready.count, d, METRIC=NUMBER[metric], BLOCK_D=LONG_COLUMNS, **_chunk_options(ready, block),
    )  # fmt: skip
    return found


def _sorted(groups: torch.Tensor, labels: torch.Tensor, ready: Centroids, d: int, blocks: int, block: Block
            ) -> tuple[tuple[torch.Tensor, torch.Tensor, torch.Tensor], Found]:  # fmt: skip
    """Points in the order of their groups [N], where each group starts there, and its first chunk; and room for what is found of chunks."""
    n, count, chunk, device = len(groups), ready.count, block["CHUNK"], groups.device
    ordered, order = groups.sort(stable=True)
    starts, first_chunks = torch.empty((2, count + 1), dtype=torch.int32, device=device)
    places = triton.next_power_of_2(count + 1)
    triton_sums.chunks_kernel[(1,)](ordered, starts, first_chunks, n, count, CHUNK=chunk, PLACES=places)
    most, size = n // chunk + count, ready.grouping.size
    sums, inertia = torch.empty((most, size, d), device=device), torch.empty((most, blocks), device=device)
    counts = torch.empty((most, size), dtype=torch.int32, device=device)
    return (order, starts, first_chunks), Found(labels, sums, counts, inertia, first_chunks)


def _chunk_options(ready: Centroids, block: Block) -> dict[str, Any]:
    """How the kernels that take chunks are compiled."""
    warps = ready.grouping.size // 8
    return {
        "CHUNK": block["CHUNK"],
        "PLACES": triton.next_power_of_2(ready.count + 1),
        "ROWS": block["ROWS"],
        "num_warps": warps,
        "num_stages": 1,
        "maxnreg": THIRD_OF_A_MULTIPROCESSOR if warps == 4 else HALF_A_MULTIPROCESSOR,
        **ready.grouping.constants,
    }


def _groups(metric: str, points: Points, ready: Centroids, block: Block) -> torch.Tensor:
    """The group [N] of each point's nearest centroid; the number of groups for a point that is not finite."""
    (n, d), k, device = points.values.shape, len(ready.values), points.values.device
    groups = torch.empty(n, dtype=ready.group_dtype, device=device)
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
    (n, d), width = points.values.shape, ready.first.shape[1]
    options = _tile_options(parts, rows, metric, block)
    if parts == 1 and block["num_warps"] == 8 and rows <= 128:
        options["maxnreg"] = HALF_A_MULTIPROCESSOR
    triton_groups.groups_held[_tile_grid(parts, rows, n)](
        points.values, points.frame.centre, points.frame.largest, ready.first, ready.second, ready.offsets, ready.bounds, points.norms,
        *lists, n, ready.tiles, d, width, BLOCK_D=triton.next_power_of_2(width), **options,
    )  # fmt: skip


def _labels(metric: str, points: Points, long: Long, ready: Centroids, block: Block) -> torch.Tensor:
    """The label [N] of each point, -1 for one that is not finite."""
    (n, d), k, device = points.values.shape, len(ready.values), points.values.device
    labels, rivals, pairs, undecided, left = torch.empty((5, n), dtype=torch.int32, device=device)
    pair_count, undecided_count, left_count = torch.zeros((3, 1), dtype=torch.int32, device=device)
    none, pairs_of = (undecided, undecided_count), (labels, rivals, pairs, pair_count)
    _labels_by_halves(1, block["BLOCK_Q"], metric, points, long, ready, (*pairs_of, *none, undecided, undecided_count), block)
    _labels_by_halves(2, 64, metric, points, long, ready, (*pairs_of, undecided, undecided_count, left, left_count), block)
    grid = (min(LISTED, triton.cdiv(n, 32)),)
    triton_labels.pairs_kernel[grid](points.values, ready.values, *pairs_of, k, d, METRIC=NUMBER[metric], ROWS=32, BLOCK_D=128)
    triton_groups.groups_exact[grid](
        points.values, ready.values, labels, left, left_count, k, -1, d, METRIC=NUMBER[metric], BLOCK_Q=32, BLOCK_N=64, BLOCK_D=16,
        **Grouping(1, 1, 1).constants,
    )  # fmt: skip
    return labels


def _labels_by_halves(parts: int, rows: int, metric: str, points: Points, long: Long, ready: Centroids, lists: tuple[torch.Tensor, ...],
                      block: Block) -> None:  # fmt: skip
    """`lists` are labels, rivals, the list of pairs and its count, and those of `_groups_by_halves`."""
    (n, d), width = points.values.shape, ready.first.shape[1]
    triton_labels.labels_kernel[_tile_grid(parts, rows, n)](
        points.values, long.half, points.norms, long.errors, long.factors, points.frame.centre, ready.first, ready.second, ready.offsets,
        ready.bounds, *lists, n, ready.tiles, d, width, LONG=width > EXACTLY, BLOCK_D=block["BLOCK_D"],
        **_tile_options(parts, rows, metric, block),
    )  # fmt: skip


def _tile_grid(parts: int, rows: int, n: int) -> tuple[int]:
    tiles = triton.cdiv(n, rows)
    return (tiles if parts == 1 else min(LISTED, tiles),)


def _tile_options(parts: int, rows: int, metric: str, block: Block) -> dict[str, Any]:
    """How the kernels that take tiles of points are compiled for one half or for two, which take twice the shared memory."""
    stages = block["num_stages"] if parts == 1 else 1
    options: dict[str, Any] = {"num_warps": block["num_warps"], "num_stages": stages}
    return options | {"METRIC": NUMBER[metric], "PARTS": parts, "BLOCK_Q": rows, "BLOCK_N": _block_n(block)}
