"""Triton: labels from half-precision products, what those leave open from more exact arithmetic, sums by points sorted by group.

1. Centroids are centred, scaled and halved.
2. Each point meets all centroids on tensor cores. For nearly all points that settles in which small group of centroids the nearest one
   is; the others are compared with two groups, or again with all, more exactly (`triton_labels`).
3. Points are sorted by group, with a stable sort of integers. Piece by piece they meet the few centroids of their group, which gives
   labels, and are added up (`triton_sums`).

What compares direct differences is compiled without fused products: where threads add up a row together, each its own part last, fused
ones would give each another last bit, and the threads would not agree on the label.

So the points are read twice an iteration. Scratch is some 50 bytes a point, the sums of the pieces, and room for the points that
programs have at work. Rows of few columns, where products are no gain, go another way (`triton_narrow`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import triton

from kernels.contract import Arrays, Block
from kernels.filter import EXACTLY, NARROW, TILE
from kernels.filter.prepare import Frame, half_width
from kernels.kmeans import KMeans, triton_labels, triton_narrow, triton_sums
from kernels.kmeans.lloyd import iterate
from kernels.kmeans.space import TRITON as SPACE
from kernels.kmeans.space import WIDEST
from kernels.kmeans.torch_impl import unit
from kernels.kmeans.triton_frame import frame
from kernels.kmeans.triton_halves import centroids_kernel
from kernels.metrics import NUMBER
from kernels.packing import NONE

ARRAYS = "torch"
DEVICES = ("cuda",)
WORKERS = 1024
"""Programs that share a list; each goes on until it is done."""
ROOMS = 528
"""Programs that take tiles of points, each with room for one: four for each of the 132 multiprocessors of an H100."""
OPEN_TILE = 64
"""Points of a tile in two halves."""
STAGES = 3
"""Tiles of a piece that are on their way at a time."""
ROOM = 1 << 30
"""Bytes of their rooms at most, but for one program's."""
PIECES = 16
"""Pieces that a program adds up at a time."""
HALF_A_MULTIPROCESSOR = 128
"""Registers a thread with which two programs of 8 warps share a multiprocessor: one loads while the other multiplies."""

__all__ = ["ARRAYS", "DEVICES", "SPACE", "prepare", "run", "step"]


@dataclass(frozen=True)
class Points:
    """Points [N, D], the frame that they are seen in, and what brings each into it [N], for cosine, once groups are known."""

    values: torch.Tensor
    frame: Frame
    factors: torch.Tensor


@dataclass(frozen=True)
class Centroids:
    """Centroids [K, D], and in two halves [padded, width] with offsets [padded] and bounds [3] (see `centroids_kernel`)."""

    values: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor
    offsets: torch.Tensor
    bounds: torch.Tensor


def run(problem: KMeans, inputs: Arrays, block: Block) -> Arrays:
    """Labels [n] and inertia of the last iteration, centroids [k, d] after it, and how many points each has [k]."""
    return iterate(problem, inputs, block, prepare, step)


def prepare(problem: KMeans, points: torch.Tensor, block: Block) -> Points | torch.Tensor:
    """What all iterations share: the points and their frame; for rows of few columns the points alone."""
    if problem.d < NARROW:
        return points
    return Points(points, frame(problem.metric, points), torch.empty(len(points), device=points.device))


def step(problem: KMeans, points: Points | torch.Tensor, centroids: torch.Tensor, block: Block) -> Arrays:
    """One iteration."""
    if not isinstance(points, Points):
        return triton_narrow.step(problem, points, centroids, block)
    ready = _centroids(problem.metric, points.frame, centroids if problem.metric == "l2" else unit(centroids), block)
    groups = _groups(problem, points, ready, block)
    outputs = _means(problem, points, ready.values, groups, block)
    return outputs if problem.metric == "l2" else outputs | {"centroids": unit(outputs["centroids"])}


