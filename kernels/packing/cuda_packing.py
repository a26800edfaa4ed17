"""Candidates in CUDA C++: see `kernels.packing`."""

from __future__ import annotations

PACK = r"""
#define NONE 0x7fffffffffffffffLL

__device__ __forceinline__ int64 pack(float key, int64 row) {
    int bits = __float_as_int(isnan(key) ? __int_as_float(0x7f800000) : key);
    return ((int64)(bits ^ ((bits >> 31) & 0x7fffffff)) << 32) | row;
}

__device__ __forceinline__ int64 smaller(int64 a, int64 b) { return a < b ? a : b; }
"""
