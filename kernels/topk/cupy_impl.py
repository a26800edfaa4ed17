"""Raw CUDA for every NVIDIA GPU from sm_60 on: a radix select in registers, a block a row, or a segment of a long row.

Each thread holds ITEMS elements as packed candidates (see `kernels.packing`), unsigned. Their bytes are counted from the top, and of
each byte the one that the k-th smallest has is kept, until all that share it are wanted: at the latest after eight bytes,
since candidates are distinct. What is not larger goes to a list. The lists of a row's segments are its next, shorter row;
the last block of a row sorts its list in shared memory.
"""

from __future__ import annotations

import cupy

from kernels import cuda
from kernels.contract import Arrays, Block
from kernels.topk import NAN, TopK
from kernels.topk.space import CUPY as SPACE

ARRAYS = "cupy"
DEVICES = ("cuda",)
SCRATCH = 1 << 30
"""Bytes of lists that a call stays within, whatever the number of rows, unless one row alone needs more."""

__all__ = ["ARRAYS", "DEVICES", "SPACE", "run", "sources"]

_CODE = r"""
typedef long long int64;
typedef unsigned long long uint64;
#define NONE 0xffffffffffffffffULL  // after everything else

#if HALF
typedef unsigned short VALUE;
__device__ __forceinline__ float widen(VALUE bits) { float wide; asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(bits)); return wide; }
__device__ __forceinline__ VALUE narrow(float wide) { VALUE bits; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(wide)); return bits; }
#else
typedef float VALUE;
__device__ __forceinline__ float widen(VALUE value) { return value; }
__device__ __forceinline__ VALUE narrow(float wide) { return wide; }
#endif

#if PACKED
typedef uint64 ELEMENT;
__device__ __forceinline__ uint64 candidate(ELEMENT element, int64 column) { return element; }
#else
typedef VALUE ELEMENT;
__device__ __forceinline__ uint64 candidate(ELEMENT element, int64 column) {
    float value = widen(element);
    value = LARGEST ? 0.0f - value : value + 0.0f;  // neither gives -0.0
    int bits = __float_as_int(value), key = isnan(value) ? NAN_KEY : bits ^ ((bits >> 31) & 0x7fffffff);
    return ((uint64)(key ^ 0x80000000) << 32) | column;
}
#endif

// The byte of the `left`-th smallest among those counted, by the first warp; what is left within it.
__device__ __forceinline__ int find(const unsigned* counts, unsigned left, unsigned& within) {
    int lane = threadIdx.x;
    unsigned sum = 0, before;
    for (int i = 0; i < 8; i++) sum += counts[8 * lane + i];
    before = sum;
    for (int step = 1; step < 32; step *= 2) {
        unsigned other = __shfl_up_sync(0xffffffffu, before, step);
        if (lane >= step) before += other;
    }
    before -= sum;
    int byte = -1;
    if (before < left && left <= before + sum) {
        within = left - before;
        for (byte = 8 * lane; within > counts[byte]; byte++) within -= counts[byte];
    }
    return byte;
}

// A number that K of the block's candidates do not exceed, or, where equal ones forbid that, one that fewer do not exceed; then `fill`
// is what the rest are. There are at least K, NONE included.
__device__ uint64 bound(const uint64 (&mine)[ITEMS], unsigned K, uint64& fill) {
    __shared__ unsigned counts[256], left;
    __shared__ uint64 prefix;
    __shared__ bool all;
    if (threadIdx.x == 0) { prefix = 0; left = K; all = false; }
    for (int shift = 56; shift >= 0; shift -= 8) {
        for (int i = threadIdx.x; i < 256; i += THREADS) counts[i] = 0;
        __syncthreads();
        uint64 above = shift == 56 ? 0 : ~0ULL << (shift + 8);
#pragma unroll
        for (int i = 0; i < ITEMS; i++)
            if ((mine[i] & above) == prefix) atomicAdd(&counts[(mine[i] >> shift) & 255], 1);
        __syncthreads();
        if (threadIdx.x < 32) {
            unsigned within, sought = left;
            __syncwarp();  // before one of the warp writes it
            int byte = find(counts, sought, within);
            if (byte >= 0) {
                left = within;
                all = counts[byte] == within;
                prefix |= (uint64)byte << shift;
            }
        }
        __syncthreads();
        if (all) { fill = NONE; return prefix | ~(~0ULL << shift); }
    }
    fill = prefix;
    return prefix - 1;
}

// The K smallest of `length` elements to `list`, in any order; columns are counted from `first`.
__device__ void select(const ELEMENT* elements, int64 length, int64 first, uint64* list, int K) {
    __shared__ unsigned place;
    uint64 mine[ITEMS], fill;
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
        int64 at = threadIdx.x + i * THREADS;
        mine[i] = at < length ? candidate(elements[at], first + at) : NONE;
    }
    if (threadIdx.x == 0) place = 0;
    uint64 most = bound(mine, K, fill);
#pragma unroll
    for (int i = 0; i < ITEMS; i++)
        if (mine[i] <= most) list[atomicAdd(&place, 1)] = mine[i];
    __syncthreads();
    for (int at = place + threadIdx.x; at < K; at += THREADS) list[at] = fill;
}

// The list of one of the `segments` segments, of THREADS x ITEMS elements, of a row of M.
extern "C" __global__ void __launch_bounds__(THREADS)
topk_segment(const ELEMENT* elements, uint64* lists, int64 M, int64 segments, int K) {
    int64 first = blockIdx.x % segments * (THREADS * ITEMS);
    select(elements + blockIdx.x / segments * M + first, M - first, first, lists + (int64)blockIdx.x * K, K);
}

// Values and ids of the K smallest of a row of M <= THREADS x ITEMS elements, sorted; SIZE is the power of two from K on.
extern "C" __global__ void __launch_bounds__(THREADS)
topk_row(const ELEMENT* elements, VALUE* values, int64* ids, int64 M, int K) {
    __shared__ uint64 list[SIZE];
    select(elements + blockIdx.x * M, M, 0, list, K);
    for (int at = K + threadIdx.x; at < SIZE; at += THREADS) list[at] = NONE;
    for (int size = 2; size <= SIZE; size *= 2)
        for (int step = size / 2; step > 0; step /= 2) {
            __syncthreads();
            for (int pair = threadIdx.x; pair < SIZE / 2; pair += THREADS) {
                int low = 2 * pair - (pair & (step - 1));
                uint64 a = list[low], b = list[low + step];
                if ((a > b) == ((low & size) == 0)) { list[low] = b; list[low + step] = a; }
            }
        }
    __syncthreads();
    for (int at = threadIdx.x; at < K; at += THREADS) {
        int64 to = (int64)blockIdx.x * K + at;
        int bits = (int)(list[at] >> 32) ^ 0x80000000;
        float key = list[at] == NONE ? __int_as_float(0x7f800000) : __int_as_float(bits ^ ((bits >> 31) & 0x7fffffff));
        values[to] = narrow(LARGEST ? 0.0f - key : key);
        ids[to] = list[at] == NONE ? -1 : (int64)(list[at] & 0xffffffffULL);
    }
}
"""


