"""k-means on rows of few columns in Triton: a thread holds a few points and meets all centroids; sums are exact, in whole numbers.

Keys are direct: squared differences, or for cosine negative products with unit vectors. So nothing is bounded, listed or computed twice,
but for this: beside a pair's few operations even remembering which centroid was nearest would count. So a thread remembers which GROUP of
consecutive centroids holds the nearest one, and meets that group's again at the end to find which it is.

A point is added to its cluster by atomic additions, whose order varies. Sums of whole numbers do not depend on it, and a float32 is one:
24 bits times a power of two. Those whose exponents differ by less than 8 are multiples of one unit, of at most 31 bits, so that 64 bits
hold the sum of 2^31 of them. BINS such sums, one for each 8 exponents, hold all numbers whose squares float32 can hold.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.contract import Arrays, Block
from kernels.distance.triton_metric import COSINE
from kernels.kmeans import KMeans
from kernels.metrics import NUMBER

GROUP = 16
"""Centroids of a group, after which a thread looks whether it is the nearest group so far."""
BINS = tl.constexpr(24)
BINS_PADDED = tl.constexpr(32)
LOWEST = tl.constexpr(-150)
"""The unit of the first bin is 2^-150, half the least float32; that of each next one is 2^8 times as large."""
COPIES_TOGETHER = tl.constexpr(16)
HELD = 64
"""Values of points that a thread holds at most, in registers."""
WORDS, MOST_COPIES = 1 << 19, 64
"""Copies of the sums, so that few programs add to the same word at a time: as many as make this many words, but no more than these."""


@triton.jit
def columns_of(X, rows, some, D: tl.constexpr):
    """The columns of rows of X, each as a tensor of its own."""
    values = ()  # type: tuple
    for column in tl.static_range(0, D):
        values += (tl.load(X + rows * D + column, mask=some, other=0.0),)
    return values


@triton.jit
def unit(values, D: tl.constexpr):
    """Rows, by their columns, scaled to length 1; zero rows stay. By the largest value first, whose square cannot be out of range then."""
    largest = tl.abs(values[0])
    for column in tl.static_range(1, D):
        largest = tl.maximum(largest, tl.abs(values[column]))
    largest = tl.where(largest > 0, largest, 1.0)
    scaled = ()  # type: tuple
    squares = 0.0
    for column in tl.static_range(0, D):
        value = tl.div_rn(values[column], largest)
        squares += value * value
        scaled += (value,)
    norm = tl.sqrt_rn(tl.where(squares > 0, squares, 1.0))
    units = ()  # type: tuple
    for column in tl.static_range(0, D):
        units += (tl.div_rn(scaled[column], norm),)
    return units


@triton.jit
def key_of(values, Row, D: tl.constexpr, METRIC: tl.constexpr):
    """Keys in float32 of points, by their columns, and the centroid at Row, one for all points or one each."""
    key = 0.0
    for column in tl.static_range(0, D):
        c = tl.load(Row + column)
        if METRIC == COSINE:
            key -= values[column] * c
        else:
            key += (values[column] - c) * (values[column] - c)
    return key


@triton.jit
def whole_number(value):
    """(bin, number) of float32 values below 2^64: number * 2^(LOWEST + 8 bin), an int32 number."""
    bits = value.to(tl.int32, bitcast=True)
    exponent = (bits >> 23) & 0xFF
    number = (bits & 0x7FFFFF) | tl.where(exponent > 0, 0x800000, 0)
    number = number << (tl.maximum(exponent, 1) & 7)  # numbers of exponent 0, the subnormal ones, have the unit of exponent 1
    return exponent >> 3, tl.where(bits < 0, -number, number)


@triton.jit
def total(Words, first, count, stride, copies):
    """Sums [BINS_PADDED] of `count` words from `first` on over all copies, which lie `stride` apart; zero beyond."""
    word = tl.arange(0, BINS_PADDED)
    sums = tl.zeros([BINS_PADDED], tl.int64)
    for start in range(0, copies, COPIES_TOGETHER):
        copy = start + tl.arange(0, COPIES_TOGETHER)
        mask = (copy < copies)[:, None] & (word < count)[None, :]
        sums += tl.sum(tl.load(Words + first + copy[:, None] * stride + word[None, :], mask=mask, other=0), axis=0)
    return sums


@triton.jit(do_not_specialize=["K", "padded", "words"])
def ready_kernel(C, Rows, Words, K, padded, words, D: tl.constexpr, METRIC: tl.constexpr, SIZE: tl.constexpr):
    """Rows [padded, D]: the centroids, of unit length for cosine, and after the last one copies of it. Words become zero."""
    place = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    tl.store(Words + place, tl.zeros([SIZE], tl.int64), mask=place < words)
    values = columns_of(C, tl.minimum(place, K - 1), place < padded, D)
    if METRIC == COSINE:
        values = unit(values, D)
    for column in tl.static_range(0, D):
        tl.store(Rows + place * D + column, values[column], mask=place < padded)


@triton.jit(do_not_specialize=["N", "K", "groups", "copies"])
def labels_kernel(X, Rows, Labels, Words, Inertia, N, K, groups, copies, D: tl.constexpr, METRIC: tl.constexpr, SIZE: tl.constexpr,
                  GROUP: tl.constexpr):  # fmt: skip
    """Labels of SIZE points, and what they add to the sums and the sizes of clusters (Words) and to the inertia."""
    points = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    values = columns_of(X, points, points < N, D)
    squares = tl.zeros([SIZE], tl.float32)
    for column in tl.static_range(0, D):
        squares += values[column] * values[column]
    usable = (points < N) & (squares < float("inf"))
    if METRIC == COSINE:
        values = unit(values, D)

    low = tl.full([SIZE], float("inf"), tl.float32)
    nearest = tl.zeros([SIZE], tl.int32)
    for group in range(0, groups):
        least = tl.full([SIZE], float("inf"), tl.float32)
        for member in range(0, GROUP):
            least = tl.minimum(least, key_of(values, Rows + (group * GROUP + member) * D, D, METRIC))
        nearest = tl.where(least < low, group, nearest)
        low = tl.minimum(low, least)

    cost = tl.full([SIZE], float("inf"), tl.float32)
    label = nearest * GROUP
    for member in range(0, GROUP):
        key = key_of(values, Rows + (nearest * GROUP + member) * D, D, METRIC)
        label = tl.where(key < cost, nearest * GROUP + member, label)
        cost = tl.minimum(cost, key)
    if METRIC == COSINE:
        cost += 1.0
    tl.store(Labels + points, tl.where(usable, label, -1), mask=points < N)
    tl.store(Inertia + tl.program_id(0), tl.sum(tl.where(usable, cost, 0.0).to(tl.float64), axis=0))

    width = D * BINS + 1
    cluster = Words + (tl.program_id(0) % copies * K + label) * width
    for column in tl.static_range(0, D):
        bin, number = whole_number(values[column])
        tl.atomic_add(cluster + column * BINS + bin, number.to(tl.int64), mask=usable, sem="relaxed")
    tl.atomic_add(cluster + D * BINS, tl.full([SIZE], 1, tl.int64), mask=usable, sem="relaxed")


@triton.jit(do_not_specialize=["K", "copies"])
def means_kernel(Words, Rows, Means, Counts, K, copies, D: tl.constexpr, METRIC: tl.constexpr):
    """Mean and number of the points of one centroid, which stays where it is if there are none."""
    row = tl.program_id(0)
    width = D * BINS + 1
    first, stride = row * width, K * width
    count = tl.sum(total(Words, first + D * BINS, 1, stride, copies), axis=0)
    power = 8 * tl.arange(0, BINS_PADDED) + LOWEST
    units = ((power + 1023).to(tl.int64) << 52).to(tl.float64, bitcast=True)  # 2^power
    means = ()  # type: tuple
    for column in tl.static_range(0, D):
        sums = total(Words, first + column * BINS, BINS, stride, copies).to(tl.float64)
        means += ((tl.sum(sums * units, axis=0) / tl.maximum(count, 1).to(tl.float64)).to(tl.float32),)
    if METRIC == COSINE:
        means = unit(means, D)
    for column in tl.static_range(0, D):
        tl.store(Means + row * D + column, tl.where(count > 0, means[column], tl.load(Rows + row * D + column)))
    tl.store(Counts + row, count.to(tl.int32))


def step(problem: KMeans, points: torch.Tensor, centroids: torch.Tensor, block: Block) -> Arrays:
    """One iteration: labels [n] and inertia of `centroids` [k, d], the means [k, d] of their points, and how many points each has [k].

    A program takes BLOCK_Q points a warp, fewer where a thread would hold too many values.
    """
    n, d, k, device = problem.n, problem.d, problem.k, points.device
    constants = {"D": d, "METRIC": NUMBER[problem.metric]}
    groups, width = triton.cdiv(k, GROUP), d * BINS.value + 1
    size = min(block["BLOCK_Q"], 32 * HELD // triton.next_power_of_2(d)) * block["num_warps"]
    copies = max(1, min(MOST_COPIES, WORDS // (k * width)))
    rows, words = torch.empty((groups * GROUP, d), device=device), torch.empty((copies, k, width), dtype=torch.int64, device=device)
    ready_kernel[(triton.cdiv(words.numel(), 1024),)](centroids, rows, words, k, len(rows), words.numel(), SIZE=1024, **constants)

    labels, programs = torch.empty(n, dtype=torch.int32, device=device), triton.cdiv(n, size)
    inertia = torch.empty(programs, dtype=torch.float64, device=device)
    labels_kernel[(programs,)](
        points, rows, labels, words, inertia, n, k, groups, copies, SIZE=size, GROUP=GROUP, num_warps=block["num_warps"], **constants
    )
    means, counts = torch.empty_like(centroids), torch.empty(k, dtype=torch.int32, device=device)
    means_kernel[(k,)](words, rows, means, counts, k, copies, num_warps=1, **constants)
    return {"labels": labels, "centroids": means, "counts": counts, "inertia": inertia.sum()}