def _centroids(metric: str, by: Frame, centroids: torch.Tensor, block: Block) -> Centroids:
    (k, d), width, device = centroids.shape, half_width(centroids.shape[1]), centroids.device
    span = max(TILE, block["BLOCK_N"])
    padded = triton.cdiv(k, span) * span
    first, second = torch.empty((2, padded, width), dtype=torch.float16, device=device)
    offsets, bounds = torch.empty(padded, device=device), torch.zeros(3, device=device)
    centroids_kernel[(padded // TILE,)](
        centroids, by.centre, by.largest, first, second, offsets, bounds, k, d, width, METRIC=NUMBER[metric], ROWS=TILE,
        BLOCK_D=min(64, triton.next_power_of_2(width)), num_warps=8,
    )  # fmt: skip
    return Centroids(centroids, first, second, offsets, bounds)


def _size(d: int, block: Block) -> int:
    """Centroids of a group: several where rows are short enough for a program to compare a point with each of them."""
    return block["GROUP"] if d <= WIDEST else 1


def _groups(problem: KMeans, points: Points, ready: Centroids, block: Block) -> torch.Tensor:
    """The group [N] of each point's nearest centroid, -1 for a point that is not finite."""
    (n, d), k, metric, size, device = points.values.shape, problem.k, NUMBER[problem.metric], _size(problem.d, block), points.values.device
    groups, rivals, pairs, undecided, left = torch.empty((5, n), dtype=torch.int32, device=device)
    pair_count, undecided_count, left_count = torch.zeros((3, 1), dtype=torch.int32, device=device)
    pairs_of = (groups, rivals, pairs, pair_count)
    _groups_by_halves(1, problem, points, ready, (*pairs_of, undecided, undecided_count, undecided, undecided_count), block)
    _groups_by_halves(2, problem, points, ready, (*pairs_of, undecided, undecided_count, left, left_count), block)
    triton_labels.pairs_kernel[(WORKERS,)](
        points.values, ready.values, *pairs_of, k, d, METRIC=metric, SIZE=size, ROWS=32, BLOCK_D=128, enable_fp_fusion=False
    )
    best = torch.full((n,), NONE, dtype=torch.int64, device=device)
    triton_labels.exact_kernel[(WORKERS,)](
        points.values, ready.values, best, left, left_count, k, d, METRIC=metric, BLOCK_Q=16, BLOCK_N=16, BLOCK_D=16,
        enable_fp_fusion=False,
    )  # fmt: skip
    triton_labels.unpack_kernel[(WORKERS,)](points.values, best, groups, left, left_count, -1, d, SIZE=size, ROWS=32, BLOCK_D=128)
    return groups


def _groups_by_halves(parts: int, problem: KMeans, points: Points, ready: Centroids, lists: tuple[torch.Tensor, ...], block: Block) -> None:
    """`lists` are groups, rivals, the list of pairs and its count, the list of points to take for two parts and its count, and the
    list of those left open and its count."""
    (n, d), width, rows = points.values.shape, ready.first.shape[1], block["BLOCK_Q"] if parts == 1 else OPEN_TILE
    held = d <= WIDEST
    columns = triton.next_power_of_2(width) if held else block["BLOCK_D"]
    each = (parts, rows, triton.cdiv(width, columns) * columns)
    programs = max(1, min(ROOMS, triton.cdiv(n, rows), ROOM // (2 * math.prod(each))))
    room = torch.empty((programs, *each), dtype=torch.float16, device=points.values.device)
    options: dict[str, Any] = {"num_warps": block["num_warps"], "num_stages": block["num_stages"] if parts == 1 else 1}
    if held and parts == 1 and block["num_warps"] == 8 and rows * block["BLOCK_N"] <= 128 * 128:
        options["maxnreg"] = HALF_A_MULTIPROCESSOR
    triton_labels.groups_kernel[(programs,)](
        points.values, points.frame.centre, points.frame.largest, ready.first, ready.second, ready.offsets, ready.bounds, points.factors,
        room, *lists, n, len(ready.offsets) // TILE, d, width, METRIC=NUMBER[problem.metric], PARTS=parts, SIZE=_size(d, block), HELD=held,
        LONG=width > EXACTLY, KEPT=2 if held and parts == 1 else 3, BLOCK_Q=rows, BLOCK_N=block["BLOCK_N"], BLOCK_D=columns, **options,
    )  # fmt: skip


def _means(problem: KMeans, points: Points, centroids: torch.Tensor, groups: torch.Tensor, block: Block) -> Arrays:
    """Labels [N], the mean [K, D] and number [K] of each centroid's points, and the inertia."""
    (n, d), k, device, chunk, size = points.values.shape, problem.k, groups.device, block["CHUNK"], _size(problem.d, block)
    many = triton.cdiv(k, 4 * size) * 4  # groups lie four abreast
    constants: dict[str, Any] = {
        "METRIC": NUMBER[problem.metric],
        "SIZE": size,
        "CHUNK": chunk,
        "BLOCK_D": min(128, triton.next_power_of_2(d)),
    }
    pieces, blocks = triton.cdiv(n, chunk), triton.cdiv(d, constants["BLOCK_D"])
    ordered, order = (groups.to(torch.int16) if many < 1 << 15 else groups).sort(stable=True)  # a sort reads and writes by the byte
    starts = torch.empty(many + 1, dtype=torch.int32, device=device)
    triton_sums.starts_kernel[(triton.cdiv(many + 1, 128),)](ordered, starts, n, many, BLOCK=128)
    sums = torch.empty((pieces + many, size, d), device=device)
    labels = groups  # where they are not the labels already, these take their place; -1 stays
    counts, inertia = torch.empty((pieces + many, size), dtype=torch.int32, device=device), torch.empty((pieces, blocks), device=device)
    triton_sums.sums_kernel[(pieces, blocks)](
        points.values, centroids, points.factors, ordered, order, starts, labels, sums, counts, inertia, n, k, d, ROWS=block["ROWS"],
        STAGES=STAGES, num_warps=block["ROWS"] // (4 if size > 1 else 8), maxnreg=HALF_A_MULTIPROCESSOR,
        enable_fp_fusion=False,
        **constants,
    )  # fmt: skip
    means, sizes = torch.empty_like(centroids), torch.empty(k, dtype=torch.int32, device=device)
    triton_sums.means_kernel[(k, blocks)](sums, counts, starts, centroids, means, sizes, d, PIECES=PIECES, **constants)
    return {"labels": labels, "centroids": means, "counts": sizes, "inertia": inertia.sum(dtype=torch.float64)}
