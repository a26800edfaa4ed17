"""The frame that points and centroids are seen in, by medians over a sample. See `kernels.kmeans.torch_impl.centre_of`.

The same in three launches, where torch's sorts take forty: an iteration of few points takes no longer than those.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.filter.prepare import Frame
from kernels.kmeans.torch_impl import SAMPLE
from kernels.packing.triton_packing import flipped


@triton.jit
def median(values):
    """The lower median of each row of values [rows, count] of what is finite there, by halving where it may lie; 0 where nothing is."""
    finite = tl.abs(values) < float("inf")
    keys = tl.where(finite, flipped(values.to(tl.int32, bitcast=True)), 0x7FFFFFFF).to(tl.int64)
    many = tl.sum(finite.to(tl.int32), axis=1)
    low = tl.zeros_like(many).to(tl.int64) - 0x80000000
    high = low + 0xFFFFFFFF
    for _ in range(32):
        middle = (low + high) >> 1
        enough = tl.sum((keys <= middle[:, None]).to(tl.int32), axis=1) > (many - 1) // 2
        low, high = tl.where(enough, low, middle + 1), tl.where(enough, middle, high)
    return tl.where(many > 0, flipped(high.to(tl.int32)).to(tl.float32, bitcast=True), 0.0)


@triton.jit(do_not_specialize=["stride", "count"])
def centre_kernel(X, Centre, stride, count, D, COUNT: tl.constexpr, COLUMNS: tl.constexpr):
    """Medians of COLUMNS columns over every `stride`-th row, `count` in all, at most COUNT."""
    columns, rows = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS), tl.arange(0, COUNT)
    place = (rows.to(tl.int64) * stride * D)[None, :] + columns[:, None]
    x = tl.load(X + place, mask=(rows < count)[None, :] & (columns < D)[:, None], other=float("inf"))
    tl.store(Centre + columns, median(x), mask=columns < D)


@triton.jit(do_not_specialize=["stride", "count"])
def extents_kernel(X, Centre, Extents, stride, count, D, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):
    """The largest deviation from the centre of each sampled row; infinite for one that is not finite, or beyond `count`."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    some, largest = rows < count, tl.zeros([ROWS], tl.float32)
    for start in range(0, D, BLOCK_D):
        columns = start + tl.arange(0, BLOCK_D)
        inside = columns < D
        x = tl.load(X + (rows.to(tl.int64) * stride * D)[:, None] + columns[None, :], mask=some[:, None] & inside[None, :], other=0.0)
        size = tl.abs(x - tl.load(Centre + columns, mask=inside, other=0.0)[None, :])
        largest = tl.maximum(largest, tl.max(tl.where(size < float("inf"), size, float("inf")), axis=1))
    tl.store(Extents + rows, tl.where(some, largest, float("inf")))


@triton.jit
def largest_kernel(Extents, Largest, COUNT: tl.constexpr):
    """The median of the finite extents, or the most if that is 0."""
    extents = tl.load(Extents + tl.arange(0, COUNT))
    middle = median(extents[None, :])
    most = tl.max(tl.where(extents < float("inf"), extents, 0.0), axis=0)
    tl.store(Largest + tl.arange(0, 1), tl.where(middle > 0, middle, most))


def frame(metric: str, points: torch.Tensor) -> Frame:
    """The frame of points [N, D]: what `centre_of` gives."""
    (n, d), device = points.shape, points.device
    stride = max(1, n // SAMPLE)
    count = min(SAMPLE, triton.cdiv(n, stride))
    centre = torch.zeros(d, device=device)
    if metric == "l2":
        centre_kernel[(triton.cdiv(d, 4),)](points, centre, stride, count, d, COUNT=SAMPLE, COLUMNS=4)
    extents, largest = torch.empty(SAMPLE, device=device), torch.empty(1, device=device)
    extents_kernel[(SAMPLE // 4,)](points, centre, extents, stride, count, d, ROWS=4, BLOCK_D=128)
    largest_kernel[(1,)](extents, largest, COUNT=SAMPLE)
    return Frame(centre, largest)
