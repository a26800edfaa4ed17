"""Raw CUDA for every NVIDIA GPU from sm_60 on: float32 multiply-adds on tiles in shared memory and registers, for every precision."""

from __future__ import annotations

import cupy

from analysis.cli import BadInput
from kernels import cuda
from kernels.contract import Arrays, Block
from kernels.gemm import Gemm
from kernels.gemm.space import CUPY as SPACE

ARRAYS = "cupy"
DEVICES = ("cuda",)
THREADS = 256

__all__ = ["ARRAYS", "DEVICES", "SPACE", "run", "sources"]

_CODE = r"""
#define THREADS 256
#define TM (BLOCK_M / 16)
#define TN (BLOCK_N / 16)
#define OF_A (BLOCK_M * BLOCK_K / THREADS)
#define OF_B (BLOCK_N * BLOCK_K / THREADS)
typedef long long int64;

#if HALF
typedef unsigned short element;
__device__ __forceinline__ float load(const element* at) { float value; asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(*at)); return value; }
__device__ __forceinline__ void store(element* at, float value) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(*at) : "f"(value)); }
#else
typedef float element;
__device__ __forceinline__ float load(const element* at) { return *at; }
__device__ __forceinline__ void store(element* at, float value) { *at = value; }
#endif

// Loads of the next slices of A and B, which are under way while this thread multiplies: zeros outside the matrices.
__device__ __forceinline__ void
fetch(const element* A, const element* B, int64 m, int64 n, int64 k, int64 M, int64 N, int64 K, float a[OF_A], float b[OF_B]) {
#pragma unroll
    for (int i = 0; i < OF_A; i++) {
        int at = threadIdx.x + i * THREADS;
        int64 row = m + at / BLOCK_K, column = k + at % BLOCK_K;
        a[i] = row < M && column < K ? load(A + row * K + column) : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < OF_B; i++) {
        int at = threadIdx.x + i * THREADS;
        int64 row = k + at / BLOCK_N, column = n + at % BLOCK_N;
        b[i] = row < K && column < N ? load(B + row * N + column) : 0.0f;
    }
}

// One tile of C. A thread has TM x TN of it: rows 4 (threadIdx.x / 16) + i % 4 + 64 (i / 4), and columns likewise by threadIdx.x % 16.
// Tiles go down GROUP_M, then one to the right, so that those at work share rows of A and columns of B.
extern "C" __global__ void __launch_bounds__(THREADS)
gemm_tile(const element* A, const element* B, element* C, int64 M, int64 N, int64 K) {
    __shared__ __align__(16) float as[BLOCK_K][BLOCK_M + 4], bs[BLOCK_K][BLOCK_N + 4];
    const int64 tiles_m = (M + BLOCK_M - 1) / BLOCK_M, tiles_n = (N + BLOCK_N - 1) / BLOCK_N;
    const int64 first = blockIdx.x / (GROUP_M * tiles_n) * GROUP_M, within = blockIdx.x % (GROUP_M * tiles_n);
    const int64 height = tiles_m - first < GROUP_M ? tiles_m - first : GROUP_M;
    const int64 m = (first + within % height) * BLOCK_M, n = within / height * BLOCK_N;
    const int tx = threadIdx.x % 16 * 4, ty = threadIdx.x / 16 * 4;
    float total[TM][TN], a_next[OF_A], b_next[OF_B];
    for (int i = 0; i < TM; i++) for (int j = 0; j < TN; j++) total[i][j] = 0.0f;
    fetch(A, B, m, n, 0, M, N, K, a_next, b_next);
    for (int64 k = 0; k < K; k += BLOCK_K) {
        __syncthreads();
#pragma unroll
        for (int i = 0; i < OF_A; i++) as[(threadIdx.x + i * THREADS) % BLOCK_K][(threadIdx.x + i * THREADS) / BLOCK_K] = a_next[i];
#pragma unroll
        for (int i = 0; i < OF_B; i++) bs[(threadIdx.x + i * THREADS) / BLOCK_N][(threadIdx.x + i * THREADS) % BLOCK_N] = b_next[i];
        __syncthreads();
        fetch(A, B, m, n, k + BLOCK_K, M, N, K, a_next, b_next);
#pragma unroll
        for (int step = 0; step < BLOCK_K; step++) {
            float a[TM], b[TN];
#pragma unroll
            for (int i = 0; i < TM; i += 4) *(float4*)(a + i) = *(const float4*)&as[step][ty + 16 * i];
#pragma unroll
            for (int j = 0; j < TN; j += 4) *(float4*)(b + j) = *(const float4*)&bs[step][tx + 16 * j];
#pragma unroll
            for (int i = 0; i < TM; i++)
#pragma unroll
                for (int j = 0; j < TN; j++) total[i][j] += a[i] * b[j];
        }
    }
#pragma unroll
    for (int i = 0; i < TM; i++)
#pragma unroll
        for (int j = 0; j < TN; j++) {
            int64 row = m + ty + i % 4 + 64 * (i / 4), column = n + tx + j % 4 + 64 * (j / 4);
            if (row < M && column < N) store(C + row * N + column, total[i][j]);
        }
}
"""


def sources(problem: Gemm, block: Block) -> list[cuda.CudaSource]:
    """The one kernel that this problem needs."""
    sizes = {"HALF": int(problem.precision == "fp16"), **block}
    return [cuda.CudaSource(_CODE, tuple(f"-D{name}={value}" for name, value in sizes.items()), ("gemm_tile",))]


def run(problem: Gemm, inputs: Arrays, block: Block) -> Arrays:
    """The product [m, n] in the inputs' dtype."""
    if problem.precision == "bf16":
        raise BadInput(f"dtype: {problem.dtype}, and CuPy has no such arrays; use float16, or torch")
    m, n, k = problem.m, problem.n, problem.k
    c = cupy.empty((m, n), inputs["a"].dtype)
    if c.size:
        [source] = sources(problem, block)
        tiles = -(-m // block["BLOCK_M"]) * -(-n // block["BLOCK_N"])
        kernel = cuda.module(source).get_function(source.kernels[0])
        kernel((tiles,), (THREADS,), (inputs["a"], inputs["b"], c, m, n, k))
    return {"c": c}
