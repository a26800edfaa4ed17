"""CUDA device code that distance and knn share: sums of terms, ranking keys, and two ways over the data.

`stream` gives the key of one query and one row to LANES cooperating threads (a power of two up to a warp, or the whole block);
`tile` gives TQ x TN keys to each of 256 threads, through shared memory. Compile-time macros: METRIC, LANES, BLOCK_Q, BLOCK_N,
BLOCK_D. Keys are those of `kernels.distance.triton_metric`.
"""

from __future__ import annotations

from kernels.metrics import NUMBER

THREADS = 256
WARP = 32

COMMON = r"""
#define L2 0
#define L1 1
#define DOT 2
#define COSINE 3
#define THREADS 256
typedef long long int64;

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

// The key of query x and row y of D columns, in every one of the LANES threads; a row that is not valid is not read.
__device__ float stream(const float* x, const float* y, bool valid, int64 D) {
    Sum sum = {0.0f, 0.0f, 0.0f};
    if (valid) {
#pragma unroll 4
        for (int64 column = threadIdx.x % LANES; column < D; column += LANES) {
            float a = x[column], b = y[column];
            add(a, b, sum.terms);
#if METRIC == COSINE
            sum.xx += a * a;
            sum.yy += b * b;
#endif
        }
    }
    sum.terms = across_lanes(sum.terms);
#if METRIC == COSINE
    sum.xx = across_lanes(sum.xx);
    sum.yy = across_lanes(sum.yy);
#endif
    return key_of(sum.terms, sum.xx, sum.yy);
}
"""

TILE = r"""
#define TQ (BLOCK_Q / 16)
#define TN (BLOCK_N / 16)

// Keys of queries first_q + ty + 16 i and rows first_n + tx + 16 j, with tx = threadIdx.x % 16 and ty = threadIdx.x / 16.
__device__ __forceinline__ void
tile(const float* X, const float* Y, int64 first_q, int64 first_n, int64 Q, int64 N, int64 D, float keys[TQ][TN]) {
    __shared__ float xs[BLOCK_D][BLOCK_Q + 1], ys[BLOCK_D][BLOCK_N + 1];
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    float xx[TQ], yy[TN];
    for (int i = 0; i < TQ; i++) xx[i] = 0.0f;
    for (int j = 0; j < TN; j++) yy[j] = 0.0f;
    for (int i = 0; i < TQ; i++) for (int j = 0; j < TN; j++) keys[i][j] = 0.0f;
    for (int64 start = 0; start < D; start += BLOCK_D) {
        for (int at = threadIdx.x; at < BLOCK_Q * BLOCK_D; at += THREADS) {
            int64 row = first_q + at / BLOCK_D, column = start + at % BLOCK_D;
            xs[at % BLOCK_D][at / BLOCK_D] = row < Q && column < D ? X[row * D + column] : 0.0f;
        }
        for (int at = threadIdx.x; at < BLOCK_N * BLOCK_D; at += THREADS) {
            int64 row = first_n + at / BLOCK_D, column = start + at % BLOCK_D;
            ys[at % BLOCK_D][at / BLOCK_D] = row < N && column < D ? Y[row * D + column] : 0.0f;
        }
        __syncthreads();
#pragma unroll 8
        for (int column = 0; column < BLOCK_D; column++) {
            float a[TQ], b[TN];
#pragma unroll
            for (int i = 0; i < TQ; i++) a[i] = xs[column][ty + 16 * i];
#pragma unroll
            for (int j = 0; j < TN; j++) b[j] = ys[column][tx + 16 * j];
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


def macros(metric: str, **sizes: int) -> tuple[str, ...]:
    """NVRTC options that define METRIC and the given sizes."""
    return tuple(f"-D{name}={value}" for name, value in {"METRIC": NUMBER[metric], **sizes}.items())


def lanes(d: int) -> int:
    """Threads that share a row of D columns: the power of two from D up, at most a warp."""
    return min(WARP, 1 << (d - 1).bit_length())
