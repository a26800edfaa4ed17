"""Raw CUDA for every NVIDIA GPU from sm_60 on: the lists by exact nearest neighbours among the centroids, then their rows, streamed.

A block takes a share of the rows that a query probes. Candidates better than the worst of the k best so far go into a buffer; when it
is full it is sorted, and the k best stay. A second kernel merges the shares of a query in the same way.
"""

from __future__ import annotations

import cupy

from kernels import cuda
from kernels.contract import Arrays, Block
from kernels.distance.cuda_metric import COMMON, STREAM, THREADS, lanes, macros, vector
from kernels.ivf.problem import SCRATCH, Ivf
from kernels.ivf.space import CUPY as SPACE
from kernels.knn import Knn
from kernels.knn import cupy_impl as nearest
from kernels.packing.cuda_packing import PACK

ARRAYS = "cupy"
DEVICES = ("cuda",)
BLOCKS = 1024
"""Blocks that share the rows of all queries, where there are as many."""
QUERIES = 1 << 15
"""Queries of a launch at most: a grid's second axis is limited."""
SHARED = 4096
"""Candidates of a buffer that lies in shared memory (32 KiB); a larger one lies in global memory."""

__all__ = ["ARRAYS", "DEVICES", "SPACE", "run", "sources"]

_CODE = (
    COMMON
    + STREAM
    + PACK
    + r"""
#define GROUPS (THREADS / LANES)

struct Best { int64* buffer; int64 k; };
__shared__ int64 worst;
__shared__ int count;

__device__ __forceinline__ void offer(const Best& best, int64 candidate) {
    if (candidate < worst) best.buffer[atomicAdd(&count, 1)] = candidate;
}

// Sorts the CAPACITY places of the buffer (bitonic) and leaves the k best.
__device__ void settle(const Best& best) {
    for (int at = count + threadIdx.x; at < CAPACITY; at += THREADS) best.buffer[at] = NONE;
    for (int size = 2; size <= CAPACITY; size *= 2)
        for (int step = size / 2; step > 0; step /= 2) {
            __syncthreads();
            for (int place = threadIdx.x; place < CAPACITY / 2; place += THREADS) {
                int low = place / step * 2 * step + place % step, high = low + step;
                int64 a = best.buffer[low], b = best.buffer[high];
                if ((a > b) == ((low & size) == 0)) { best.buffer[low] = b; best.buffer[high] = a; }
            }
        }
    __syncthreads();
    if (threadIdx.x == 0) { worst = best.buffer[best.k - 1]; count = count < best.k ? count : best.k; }
    __syncthreads();
}

__device__ Best begin(int64* scratch, int64 k) {
#if CAPACITY > SHARED
    Best best = {scratch + ((int64)blockIdx.y * gridDim.x + blockIdx.x) * CAPACITY, k};
#else
    __shared__ int64 buffer[CAPACITY];
    Best best = {buffer, k};
#endif
    if (threadIdx.x == 0) { worst = NONE; count = 0; }
    __syncthreads();
    return best;
}

// Sorts where the buffer may not hold BATCH candidates more; all threads of a block come here together.
__device__ __forceinline__ void make_room(const Best& best) {
    __syncthreads();
    bool full = count > CAPACITY - BATCH;
    __syncthreads();
    if (full) settle(best);
}

// The k best of one share (first grid axis) of the rows in the lists that a query (second) probes, batches of rows in turn.
extern "C" __global__ void __launch_bounds__(THREADS)
ivf_rows(const float* X, const float* Y, const int64* row_ids, const int64* offsets, const int64* probes, int64* found, int64* scratch,
         int64 k, int64 nprobe, int64 D) {
    Best best = begin(scratch, k);
    int64 query = blockIdx.y, turn = 0;
    for (int64 probe = 0; probe < nprobe; probe++) {
        int64 number = probes[query * nprobe + probe], end = offsets[number + 1];
        for (int64 first = offsets[number]; first < end; first += BATCH) {
            if (turn++ % gridDim.x != blockIdx.x) continue;
            for (int at = threadIdx.x / LANES; at < BATCH; at += GROUPS) {
                int64 row = first + at;
                float key = stream(X + query * D, Y + row * D, row < end, D);
                if (row < end && threadIdx.x % LANES == 0) offer(best, pack(key, row_ids[row]));
            }
            make_room(best);
        }
    }
    settle(best);
    for (int64 at = threadIdx.x; at < k; at += THREADS) found[(query * gridDim.x + blockIdx.x) * k + at] = best.buffer[at];
}

// Distances and ids of the k best of the `shares` shares of a query (second grid axis).
extern "C" __global__ void __launch_bounds__(THREADS)
ivf_merge(const int64* found, float* distances, int64* ids, int64* scratch, int64 k, int64 shares) {
    Best best = begin(scratch, k);
    int64 query = blockIdx.y;
    for (int64 first = 0; first < shares * k; first += THREADS) {
        int64 at = first + threadIdx.x;
        if (at < shares * k) offer(best, found[query * shares * k + at]);
        make_room(best);
    }
    settle(best);
    for (int64 at = threadIdx.x; at < k; at += THREADS) {
        int64 candidate = best.buffer[at];
        int bits = (int)(candidate >> 32);
        float key = candidate == NONE ? __int_as_float(0x7f800000) : __int_as_float(bits ^ ((bits >> 31) & 0x7fffffff));
        distances[query * k + at] = distance_of(key);
        ids[query * k + at] = candidate == NONE ? -1 : candidate & 0xffffffffLL;
    }
}
"""
)


