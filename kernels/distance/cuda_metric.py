"""CUDA device code that distance and knn share: sums of terms, ranking keys, and two ways over the data.

`stream` gives the key of one query and one row to LANES cooperating threads (a power of two up to a warp, or the whole block);
`tile` gives TQ x TN keys to each of 256 threads, through shared memory. Compile-time macros: METRIC, LANES, BLOCK_Q, BLOCK_N,
BLOCK_D; HALF for float16 inputs (default: float32) and VECTOR, the elements of a load that `stream` makes (default 1; more need rows
that begin at multiples of that many). Keys are those of `kernels.distance.triton_metric`.
"""

from __future__ import annotations

from kernels.metrics import NUMBER

THREADS = 256
WARP = 32
LOAD = 16
"""Bytes of the widest load."""

COMMON = r"""
#define L2 0
#define L1 1
#define DOT 2
#define COSINE 3
#define THREADS 256
typedef long long int64;

#ifdef HALF
typedef unsigned short element;
__device__ __forceinline__ float widen(element half) {
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(half));
    return wide;
}
#else
typedef float element;
__device__ __forceinline__ float widen(element value) { return value; }
#endif

struct Sum { float terms, xx, yy; };

__device__ __forceinline__ void add(float x, float y, float& terms) {
#if METRIC == L2
    float difference = x - y;
    terms += difference * difference;
#elif METRIC == L1
    terms += fabsf(x - y);
#else
    terms += x * y;
#endif
}

__device__ __forceinline__ float key_of(float terms, float xx, float yy) {
#if METRIC == DOT
    return 0.0f - terms;
#elif METRIC == COSINE
    float norms = sqrtf(xx) * sqrtf(yy);
    return norms == 0.0f ? 1.0f : 1.0f - terms / norms;
#else
    return terms;
#endif
}

__device__ __forceinline__ float distance_of(float key) {
#if METRIC == L2
    return sqrtf(key);
#elif METRIC == DOT
    return 0.0f - key;
#else
    return key;
#endif
}
"""

STREAM = r"""
#ifndef VECTOR
#define VECTOR 1
#endif
struct __align__(VECTOR * sizeof(element)) Vector { element at[VECTOR]; };

__device__ __forceinline__ float across_lanes(float value) {
    const int width = LANES < 32 ? LANES : 32;
    for (int step = width / 2; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step, width);
#if LANES > 32
    __shared__ float parts[LANES / 32];
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
    __syncthreads();
    value = 0.0f;
    for (int part = 0; part < LANES / 32; part++) value += parts[part];
#endif
    return value;
}

__device__ __forceinline__ void across_lanes(Sum& sum) {
    sum.terms = across_lanes(sum.terms);
#if METRIC == COSINE
    sum.xx = across_lanes(sum.xx);
    sum.yy = across_lanes(sum.yy);
#endif
}

// What this thread adds to the sums of query x and COUNT rows ys over columns first to last - 1.
template <int COUNT>
__device__ __forceinline__ void
add_columns(const element* x, const element* (&ys)[COUNT], int64 first, int64 last, Sum (&sums)[COUNT]) {
#pragma unroll (COUNT < 4 ? 4 : 1)
    for (int64 column = first + threadIdx.x % LANES * VECTOR; column < last; column += LANES * VECTOR) {
        Vector a = *(const Vector*)(x + column), b[COUNT];
#pragma unroll
        for (int row = 0; row < COUNT; row++) b[row] = *(const Vector*)(ys[row] + column);
#pragma unroll
        for (int row = 0; row < COUNT; row++)
#pragma unroll
            for (int at = 0; at < VECTOR; at++) {
                float xv = widen(a.at[at]), yv = widen(b[row].at[at]);
                add(xv, yv, sums[row].terms);
#if METRIC == COSINE
                sums[row].xx += xv * xv;
                sums[row].yy += yv * yv;
#endif
            }
    }
}

// The key of query x and row y of D columns, in every one of the LANES threads; a row that is not valid is not read.
__device__ __forceinline__ float stream(const element* x, const element* y, bool valid, int64 D) {
    Sum sum[1] = {};
    const element* ys[1] = {y};
    if (valid) add_columns(x, ys, 0, D, sum);
    across_lanes(sum[0]);
    return key_of(sum[0].terms, sum[0].xx, sum[0].yy);
}
"""

