"""CUDA device code of k-means for sm_60 and newer; see `kernels.kmeans.cupy_impl` and `kernels.kmeans.on_cupy`.

Compile-time macros: COSINE (0 or 1), and for the kernels of an iteration BLOCK_Q, BLOCK_N, BLOCK_D. No float is added atomically.
"""

from __future__ import annotations

THREADS = 256
WARP = 32
CHUNK = 512
"""Sorted points whose sums one block takes."""

COMMON = (
    f"""
#define THREADS {THREADS}
#define CHUNK {CHUNK}
"""
    + r"""
typedef long long int64;
typedef unsigned int uint32;

__device__ __forceinline__ bool finite(float value) { return value - value == 0.0f; }

__device__ __forceinline__ float across_warp(float value) {
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
    return value;
}

// The sum over a block, in every thread; always in the same order.
__device__ __forceinline__ double across_block(double value) {
    __shared__ double parts[THREADS];
    __syncthreads();
    parts[threadIdx.x] = value;
    for (int step = blockDim.x / 2; step > 0; step /= 2) {
        __syncthreads();
        if (threadIdx.x < step) parts[threadIdx.x] += parts[threadIdx.x + step];
    }
    __syncthreads();
    return parts[0];
}
"""
)

ROWS = r"""
// Squared norms of rows, a warp each.
extern "C" __global__ void __launch_bounds__(THREADS) kmeans_squares(const float* X, float* squares, int64 N, int64 D) {
    int64 row = ((int64)blockIdx.x * THREADS + threadIdx.x) / 32;
    float sum = 0.0f;
    if (row < N) for (int64 column = threadIdx.x % 32; column < D; column += 32) sum += X[row * D + column] * X[row * D + column];
    sum = across_warp(sum);
    if (row < N && threadIdx.x % 32 == 0) squares[row] = sum;
}

// Rows scaled to length 1, a warp each; zero rows stay.
extern "C" __global__ void __launch_bounds__(THREADS) kmeans_unit(const float* X, const float* squares, float* out, int64 N, int64 D) {
    int64 row = ((int64)blockIdx.x * THREADS + threadIdx.x) / 32;
    if (row >= N) return;
    float norm = squares[row] > 0.0f ? sqrtf(squares[row]) : 1.0f;
    for (int64 column = threadIdx.x % 32; column < D; column += 32) out[row * D + column] = X[row * D + column] / norm;
}
"""

