"""Raw CUDA for every NVIDIA GPU from sm_60 on, by the algorithm of `kernels.knn.triton_impl`: groups, then their rows again.

Both selections are a radix select of packed candidates, a block a row: eight passes find the k-th smallest by its bytes, one
more gathers what is not larger; long rows go in segments first. Only the k best are sorted. Apart from that sort everything
is a kernel of ours, so that CuPy compiles none of its own, for which it would want CUDA's headers.
"""

from __future__ import annotations

import cupy

from kernels import cuda
from kernels.contract import Arrays, Block
from kernels.distance.cuda_metric import COMMON, STREAM, THREADS, TILE, lanes, macros
from kernels.knn import SCRATCH, Knn
from kernels.knn.space import CUPY as SPACE
from kernels.knn.space import FEW
from kernels.packing.cuda_packing import PACK

ARRAYS = "cupy"
DEVICES = ("cuda",)
SEGMENT = 4096
"""Candidates that one block selects from at a time where a row has many more."""

__all__ = ["ARRAYS", "DEVICES", "SPACE", "run", "sources"]

_STREAM = (
    COMMON
    + STREAM
    + PACK
    + r"""
#define ROWS (THREADS / LANES)

// The best candidate of a group of BLOCK_N rows (first grid axis) for one query (second).
extern "C" __global__ void __launch_bounds__(THREADS)
knn_stream(const float* X, const float* Y, int64* best, int64 first, int64 N, int64 groups, int64 D) {
    __shared__ int64 found[ROWS];
    int64 query = blockIdx.y, candidate = NONE;
    for (int at = threadIdx.x / LANES; at < (BLOCK_N + ROWS - 1) / ROWS * ROWS; at += ROWS) {
        int64 row = (int64)blockIdx.x * BLOCK_N + at;
        bool valid = at < BLOCK_N && row < N;
        float key = stream(X + (first + query) * D, Y + row * D, valid, D);
        if (valid) candidate = smaller(candidate, pack(key, row));
    }
    if (threadIdx.x % LANES == 0) found[threadIdx.x / LANES] = candidate;
    for (int step = ROWS / 2; step > 0; step /= 2) {
        __syncthreads();
        if (threadIdx.x < step) found[threadIdx.x] = smaller(found[threadIdx.x], found[threadIdx.x + step]);
    }
    if (threadIdx.x == 0) best[query * groups + blockIdx.x] = found[0];
}

// All candidates of one of the `groups` groups chosen for a query; `chosen` holds candidates whose rows lie in those groups,
// or is null where all groups are chosen.
extern "C" __global__ void __launch_bounds__(THREADS)
knn_rescore(const float* X, const float* Y, const int64* chosen, int64* candidates, int64 first, int64 N, int64 groups, int64 D) {
    int64 place = blockIdx.x, query = first + place / groups;
    int64 start = chosen ? (chosen[place] & 0xffffffffLL) / BLOCK_N * BLOCK_N : place % groups * BLOCK_N;
    for (int at = threadIdx.x / LANES; at < (BLOCK_N + ROWS - 1) / ROWS * ROWS; at += ROWS) {
        int64 row = start + at;
        bool valid = at < BLOCK_N && row < N;
        float key = stream(X + query * D, Y + row * D, valid, D);
        if (at < BLOCK_N && threadIdx.x % LANES == 0) candidates[place * BLOCK_N + at] = valid ? pack(key, row) : NONE;
    }
}

// Distances and ids of `count` results, K a query from query `first` on; `sorted` has `found` a query, the rest is padding.
extern "C" __global__ void __launch_bounds__(THREADS)
knn_unpack(const int64* sorted, float* distances, int64* ids, int64 first, int64 count, int64 found, int64 K) {
    int64 at = (int64)blockIdx.x * THREADS + threadIdx.x;
    if (at >= count) return;
    int64 candidate = at % K < found ? sorted[at / K * found + at % K] : NONE;
    int bits = (int)(candidate >> 32);
    float key = __int_as_float(bits ^ ((bits >> 31) & 0x7fffffff));
    distances[first * K + at] = distance_of(candidate == NONE ? __int_as_float(0x7f800000) : key);
    ids[first * K + at] = candidate == NONE ? -1 : candidate & 0xffffffffLL;
}
"""
)

_TILE = (
    COMMON
    + TILE
    + PACK
    + r"""
// The best candidates of one group of BLOCK_N rows for BLOCK_Q queries.
extern "C" __global__ void __launch_bounds__(THREADS)
knn_tile(const float* X, const float* Y, int64* best, int64 first, int64 Q, int64 N, int64 groups, int64 D) {
    int64 tiles = (Q + BLOCK_Q - 1) / BLOCK_Q, first_q = blockIdx.x % tiles * BLOCK_Q, group = blockIdx.x / tiles;
    float keys[TQ][TN];
    tile(X + first * D, Y, first_q, group * BLOCK_N, Q, N, D, keys);
#pragma unroll
    for (int i = 0; i < TQ; i++) {
        int64 candidate = NONE, query = first_q + threadIdx.x / 16 + 16 * i;
#pragma unroll
        for (int j = 0; j < TN; j++) {
            int64 row = group * BLOCK_N + threadIdx.x % 16 + 16 * j;
            if (row < N) candidate = smaller(candidate, pack(keys[i][j], row));
        }
        for (int step = 8; step > 0; step /= 2) candidate = smaller(candidate, __shfl_xor_sync(0xffffffffu, candidate, step, 16));
        if (threadIdx.x % 16 == 0 && query < Q) best[query * groups + group] = candidate;
    }
}
"""
)

