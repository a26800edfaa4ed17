"""Prepares rows for the filter: centred, scaled and rounded to half precision, with what that costs measured. See `kernels.filter`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from kernels.distance.triton_metric import COSINE, L1, L2
from kernels.filter import ROUNDING, TILE
from kernels.metrics import NUMBER

SAMPLE = 512
"""Rows that the centre and the scale are taken from."""
UNIT = tl.constexpr(16.0)
"""What cosine's unit vectors are multiplied by: their small components then keep more digits."""
ONCE = tl.constexpr(ROUNDING)
HALF, TF32, COLUMNS = 0, 1, 2
"""Forms: float16, or float32 that TF32 holds, both [N, width] with width the next multiple of 16; or plain float32 by
columns [depth, N] with depth the next multiple of 4."""
_HALF, _TF32 = tl.constexpr(HALF), tl.constexpr(TF32)


@dataclass(frozen=True)
class Frame:
    """The centre [D] that l2 takes off and the largest absolute value [1] around it in a sample, on the device."""

    centre: torch.Tensor
    largest: torch.Tensor


@dataclass(frozen=True)
class Prepared:
    """Rows ready for the filter.

    values: in one of the forms, N a multiple of TILE, columns beyond D zero. offsets: a(x), inf for what lies beyond the last row.
    norms, errors: n(x) and e(x) of each row, or the largest of each span of rows.
    """

    values: torch.Tensor
    offsets: torch.Tensor
    norms: torch.Tensor
    errors: torch.Tensor


@triton.jit
def scale_of(largest):
    """The power of two that brings `largest` to between 64 and 128; 1 where it is zero."""
    exponent = (largest.to(tl.int32, bitcast=True) >> 23) - 127
    return tl.where(largest > 0, tl.exp2(tl.minimum(tl.maximum(6 - exponent, -100), 100).to(tl.float32)), 1.0)


@triton.jit(do_not_specialize=["stride", "count"])
def frame_kernel(X, Centre, Largest, stride, count, D, METRIC: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):
    """Centre and largest deviation of BLOCK_D columns over every `stride`-th row, `count` in all; what is not finite is left out."""
    columns = tl.program_id(0) * BLOCK_D + tl.arange(0, BLOCK_D)
    rows = tl.arange(0, ROWS)
    mask = (rows < count)[:, None] & (columns < D)[None, :]
    x = tl.load(X + (rows.to(tl.int64) * stride * D)[:, None] + columns[None, :], mask=mask, other=float("nan")).to(tl.float32)
    finite = tl.abs(x) < float("inf")
    centre = tl.zeros([BLOCK_D], tl.float32)
    if METRIC == L2:
        centre = tl.sum(tl.where(finite, x, 0.0), axis=0) / tl.maximum(tl.sum(finite.to(tl.float32), axis=0), 1.0)
    tl.store(Centre + columns, centre, mask=columns < D)
    largest = tl.max(tl.max(tl.where(finite, tl.abs(x - centre[None, :]), 0.0), axis=1), axis=0)
    tl.atomic_max(Largest, largest)


@triton.jit
def coarse(value):
    """What TF32 leaves of float32 values: their first 10 bits behind the point."""
    return (value.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)


@triton.jit
def rounded(value, FORM: tl.constexpr):
    """Values in a form, and of each row the squared norm and the squared error of that; NaN and infinity go through."""
    result = value
    if FORM == _HALF:
        result = value.to(tl.float16)
    elif FORM == _TF32:
        result = coarse((value.to(tl.int32, bitcast=True) + 4096).to(tl.float32, bitcast=True))
    error = value - result.to(tl.float32)
    return result, tl.sum(value * value, axis=1), tl.sum(error * error, axis=1)


