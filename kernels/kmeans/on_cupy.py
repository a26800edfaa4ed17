"""What the public function needs of CuPy, by kernels of our own; see `kernels.kmeans.seeding` and `kernels.kmeans.lloyd`."""

from __future__ import annotations

import cupy
import numpy as np

from kernels import cuda
from kernels.kmeans import on_numpy
from kernels.kmeans.cuda_lloyd import COMMON, ROWS, SEEDING, THREADS, WARP
from kernels.kmeans.cupy_impl import launch
from kernels.kmeans.seeding import SMALL, rounds

_KERNELS = ("kmeans_squares", "kmeans_unit", "kmeans_take", "kmeans_own", "kmeans_spread")


def source(metric: str) -> cuda.CudaSource:
    """All kernels of this module."""
    options = (f"-DCOSINE={int(metric == 'cosine')}", f"-DSMALL={SMALL}f")
    return cuda.CudaSource(COMMON + ROWS + SEEDING, options, _KERNELS)


def host(array: cupy.ndarray) -> np.ndarray:
    """A copy as NumPy's array; waits for the device."""
    return array.get()


def squares(points: cupy.ndarray) -> np.ndarray:
    """Squared norms [N] in float32, on the host."""
    return host(_squares(points))


def unit(rows: cupy.ndarray) -> cupy.ndarray:
    """Rows scaled to length 1; zero rows stay."""
    out = cupy.empty_like(rows)
    launch(source("l2"), "kmeans_unit", _warps(rows), rows, _squares(rows), out, *rows.shape)
    return out


def take(points: cupy.ndarray, ids: np.ndarray) -> cupy.ndarray:
    """The rows `ids`."""
    rows = cupy.empty((len(ids), points.shape[1]), cupy.float32)
    launch(source("l2"), "kmeans_take", (len(ids),), points, cupy.asarray(ids), rows, points.shape[1], np.int32(0))
    return rows


def replaced(centroids: cupy.ndarray, ids: np.ndarray, rows: cupy.ndarray) -> cupy.ndarray:
    """A copy of the centroids with `rows` as those of `ids`."""
    centroids = centroids.copy()
    launch(source("l2"), "kmeans_take", (len(ids),), rows, cupy.asarray(ids), centroids, rows.shape[1], np.int32(1))
    return centroids


def shift(before: cupy.ndarray, after: cupy.ndarray) -> float:
    """Sum of the squared differences."""
    return on_numpy.shift(host(before), host(after))


def distances(metric: str, points: cupy.ndarray, centroids: cupy.ndarray, labels: cupy.ndarray) -> np.ndarray:
    """Squared distances (l2) or distances (cosine) of points to their centroids [N], on the host; -1 for label -1."""
    found = cupy.empty(len(points), cupy.float32)
    launch(source(metric), "kmeans_own", _warps(points), points, centroids, labels, found, *points.shape)
    return host(found)


def plus_plus(sample: cupy.ndarray, k: int, seed: int) -> cupy.ndarray:
    """k rows of the sample by k-means++."""
    (n, d), rng = sample.shape, np.random.default_rng(seed)
    centroids, waits = cupy.empty((k, d), cupy.float32), cupy.empty(n, cupy.int64)
    weights = cupy.asarray(np.full(n, np.inf, np.float32))
    drawn, start = cupy.asarray(rng.integers(n, size=1)), 0
    counts = rounds(k)
    for count, following in zip(counts, [*counts[1:], 0], strict=True):
        launch(source("l2"), "kmeans_take", (count,), sample, drawn, centroids[start : start + count], d, np.int32(0))
        start += count
        if following:
            salt = np.uint32(rng.integers(1 << 32))
            launch(source("l2"), "kmeans_spread", _warps(sample), sample, drawn, weights, waits, n, d, np.int32(count), salt)
            drawn = cupy.sort(waits)
    return centroids


def _squares(rows: cupy.ndarray) -> cupy.ndarray:
    found = cupy.empty(len(rows), cupy.float32)
    launch(source("l2"), "kmeans_squares", _warps(rows), rows, found, *rows.shape)
    return found


def _warps(rows: cupy.ndarray) -> tuple[int]:
    """The grid that gives each row a warp."""
    return (-(-len(rows) * WARP // THREADS),)