ASSIGN = r"""
#define TQ (BLOCK_Q / 16)
#define TN (BLOCK_N / 16)

// What a column adds to a key: squared differences, or the negative product with a centroid of length 1.
__device__ __forceinline__ void add(float x, float c, float& key) {
#if COSINE
    key -= x * c;
#else
    float difference = x - c;
    key += difference * difference;
#endif
}

// Labels of BLOCK_Q points, and for the sort (label, or K for none) << 32 | point; costs[block] is their part of the inertia.
extern "C" __global__ void __launch_bounds__(THREADS)
kmeans_assign(const float* X, const float* C, const float* squares, int* labels, int64* order, double* costs, int64 N, int64 K, int64 D) {
    __shared__ float xs[BLOCK_D][BLOCK_Q + 1], cs[BLOCK_D][BLOCK_N + 1];
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    const int64 first = (int64)blockIdx.x * BLOCK_Q;
    float best[TQ];
    int own[TQ];
    for (int i = 0; i < TQ; i++) { best[i] = __int_as_float(0x7f800000); own[i] = 0; }
    for (int64 start_k = 0; start_k < K; start_k += BLOCK_N) {
        float keys[TQ][TN];
#pragma unroll
        for (int i = 0; i < TQ; i++)
#pragma unroll
            for (int j = 0; j < TN; j++) keys[i][j] = 0.0f;
        for (int64 start = 0; start < D; start += BLOCK_D) {
            for (int at = threadIdx.x; at < BLOCK_Q * BLOCK_D; at += THREADS) {
                int64 row = first + at / BLOCK_D, column = start + at % BLOCK_D;
                xs[at % BLOCK_D][at / BLOCK_D] = row < N && column < D ? X[row * D + column] : 0.0f;
            }
            for (int at = threadIdx.x; at < BLOCK_N * BLOCK_D; at += THREADS) {
                int64 row = start_k + at / BLOCK_D, column = start + at % BLOCK_D;
                cs[at % BLOCK_D][at / BLOCK_D] = row < K && column < D ? C[row * D + column] : 0.0f;
            }
            __syncthreads();
#pragma unroll 8
            for (int column = 0; column < BLOCK_D; column++) {
                float a[TQ], b[TN];
#pragma unroll
                for (int i = 0; i < TQ; i++) a[i] = xs[column][ty + 16 * i];
#pragma unroll
                for (int j = 0; j < TN; j++) b[j] = cs[column][tx + 16 * j];
#pragma unroll
                for (int i = 0; i < TQ; i++)
#pragma unroll
                    for (int j = 0; j < TN; j++) add(a[i], b[j], keys[i][j]);
            }
            __syncthreads();
        }
#pragma unroll
        for (int i = 0; i < TQ; i++)
#pragma unroll
            for (int j = 0; j < TN; j++) {  // ids rise, so that of equal keys the smallest id stays
                int id = (int)start_k + tx + 16 * j;
                if (id < K && keys[i][j] < best[i]) { best[i] = keys[i][j]; own[i] = id; }
            }
    }
    double cost = 0.0;
#pragma unroll
    for (int i = 0; i < TQ; i++) {
        for (int step = 8; step > 0; step /= 2) {
            float key = __shfl_xor_sync(0xffffffffu, best[i], step, 16);
            int id = __shfl_xor_sync(0xffffffffu, own[i], step, 16);
            if (key < best[i] || (key == best[i] && id < own[i])) { best[i] = key; own[i] = id; }
        }
        int64 point = first + ty + 16 * i;
        if (tx != 0 || point >= N) continue;
        bool usable = finite(squares[point]);
        labels[point] = usable ? own[i] : -1;
        order[point] = (usable ? (int64)own[i] : K) << 32 | point;
#if COSINE
        best[i] = squares[point] > 0.0f ? 1.0f + best[i] / sqrtf(squares[point]) : 1.0f;
#endif
        if (usable) cost += best[i];
    }
    cost = across_block(cost);
    if (threadIdx.x == 0) costs[blockIdx.x] = cost;
}

// The sum of all costs, in one block.
extern "C" __global__ void __launch_bounds__(THREADS) kmeans_total(const double* costs, double* total, int64 count) {
    double sum = 0.0;
    for (int64 at = threadIdx.x; at < count; at += THREADS) sum += costs[at];
    sum = across_block(sum);
    if (threadIdx.x == 0) *total = sum;
}
"""

UPDATE = r"""
// Sums of a chunk of sorted points (first grid axis), a thread a column (second). A stretch of one label goes to place chunk + label: from
// one stretch to the next one of them rises, so that no two share a place.
extern "C" __global__ void kmeans_sums(const float* X, const float* squares, const int64* order, double* sums, int64 N, int64 K, int64 D) {
    int64 column = (int64)blockIdx.y * blockDim.x + threadIdx.x, chunk = blockIdx.x;
    int64 last = (chunk + 1) * CHUNK < N ? (chunk + 1) * CHUNK : N, label = order[chunk * CHUNK] >> 32;
    double sum = 0.0;
    for (int64 at = chunk * CHUNK; at < last; at++) {
        int64 packed = order[at], row = packed & 0xffffffffLL;
        if (packed >> 32 != label) {
            if (column < D && label < K) sums[(chunk + label) * D + column] = sum;
            label = packed >> 32;
            sum = 0.0;
        }
        if (label == K) break;
        float value = column < D ? X[row * D + column] : 0.0f;
#if COSINE
        value /= squares[row] > 0.0f ? sqrtf(squares[row]) : 1.0f;
#endif
        sum += value;
    }
    if (column < D && label < K) sums[(chunk + label) * D + column] = sum;
}

// Where the sorted points of `label` begin.
__device__ int64 start_of(const int64* order, int64 label, int64 N) {
    int64 low = 0, high = N;
    while (low < high) {
        int64 middle = (low + high) / 2;
        if (order[middle] >> 32 < label) low = middle + 1; else high = middle;
    }
    return low;
}

// The mean of the points of one centroid, a block each, and their number. A centroid without points stays.
extern "C" __global__ void __launch_bounds__(THREADS)
kmeans_means(const double* sums, const int64* order, const float* C, float* means, int* counts, int64 N, int64 D) {
    int64 k = blockIdx.x, first = start_of(order, k, N), last = start_of(order, k + 1, N);
    if (threadIdx.x == 0) counts[k] = (int)(last - first);
    double square = 0.0;
    for (int64 column = threadIdx.x; column < D; column += THREADS) {
        double sum = 0.0;
        for (int64 chunk = first / CHUNK; first < last && chunk <= (last - 1) / CHUNK; chunk++) sum += sums[(chunk + k) * D + column];
        sum = first < last ? sum / (double)(last - first) : (double)C[k * D + column];
        means[k * D + column] = (float)sum;
        square += sum * sum;
    }
#if COSINE
    square = across_block(square);
    double norm = square > 0.0 ? sqrt(square) : 1.0;
    for (int64 column = threadIdx.x; column < D; column += THREADS) means[k * D + column] = (float)(means[k * D + column] / norm);
#endif
}
"""

