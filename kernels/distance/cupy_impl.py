"""Raw CUDA for every NVIDIA GPU from sm_60 on: rows streamed where queries are few, tiles in shared memory where they are many."""

from __future__ import annotations

import cupy

from kernels import cuda
from kernels.contract import Arrays, Block
from kernels.distance import SIZE, Distance
from kernels.distance.cuda_metric import COMMON, STREAM, THREADS, TILE, lanes, macros, vector
from kernels.distance.space import CUPY as SPACE
from kernels.distance.space import FEW, SPAN, shared, tiled

ARRAYS = "cupy"
DEVICES = ("cuda",)
NARROW = 1024
"""Columns up to which a group of lanes takes four rows at once, to have loads enough under way."""

__all__ = ["ARRAYS", "DEVICES", "SPACE", "run", "sources"]

_STREAM = (
    COMMON
    + STREAM
    + r"""
// ROWS rows to each group of LANES threads; the query is the second grid axis. Past the end the last row is read again.
extern "C" __global__ void __launch_bounds__(THREADS)
distance_stream(const element* X, const element* Y, float* out, int64 N, int64 D) {
    const int groups = THREADS / LANES;
    const int64 first = (int64)blockIdx.x * (groups * ROWS) + threadIdx.x / LANES, query = blockIdx.y;
    const element* ys[ROWS];
    Sum sums[ROWS] = {};
#pragma unroll
    for (int row = 0; row < ROWS; row++) ys[row] = Y + min(first + row * groups, N - 1) * D;
    add_columns(X + query * D, ys, 0, D, sums);
#pragma unroll
    for (int row = 0; row < ROWS; row++) {
        across_lanes(sums[row]);
        if (first + row * groups < N && threadIdx.x % LANES == 0)
            out[query * N + first + row * groups] = distance_of(key_of(sums[row].terms, sums[row].xx, sums[row].yy));
    }
}
"""
)

_SHARE = (
    COMMON
    + STREAM
    + r"""
// The sums of one row and one query (second grid axis) over one of the `spans` spans of SPAN columns; sums is [pairs, spans].
extern "C" __global__ void __launch_bounds__(THREADS)
distance_share(const element* X, const element* Y, Sum* sums, int64 N, int64 D, int64 spans) {
    int64 row = blockIdx.x / spans, query = blockIdx.y, span = blockIdx.x % spans, first = span * SPAN;
    Sum sum[1] = {};
    const element* ys[1] = {Y + row * D};
    add_columns(X + query * D, ys, first, min(first + SPAN, D), sum);
    across_lanes(sum[0]);
    if (threadIdx.x == 0) sums[(query * N + row) * spans + span] = sum[0];
}

// The distance of one pair from its sums, always added in the same order.
extern "C" __global__ void __launch_bounds__(THREADS) distance_join(const Sum* sums, float* out, int64 spans) {
    Sum sum = {};
    for (int64 span = threadIdx.x; span < spans; span += THREADS) {
        Sum one = sums[blockIdx.x * spans + span];
        sum.terms += one.terms;
        sum.xx += one.xx;
        sum.yy += one.yy;
    }
    across_lanes(sum);
    if (threadIdx.x == 0) out[blockIdx.x] = distance_of(key_of(sum.terms, sum.xx, sum.yy));
}
"""
)

_TILE = (
    COMMON
    + TILE
    + r"""
extern "C" __global__ void __launch_bounds__(THREADS, 2)
distance_tile(const element* X, const element* Y, float* out, int64 Q, int64 N, int64 D) {
    int64 tiles = (Q + BLOCK_Q - 1) / BLOCK_Q, first_q = blockIdx.x % tiles * BLOCK_Q, first_n = blockIdx.x / tiles * BLOCK_N;
    float keys[TQ][TN];
    tile(X, Y, first_q, first_n, Q, N, D, keys);
#pragma unroll
    for (int i = 0; i < TQ; i++)
#pragma unroll
        for (int j = 0; j < TN; j++) {
            int64 query = first_q + threadIdx.x / 16 + 16 * i, row = first_n + threadIdx.x % 16 + 16 * j;
            if (query < Q && row < N) out[query * N + row] = distance_of(keys[i][j]);
        }
}
"""
)


def sources(problem: Distance, block: Block) -> list[cuda.CudaSource]:
    """What this problem needs of arrays that begin at multiples of 16 bytes, as allocated ones do."""
    return [_source(problem, block, vector(problem.d, SIZE[problem.dtype]))]


def _source(problem: Distance, block: Block, load: int) -> cuda.CudaSource:
    half = problem.dtype == "float16"
    if shared(problem):
        options = macros(problem.metric, half, LANES=THREADS, VECTOR=load, SPAN=SPAN)
        return cuda.CudaSource(_SHARE, options, ("distance_share", "distance_join"))
    if tiled(problem):
        return cuda.CudaSource(_TILE, macros(problem.metric, half, **block), ("distance_tile",))
    width, rows = _strip(problem, load)
    return cuda.CudaSource(_STREAM, macros(problem.metric, half, LANES=width, VECTOR=load, ROWS=rows), ("distance_stream",))


def _strip(problem: Distance, load: int) -> tuple[int, int]:
    """Lanes a row, and rows a group of lanes."""
    if problem.q * problem.n == 1:
        return THREADS, 1
    return lanes(problem.d, load), 4 if problem.d <= NARROW else 1


def run(problem: Distance, inputs: Arrays, block: Block) -> Arrays:
    """Distances [q, n]. Every metric is symmetric: the smaller side streams against the larger."""
    x, y = inputs["x"], inputs["y"]
    swapped = len(y) < min(len(x), FEW)
    if swapped:
        x, y = y, x
    (q, d), n = x.shape, len(y)
    out = cupy.empty((q, n), cupy.float32)
    if out.size:
        load = vector(d, x.itemsize, x.data.ptr, y.data.ptr)
        source = _source(problem, block, load)
        kernel = [cuda.module(source).get_function(name) for name in source.kernels]
        if shared(problem):
            spans = -(-d // SPAN)
            sums = cupy.empty((q * n, spans, 3), cupy.float32)
            kernel[0]((n * spans, q), (THREADS,), (x, y, sums, n, d, spans))
            kernel[1]((q * n,), (THREADS,), (sums, out, spans))
        elif tiled(problem):
            tiles = -(-q // block["BLOCK_Q"]) * -(-n // block["BLOCK_N"])
            kernel[0]((tiles,), (THREADS,), (x, y, out, q, n, d))
        else:
            width, rows = _strip(problem, load)
            kernel[0]((-(-n // (THREADS // width * rows)), q), (THREADS,), (x, y, out, n, d))
    return {"distances": out.T if swapped else out}