@triton.jit
def bounds_of(squares, errors, D, METRIC: tl.constexpr):
    """(a, n, e) of rows from squared norms, infinite or NaN where a row is not finite, and squared errors."""
    if METRIC == L1:
        return tl.zeros_like(squares), tl.zeros_like(squares), tl.zeros_like(squares)
    finite = squares < float("inf")
    norm = tl.sqrt(squares)
    error = tl.sqrt(errors) + norm * ((D // 64 + 12 if METRIC == COSINE else 2) * ONCE)
    if METRIC == L2:  # farther than all others, so that no bound depends on it
        return tl.where(finite, 0.5 * squares, float("inf")), tl.where(finite, norm, 0.0), tl.where(finite, error, 0.0)
    return tl.zeros_like(squares), tl.where(finite, norm, float("inf")), tl.where(finite, error, float("inf"))


@triton.jit(do_not_specialize=["N"])
def prepare_kernel(X, Centre, Largest, Values, Offsets, Norms, Errors, N, D, width, row_stride, column_stride, METRIC: tl.constexpr,
                   FRAMED: tl.constexpr, FORM: tl.constexpr, PER_ROW: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    """One tile of ROWS rows, `width` columns of each, with offsets and bounds; rows from N on are infinitely far."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    valid = rows < N
    factor = tl.full([ROWS], 1.0, tl.float32)
    if FRAMED:
        factor *= scale_of(tl.load(Largest))
    if METRIC == COSINE:
        norms = tl.zeros([ROWS], tl.float32)
        for start in range(0, D, BLOCK_D):
            columns = start + tl.arange(0, BLOCK_D)
            x = tl.load(X + rows[:, None] * D + columns[None, :], mask=valid[:, None] & (columns < D)[None, :], other=0.0).to(tl.float32)
            norms += tl.sum(x * x, axis=1)
        factor = UNIT / tl.sqrt_rn(tl.where(norms > 0, norms, 1.0))
    squares = tl.zeros([ROWS], tl.float32)
    errors = tl.zeros([ROWS], tl.float32)
    for start in range(0, width, BLOCK_D):
        columns = start + tl.arange(0, BLOCK_D)
        inside = columns < D
        x = tl.load(X + rows[:, None] * D + columns[None, :], mask=valid[:, None] & inside[None, :], other=0.0).to(tl.float32)
        if FRAMED and METRIC == L2:
            x -= tl.load(Centre + columns, mask=inside, other=0.0)[None, :]
        value, square, error = rounded(x * factor[:, None], FORM)
        squares += square
        errors += error
        place = Values + rows[:, None] * row_stride + columns[None, :].to(tl.int64) * column_stride
        tl.store(place, value, mask=(columns < width)[None, :])
    offset, norm, error = bounds_of(squares, errors, D, METRIC)
    tl.store(Offsets + rows, tl.where(valid, offset, float("inf")))
    if PER_ROW:
        tl.store(Norms + rows, norm)
        tl.store(Errors + rows, error)
    else:
        tl.store(Norms + tl.program_id(0), tl.max(tl.where(valid, norm, 0.0), axis=0))
        tl.store(Errors + tl.program_id(0), tl.max(tl.where(valid, error, 0.0), axis=0))


def frame(metric: str, rows: torch.Tensor) -> Frame:
    """The frame of a collection [N, D], N at least 1, from SAMPLE of its rows."""
    n, d = rows.shape
    centre, largest = torch.empty(d, device=rows.device), torch.zeros(1, device=rows.device)
    stride, block = max(1, n // SAMPLE), min(32, triton.next_power_of_2(d))
    grid = (triton.cdiv(d, block),)
    frame_kernel[grid](rows, centre, largest, stride, min(n, SAMPLE), d, METRIC=NUMBER[metric], ROWS=SAMPLE, BLOCK_D=block, num_warps=8)
    return Frame(centre, largest)


def half_width(d: int) -> int:
    """Columns of a row of D in half precision or TF32: the next multiple of what a step of tensor cores takes."""
    return triton.cdiv(d, 16) * 16


def prepare(metric: str, rows: torch.Tensor, by: Frame | None, form: int, span: int = 0) -> Prepared:
    """`rows` [N, D] in a form (HALF, TF32 or COLUMNS) and the frame `by`, padded to whole spans.

    `span`, a multiple of TILE, is the number of rows that share bounds; 0: each row has its own.
    """
    (n, d), device, per_row = rows.shape, rows.device, span == 0
    padded = triton.cdiv(n, span or TILE) * (span or TILE)
    width = triton.cdiv(d, 4) * 4 if form == COLUMNS else half_width(d)
    shape, strides = ((width, padded), (1, padded)) if form == COLUMNS else ((padded, width), (width, 1))
    values = torch.empty(shape, dtype=torch.float16 if form == HALF else torch.float32, device=device)
    offsets = torch.empty(padded, device=device)
    norms, errors = bounds = torch.empty((2, padded if per_row else padded // TILE), device=device)
    frame_arguments = (by.centre, by.largest) if by else (offsets, offsets)  # without a frame never read
    prepare_kernel[(padded // TILE,)](
        rows, *frame_arguments, values, offsets, norms, errors, n, d, width, *strides, METRIC=NUMBER[metric], FRAMED=by is not None,
        FORM=form, PER_ROW=per_row, ROWS=TILE, BLOCK_D=min(64, triton.next_power_of_2(width)), num_warps=8,
    )  # fmt: skip
    if span > TILE:
        norms, errors = bounds.view(2, -1, span // TILE).amax(2)
    return Prepared(values, offsets, norms, errors)