SEEDING = r"""
// Rows of X, a block each: out[i] is row ids[i], of which the lower 32 bits count; or where PUT is 1, out[ids[i]] is row i.
extern "C" __global__ void __launch_bounds__(THREADS) kmeans_take(const float* X, const int64* ids, float* out, int64 D, int put) {
    int64 here = blockIdx.x, there = ids[here] & 0xffffffffLL;
    for (int64 column = threadIdx.x; column < D; column += THREADS)
        out[(put ? there : here) * D + column] = X[(put ? here : there) * D + column];
}

// Squared distances or cosine distances of points to their centroids, a warp each; -1 for label -1.
extern "C" __global__ void __launch_bounds__(THREADS)
kmeans_own(const float* X, const float* C, const int* labels, float* distances, int64 N, int64 D) {
    int64 row = ((int64)blockIdx.x * THREADS + threadIdx.x) / 32, own = row < N && labels[row] >= 0 ? labels[row] : 0;
    float key = 0.0f, square = 0.0f;
    if (row < N) for (int64 column = threadIdx.x % 32; column < D; column += 32) {
        float x = X[row * D + column], c = C[own * D + column];
#if COSINE
        key -= x * c;
        square += x * x;
#else
        key += (x - c) * (x - c);
#endif
    }
    key = across_warp(key);
    square = across_warp(square);
#if COSINE
    key = 1.0f + key / (square > 0.0f ? sqrtf(square) : 1.0f);
#endif
    if (row < N && threadIdx.x % 32 == 0) distances[row] = labels[row] < 0 ? -1.0f : key;
}

__device__ __forceinline__ uint32 mixed(uint32 value) {
    value = (value ^ value >> 16) * 0x7feb352du;
    value = (value ^ value >> 15) * 0x846ca68bu;
    return value ^ value >> 16;
}

// k-means++: the squared distance of each row to the nearest of those drawn so far, with `count` more of them, a warp each; and as sortable
// integers the waits by these weights, whose shortest are a draw, with the rows.
extern "C" __global__ void __launch_bounds__(THREADS)
kmeans_spread(const float* X, const int64* drawn, float* weights, int64* waits, int64 N, int64 D, int count, uint32 seed) {
    int64 row = ((int64)blockIdx.x * THREADS + threadIdx.x) / 32;
    if (row >= N) return;
    float weight = weights[row];
    for (int each = 0; each < count; each++) {
        int64 other = drawn[each] & 0xffffffffLL;
        float square = 0.0f;
        for (int64 column = threadIdx.x % 32; column < D; column += 32) {
            float difference = X[row * D + column] - X[other * D + column];
            square += difference * difference;
        }
        square = across_warp(square);
        weight = other == row ? 0.0f : weight == 0.0f ? 0.0f : fminf(weight, fmaxf(square, SMALL));
    }
    if (threadIdx.x % 32 != 0) return;
    weights[row] = weight;
    float chance = ((mixed(mixed(seed) + (uint32)row) >> 9) + 0.5f) * 0x1p-23f, wait = -logf(chance) / weight;
    waits[row] = (int64)__float_as_int(wait) << 32 | row;
}
"""