def sources(problem: Ivf, block: Block) -> list[cuda.CudaSource]:
    """Those of the nearest centroids, and scan and merge, for arrays that begin at multiples of 16 bytes, as allocated ones do."""
    return [*nearest.sources(_lists(problem), _lists_block()), _source(problem, block, vector(problem.d, 4))]


def _source(problem: Ivf, block: Block, load: int) -> cuda.CudaSource:
    sizes = {
        "LANES": lanes(problem.d, load),
        "VECTOR": load,
        "BATCH": block["BATCH"],
        "CAPACITY": _capacity(problem, block),
        "SHARED": SHARED,
    }
    return cuda.CudaSource(_CODE, macros(problem.metric, **sizes), ("ivf_rows", "ivf_merge"))


def run(problem: Ivf, inputs: Arrays, block: Block) -> Arrays:
    """Distances and ids [q, k]."""
    queries, rows, k = inputs["queries"], inputs["rows"], problem.k
    distances = cupy.empty((problem.q, k), cupy.float32)
    ids = cupy.empty((problem.q, k), cupy.int64)
    if not problem.q:
        return {"distances": distances, "ids": ids}
    probes = nearest.run(_lists(problem), {"queries": queries, "collection": inputs["centroids"]}, _lists_block())["ids"]
    module = cuda.module(_source(problem, block, vector(problem.d, 4, queries.data.ptr, rows.data.ptr)))
    shares = max(1, min(BLOCKS // problem.q, -(-problem.probed // block["BATCH"])))
    outside = _capacity(problem, block) if _capacity(problem, block) > SHARED else 0
    step = max(1, min(QUERIES, SCRATCH // (8 * shares * (k + outside))))
    for first in range(0, problem.q, step):
        part = slice(first, min(first + step, problem.q))
        q = part.stop - first
        found = cupy.empty((q, shares, k), cupy.int64)
        scratch = cupy.empty((q, shares, outside), cupy.int64)
        arguments = (queries[part], rows, inputs["ids"], inputs["offsets"], probes[part], found, scratch, k, problem.nprobe, problem.d)
        module.get_function("ivf_rows")((shares, q), (THREADS,), arguments)
        module.get_function("ivf_merge")((1, q), (THREADS,), (found, distances[part], ids[part], scratch, k, shares))
    return {"distances": distances, "ids": ids}


def _capacity(problem: Ivf, block: Block) -> int:
    """Places of a buffer: a power of two with room for the k best and as many again, or a batch."""
    return 1 << (problem.k + max(problem.k, THREADS, block["BATCH"]) - 1).bit_length()


def _lists(problem: Ivf) -> Knn:
    """The search for the lists to probe."""
    return Knn(metric=problem.metric, q=problem.q, n=problem.lists, d=problem.d, k=problem.nprobe)


def _lists_block() -> Block:
    return dict(nearest.SPACE.default)
