"""Raw CUDA for every NVIDIA GPU from sm_60 on: rows streamed where queries are few, tiles in shared memory where they are many."""

from __future__ import annotations

import cupy

from kernels import cuda
from kernels.contract import Arrays, Block
from kernels.distance import Distance
from kernels.distance.cuda_metric import COMMON, STREAM, THREADS, TILE, lanes, macros
from kernels.distance.space import CUPY as SPACE
from kernels.distance.space import FEW

ARRAYS = "cupy"
DEVICES = ("cuda",)

__all__ = ["ARRAYS", "DEVICES", "SPACE", "run", "sources"]

_STREAM = (
    COMMON
    + STREAM
    + r"""
// One row to LANES threads; the query is the second grid axis.
extern "C" __global__ void __launch_bounds__(THREADS) distance_stream(const float* X, const float* Y, float* out, int64 N, int64 D) {
    int64 row = (int64)blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES, query = blockIdx.y;
    float key = stream(X + query * D, Y + row * D, row < N, D);
    if (row < N && threadIdx.x % LANES == 0) out[query * N + row] = distance_of(key);
}
"""
)

_TILE = (
    COMMON
    + TILE
    + r"""
extern "C" __global__ void __launch_bounds__(THREADS) distance_tile(const float* X, const float* Y, float* out, int64 Q, int64 N, int64 D) {
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
    """The one kernel that this problem needs."""
    q, n = sorted((problem.q, problem.n)) if problem.n < FEW else (problem.q, problem.n)
    if q < FEW:
        width = THREADS if n == 1 else lanes(problem.d)
        return [cuda.CudaSource(_STREAM, macros(problem.metric, LANES=width), ("distance_stream",))]
    return [cuda.CudaSource(_TILE, macros(problem.metric, **block), ("distance_tile",))]


def run(problem: Distance, inputs: Arrays, block: Block) -> Arrays:
    """Distances [q, n]. Every metric is symmetric: the smaller side streams against the larger."""
    x, y = inputs["x"], inputs["y"]
    swapped = len(y) < min(len(x), FEW)
    if swapped:
        x, y = y, x
    (q, d), n = x.shape, len(y)
    out = cupy.empty((q, n), cupy.float32)
    if out.size:
        [source] = sources(problem, block)
        kernel = cuda.module(source).get_function(source.kernels[0])
        if q < FEW:
            a_block = 1 if n == 1 else THREADS // lanes(d)
            kernel((-(-n // a_block), q), (THREADS,), (x, y, out, n, d))
        else:
            tiles = -(-q // block["BLOCK_Q"]) * -(-n // block["BLOCK_N"])
            kernel((tiles,), (THREADS,), (x, y, out, q, n, d))
    return {"distances": out.T if swapped else out}