_SELECT = r"""
typedef long long int64;
typedef unsigned long long uint64;
#define THREADS 256

// The k smallest of each `segment` of each row of M integers, in any order, padded with the largest integer; a block a segment.
// The sign bit is flipped to compare unsigned.
extern "C" __global__ void __launch_bounds__(THREADS) knn_select(const int64* values, int64* smallest, int64 M, int64 K, int64 segment) {
    __shared__ unsigned int counts[256], place;
    __shared__ uint64 prefix;
    __shared__ int64 left;
    int64 segments = (M + segment - 1) / segment, start = blockIdx.x % segments * segment;
    int64 length = M - start < segment ? M - start : segment;
    values += blockIdx.x / segments * M + start;
    smallest += blockIdx.x * K;
    if (length <= K) {
        for (int64 at = threadIdx.x; at < K; at += THREADS) smallest[at] = at < length ? values[at] : 0x7fffffffffffffffLL;
        return;
    }
    if (threadIdx.x == 0) { prefix = 0; left = K; place = 0; }
    for (int shift = 56; shift >= 0; shift -= 8) {
        counts[threadIdx.x] = 0;
        __syncthreads();
        uint64 above = shift == 56 ? 0 : ~0ULL << (shift + 8);
        for (int64 at = threadIdx.x; at < length; at += THREADS) {
            uint64 value = (uint64)values[at] ^ (1ULL << 63);
            if ((value & above) == prefix) atomicAdd(&counts[(value >> shift) & 255], 1);
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            uint64 digit = 0;
            while (left > counts[digit]) left -= counts[digit++];
            prefix |= digit << shift;
        }
        __syncthreads();
    }
    int64 last = (int64)(prefix ^ (1ULL << 63));
    for (int64 at = threadIdx.x; at < length; at += THREADS)
        if (values[at] < last) smallest[atomicAdd(&place, 1)] = values[at];
    __syncthreads();
    for (int64 at = place + threadIdx.x; at < K; at += THREADS) smallest[at] = last;
}
"""


def sources(problem: Knn, block: Block) -> list[cuda.CudaSource]:
    """Streaming, rescoring and unpacking; selection; and tiles where queries are many."""
    width = lanes(problem.d)
    options = macros(problem.metric, LANES=width, BLOCK_N=block["BLOCK_N"])
    stream = cuda.CudaSource(_STREAM, options, ("knn_stream", "knn_rescore", "knn_unpack"))
    select = cuda.CudaSource(_SELECT, (), ("knn_select",))
    if problem.q < FEW:
        return [stream, select]
    return [stream, select, cuda.CudaSource(_TILE, macros(problem.metric, **block), ("knn_tile",))]


def run(problem: Knn, inputs: Arrays, block: Block) -> Arrays:
    """Distances and ids [q, k]."""
    queries, collection = inputs["queries"], inputs["collection"]
    groups = -(-len(collection) // block["BLOCK_N"])
    kernels = {name: source for source in sources(problem, block) for name in source.kernels}
    distances = cupy.empty((len(queries), problem.k), cupy.float32)
    ids = cupy.empty((len(queries), problem.k), cupy.int64)
    step = max(1, SCRATCH // (8 * (groups + min(problem.k, groups) * (block["BLOCK_N"] + 2)) + 1))
    for first in range(0, len(queries), step):
        part = slice(first, min(first + step, len(queries)))
        candidates = _candidates(problem, queries, collection, part, groups, kernels, block)
        best = cupy.sort(_smallest(kernels, candidates, min(problem.k, candidates.shape[1])), axis=1)
        count = len(best) * problem.k
        _launch(kernels, "knn_unpack", (-(-count // THREADS),), best, distances, ids, first, count, best.shape[1], problem.k)
    return {"distances": distances, "ids": ids}


def _launch(kernels: dict[str, cuda.CudaSource], name: str, grid: tuple[int, ...], *arguments: object) -> None:
    cuda.module(kernels[name]).get_function(name)(grid, (THREADS,), arguments)


def _candidates(problem: Knn, queries: cupy.ndarray, collection: cupy.ndarray, part: slice, groups: int,
                kernels: dict[str, cuda.CudaSource], block: Block) -> cupy.ndarray:  # fmt: skip
    """Candidates of all rows of the k best groups for the queries `part`; of all groups where there are no more than k."""
    q, (n, d), chosen = part.stop - part.start, collection.shape, None
    if groups > problem.k:
        best = cupy.empty((q, groups), cupy.int64)
        if len(queries) < FEW:
            _launch(kernels, "knn_stream", (groups, q), queries, collection, best, part.start, n, groups, d)
        else:
            tiles = -(-q // block["BLOCK_Q"]) * groups
            _launch(kernels, "knn_tile", (tiles,), queries, collection, best, part.start, q, n, groups, d)
        chosen = _smallest(kernels, best, problem.k)
    kept = min(groups, problem.k)
    candidates = cupy.empty((q, kept * block["BLOCK_N"]), cupy.int64)
    if kept:
        _launch(kernels, "knn_rescore", (q * kept,), queries, collection, chosen, candidates, part.start, n, kept, d)
    return candidates


def _smallest(kernels: dict[str, cuda.CudaSource], values: cupy.ndarray, k: int) -> cupy.ndarray:
    """The k smallest of each row, in any order; a row of more than two segments is cut into those and selected from twice."""
    q, width = values.shape
    segment = max(SEGMENT, 4 * k)
    while width > 2 * segment:
        segments = -(-width // segment)
        shorter = cupy.empty((q, segments * k), cupy.int64)
        _launch(kernels, "knn_select", (q * segments,), values, shorter, width, k, segment)
        values, width = shorter, segments * k
    smallest = cupy.empty((q, k), cupy.int64)
    if k:
        _launch(kernels, "knn_select", (q,), values, smallest, width, k, width)
    return smallest