def sources(problem: TopK, block: Block) -> list[cuda.CudaSource]:
    """The kernels for rows of the problem's elements, and for rows of lists of them."""
    size = 1 << (problem.k - 1).bit_length()
    macros = {"THREADS": block["THREADS"], "ITEMS": block["ITEMS"], "SIZE": size, "NAN_KEY": NAN}
    macros |= {"LARGEST": int(problem.largest), "HALF": int(problem.dtype == "float16")}
    options = tuple(f"-D{name}={value}" for name, value in macros.items())
    return [cuda.CudaSource(_CODE, (*options, f"-DPACKED={packed}"), ("topk_segment", "topk_row")) for packed in (0, 1)]


def run(problem: TopK, inputs: Arrays, block: Block) -> Arrays:
    """Values and ids [rows, k]."""
    rows = inputs["values"]
    values = cupy.empty((len(rows), problem.k), rows.dtype)
    ids = cupy.empty((len(rows), problem.k), cupy.int64)
    tile = block["THREADS"] * block["ITEMS"]
    modules = [cuda.module(source) for source in sources(problem, block)]
    step = max(1, SCRATCH // (16 * problem.k * -(-rows.shape[1] // tile) + 1))
    for first in range(0, len(rows), step):
        part = slice(first, min(first + step, len(rows)))
        _select(rows[part], values[part], ids[part], modules, tile, block["THREADS"])
    return {"values": values, "ids": ids}


def _select(rows: cupy.ndarray, values: cupy.ndarray, ids: cupy.ndarray, modules: list[object], tile: int, threads: int) -> None:
    """Shorten the rows until a block holds one, and write the best of them."""
    (count, columns), k = rows.shape, cupy.int32(values.shape[1])
    elements, packed = modules
    while columns > tile:
        segments = -(-columns // tile)
        lists = cupy.empty((count, segments * int(k)), cupy.uint64)
        elements.get_function("topk_segment")((count * segments,), (threads,), (rows, lists, columns, segments, k))
        rows, columns, elements = lists, lists.shape[1], packed
    elements.get_function("topk_row")((count,), (threads,), (rows, values, ids, columns, k))
