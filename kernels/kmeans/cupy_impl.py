"""Raw CUDA for every NVIDIA GPU from sm_60 on: direct differences in tiles, and sums over points sorted by their labels.

Labels come from tiles of points and centroids in shared memory, in float32. Points are sorted by label; each block sums a chunk of them
in float64 and writes a partial sum for each label that it meets; a block a centroid adds these in their order.
"""

from __future__ import annotations

from dataclasses import dataclass

import cupy

from kernels import cuda
from kernels.contract import Arrays, Block
from kernels.kmeans import KMeans
from kernels.kmeans.cuda_lloyd import ASSIGN, CHUNK, COMMON, ROWS, THREADS, UPDATE, WARP
from kernels.kmeans.lloyd import iterate
from kernels.kmeans.space import CUPY as SPACE

ARRAYS = "cupy"
DEVICES = ("cuda",)

__all__ = ["ARRAYS", "DEVICES", "SPACE", "launch", "prepare", "run", "sources", "step"]


@dataclass(frozen=True)
class Points:
    """Points [N, D] and their squared norms [N], which are not finite for a point that is not."""

    values: cupy.ndarray
    squares: cupy.ndarray


def sources(problem: KMeans, block: Block) -> list[cuda.CudaSource]:
    """All kernels of an iteration, one source."""
    macros = {"COSINE": int(problem.metric == "cosine"), **block}
    kernels = ("kmeans_squares", "kmeans_unit", "kmeans_assign", "kmeans_total", "kmeans_sums", "kmeans_means")
    return [cuda.CudaSource(COMMON + ROWS + ASSIGN + UPDATE, tuple(f"-D{name}={value}" for name, value in macros.items()), kernels)]


def run(problem: KMeans, inputs: Arrays, block: Block) -> Arrays:
    """Labels [n] and inertia of the last iteration, centroids [k, d] after it, and how many points each has [k]."""
    return iterate(problem, inputs, block, prepare, step)


def launch(source: cuda.CudaSource, name: str, grid: tuple[int, ...], *arguments: object, threads: int = THREADS) -> None:
    """Launch one of a source's kernels."""
    cuda.module(source).get_function(name)(grid, (threads,), arguments)


def prepare(problem: KMeans, points: cupy.ndarray, block: Block) -> Points:
    """The squared norms."""
    return Points(points, _squares(sources(problem, block)[0], points))


def step(problem: KMeans, points: Points, centroids: cupy.ndarray, block: Block) -> Arrays:
    """One iteration."""
    (source,), (n, d, k) = sources(problem, block), (problem.n, problem.d, problem.k)
    if problem.metric == "cosine":
        unit = cupy.empty_like(centroids)
        launch(source, "kmeans_unit", (-(-k * WARP // THREADS),), centroids, _squares(source, centroids), unit, k, d)
        centroids = unit
    blocks, chunks, width = -(-n // block["BLOCK_Q"]), -(-n // CHUNK), min(THREADS, -(-d // WARP) * WARP)
    labels, order = cupy.empty(n, cupy.int32), cupy.empty(n, cupy.int64)
    costs, inertia = cupy.empty(blocks, cupy.float64), cupy.empty((), cupy.float64)
    launch(source, "kmeans_assign", (blocks,), points.values, centroids, points.squares, labels, order, costs, n, k, d)
    launch(source, "kmeans_total", (1,), costs, inertia, blocks)
    order = cupy.sort(order)
    sums = cupy.empty((chunks + k, d), cupy.float64)
    launch(source, "kmeans_sums", (chunks, -(-d // width)), points.values, points.squares, order, sums, n, k, d, threads=width)
    means, counts = cupy.empty_like(centroids), cupy.empty(k, cupy.int32)
    launch(source, "kmeans_means", (k,), sums, order, centroids, means, counts, n, d)
    return {"labels": labels, "centroids": means, "counts": counts, "inertia": inertia}


def _squares(source: cuda.CudaSource, rows: cupy.ndarray) -> cupy.ndarray:
    squares = cupy.empty(len(rows), cupy.float32)
    launch(source, "kmeans_squares", (-(-len(rows) * WARP // THREADS),), rows, squares, *rows.shape)
    return squares