TILE = r"""
#define TQ (BLOCK_Q / 16)
#define TN (BLOCK_N / 16)

template <int COUNT> struct __align__(COUNT * sizeof(float)) Floats { float at[COUNT]; };

// COUNT numbers for each of 16 threads, in shared memory: number i of thread t, which is the row t + 16 i of a tile. Runs of up to four
// numbers are read at once, by neighbouring threads from neighbouring places.
template <int COUNT> struct Shared {
    static const int run = COUNT < 4 ? COUNT : 4;
    static __device__ __forceinline__ int place(int row) { return row / 16 / run * (16 * run) + row % 16 * run + row / 16 % run; }
    static __device__ __forceinline__ void read(const float* line, int thread, float (&numbers)[COUNT]) {
#pragma unroll
        for (int i = 0; i < COUNT; i += run) {
            Floats<run> some = *(const Floats<run>*)(line + place(thread + 16 * i));
#pragma unroll
            for (int at = 0; at < run; at++) numbers[i + at] = some.at[at];
        }
    }
};

// Keys of queries first_q + ty + 16 i and rows first_n + tx + 16 j, with tx = threadIdx.x % 16 and ty = threadIdx.x / 16.
__device__ __forceinline__ void
tile(const element* X, const element* Y, int64 first_q, int64 first_n, int64 Q, int64 N, int64 D, float keys[TQ][TN]) {
    __shared__ __align__(16) float xs[BLOCK_D][BLOCK_Q + 4], ys[BLOCK_D][BLOCK_N + 4];
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    float xx[TQ], yy[TN];
    for (int i = 0; i < TQ; i++) xx[i] = 0.0f;
    for (int j = 0; j < TN; j++) yy[j] = 0.0f;
    for (int i = 0; i < TQ; i++) for (int j = 0; j < TN; j++) keys[i][j] = 0.0f;
    for (int64 start = 0; start < D; start += BLOCK_D) {
#pragma unroll
        for (int at = threadIdx.x; at < BLOCK_Q * BLOCK_D; at += THREADS) {
            int64 row = first_q + at / BLOCK_D, column = start + at % BLOCK_D;
            xs[at % BLOCK_D][Shared<TQ>::place(at / BLOCK_D)] = row < Q && column < D ? widen(X[row * D + column]) : 0.0f;
        }
#pragma unroll
        for (int at = threadIdx.x; at < BLOCK_N * BLOCK_D; at += THREADS) {
            int64 row = first_n + at / BLOCK_D, column = start + at % BLOCK_D;
            ys[at % BLOCK_D][Shared<TN>::place(at / BLOCK_D)] = row < N && column < D ? widen(Y[row * D + column]) : 0.0f;
        }
        __syncthreads();
#pragma unroll 8
        for (int column = 0; column < BLOCK_D; column++) {
            float a[TQ], b[TN];
            Shared<TQ>::read(xs[column], ty, a);
            Shared<TN>::read(ys[column], tx, b);
#pragma unroll
            for (int i = 0; i < TQ; i++)
#pragma unroll
                for (int j = 0; j < TN; j++) add(a[i], b[j], keys[i][j]);
#if METRIC == COSINE
#pragma unroll
            for (int i = 0; i < TQ; i++) xx[i] += a[i] * a[i];
#pragma unroll
            for (int j = 0; j < TN; j++) yy[j] += b[j] * b[j];
#endif
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < TQ; i++)
#pragma unroll
        for (int j = 0; j < TN; j++) keys[i][j] = key_of(keys[i][j], xx[i], yy[j]);
}
"""


def macros(metric: str, half: bool = False, **sizes: int) -> tuple[str, ...]:
    """NVRTC options that define METRIC, the given sizes, and HALF for float16 inputs."""
    return (*(f"-D{name}={value}" for name, value in {"METRIC": NUMBER[metric], **sizes}.items()), *(("-DHALF",) if half else ()))


def lanes(d: int, vector: int = 1) -> int:
    """Threads that share a row of D columns, `vector` of them a load: the power of two from that many up, at most a warp."""
    return min(WARP, 1 << (-(-d // vector) - 1).bit_length())


def vector(d: int, size: int, *pointers: int) -> int:
    """Elements of `size` bytes that a load of rows of D columns can take: a power of two that divides D and every pointer."""
    return next(count for count in (8, 4, 2, 1) if count * size <= LOAD and all(at % (count * size) == 0 for at in (d * size, *pointers)))
