"""Triton: the collection streamed once a query where there are few, tiles of queries x rows where there are many."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.contract import Arrays, Block
from kernels.distance import Distance
from kernels.distance.space import FEW, SPAN, shared, tiled
from kernels.distance.space import TRITON as SPACE
from kernels.distance.triton_columns import REGISTERS, by_columns, column_differences, flat, shares
from kernels.distance.triton_metric import distance_of, key_of, product_key, stream_keys, stream_sums, tile_products
from kernels.metrics import NUMBER

ARRAYS = "torch"
DEVICES = ("cuda",)
NARROW = 32
"""Columns a row of a streamed tile may have at least: a tile holds BLOCK_N x NARROW elements, of fewer rows where D is larger."""
SCRATCH = 1 << 30
"""Bytes of operands by columns that are held at once, whatever the number of vectors; at least a block's of each side."""

__all__ = ["ARRAYS", "DEVICES", "SPACE", "norms", "run", "stream_width"]


@triton.jit(do_not_specialize=["N"])
def distance_stream(X, Y, Out, N, D, METRIC: tl.constexpr, WHOLE: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    """One query (second grid axis) against BLOCK_N rows (first). WHOLE says that D is BLOCK_D: no loop, no mask of columns, wider loads."""
    query = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    key = stream_keys(X, Y, query, rows, rows < N, BLOCK_D if WHOLE else D, METRIC, BLOCK_N, BLOCK_D)
    tl.store(Out + query * N + rows, distance_of(key, METRIC), mask=rows < N)


@triton.jit(do_not_specialize=["N", "spans", "plane"])
def distance_share(X, Y, Sums, N, D, spans, plane, METRIC: tl.constexpr, SPAN: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    """The sums of one query (second grid axis) and BLOCK_N rows over one of `spans` spans; Sums is [3, pairs, spans], `plane` apart."""
    query, span = tl.program_id(1).to(tl.int64), (tl.program_id(0) % spans).to(tl.int64)
    rows = (tl.program_id(0) // spans).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    first = span * SPAN
    last = tl.minimum(first + SPAN, D)
    terms, squares, query_squares = stream_sums(X, Y, query, rows, rows < N, first, last, D, METRIC, BLOCK_N, BLOCK_D)
    place = Sums + (query * N + rows) * spans + span
    tl.store(place, terms, mask=rows < N)
    tl.store(place + plane, squares, mask=rows < N)
    tl.store(place + 2 * plane, tl.zeros_like(squares) + query_squares, mask=rows < N)


@triton.jit(do_not_specialize=["spans", "plane"])
def distance_join(Sums, Out, spans, plane, METRIC: tl.constexpr, BLOCK: tl.constexpr):
    """The distance of one pair from its sums, always added in the same order."""
    pair = tl.program_id(0).to(tl.int64)
    terms = tl.zeros([BLOCK], tl.float32)
    squares = tl.zeros([BLOCK], tl.float32)
    query_squares = tl.zeros([BLOCK], tl.float32)
    for start in range(0, spans, BLOCK):
        span = start + tl.arange(0, BLOCK)
        place = Sums + pair * spans + span
        terms += tl.load(place, mask=span < spans, other=0.0)
        squares += tl.load(place + plane, mask=span < spans, other=0.0)
        query_squares += tl.load(place + 2 * plane, mask=span < spans, other=0.0)
    key = key_of(tl.sum(terms, axis=0), tl.sum(squares, axis=0), tl.sum(query_squares, axis=0), METRIC)
    tl.store(Out + pair, distance_of(key, METRIC))


@triton.jit
def store_tile(Out, tile, first_q, first_n, Q, N, stride, BLOCK_Q: tl.constexpr, BLOCK_N: tl.constexpr):
    """Writes a tile that begins at `first_q`, `first_n`, as far as it lies within Q and N. Masks are 32-bit to spare registers."""
    queries, rows = tl.arange(0, BLOCK_Q), tl.arange(0, BLOCK_N)
    some = queries < tl.minimum(Q - first_q, BLOCK_Q).to(tl.int32)
    valid = rows < tl.minimum(N - first_n, BLOCK_N).to(tl.int32)
    place = Out + first_q * stride + first_n + queries[:, None].to(tl.int64) * stride + rows[None, :]
    tl.store(place, tile, mask=some[:, None] & valid[None, :])


@triton.jit(do_not_specialize=["Q", "N", "D", "stride"])
def distance_differences(X, Y, Out, Q, N, D, stride, x_stride, y_stride, METRIC: tl.constexpr, BLOCK_Q: tl.constexpr,
                         BLOCK_N: tl.constexpr, EACH_Q: tl.constexpr, EACH_N: tl.constexpr):  # fmt: skip
    """BLOCK_Q queries against BLOCK_N rows, both by columns; programs of the same rows are neighbours, so that those are read from
    memory once. Rows of Out are `stride` apart."""
    tiles = tl.cdiv(Q, BLOCK_Q)
    first_q = (tl.program_id(0) % tiles).to(tl.int64) * BLOCK_Q
    first_n = (tl.program_id(0) // tiles).to(tl.int64) * BLOCK_N
    key = column_differences(X + first_q, Y + first_n, x_stride, y_stride, D, METRIC, BLOCK_Q, BLOCK_N, EACH_Q, EACH_N)
    store_tile(Out, flat(distance_of(key, METRIC), BLOCK_Q, BLOCK_N), first_q, first_n, Q, N, stride, BLOCK_Q, BLOCK_N)


@triton.jit(do_not_specialize=["Q", "N"])
def distance_products(X, Y, XNorms, YNorms, Out, Q, N, D, METRIC: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_N: tl.constexpr,
                      BLOCK_D: tl.constexpr, PASSES: tl.constexpr):  # fmt: skip
    """BLOCK_Q queries against BLOCK_N rows; programs of the same rows are neighbours here too."""
    tiles = tl.cdiv(Q, BLOCK_Q)
    first_q = (tl.program_id(0) % tiles).to(tl.int64) * BLOCK_Q
    first_n = (tl.program_id(0) // tiles).to(tl.int64) * BLOCK_N
    queries, rows = first_q + tl.arange(0, BLOCK_Q), first_n + tl.arange(0, BLOCK_N)
    product = tile_products(X, Y, queries, rows, queries < Q, rows < N, D, BLOCK_Q, BLOCK_N, BLOCK_D, PASSES)
    key = product_key(product, XNorms, YNorms, queries, rows, queries < Q, rows < N, METRIC)
    store_tile(Out, distance_of(key, METRIC), first_q, first_n, Q, N, N, BLOCK_Q, BLOCK_N)


def run(problem: Distance, inputs: Arrays, block: Block) -> Arrays:
    """Distances [q, n]. Every metric is symmetric: the smaller side streams against the larger."""
    x, y = inputs["x"], inputs["y"]
    swapped = len(y) < min(len(x), FEW)
    if swapped:
        x, y = y, x
    out = torch.empty((len(x), len(y)), dtype=torch.float32, device=x.device)
    if not out.numel():
        pass
    elif shared(problem):
        _share(problem.metric, x, y, out, block)
    elif not tiled(problem):
        _stream(problem.metric, x, y, out, block)
    elif problem.metric in ("l2", "l1"):
        _differences(problem.metric, x, y, out, block)
    else:
        _products(problem.metric, x, y, out, block)
    return {"distances": out.T if swapped else out}


def stream_width(d: int, widest: int) -> int:
    """Columns a step of a streaming kernel: `widest`, less where D is smaller."""
    return min(widest, triton.next_power_of_2(d))


def norms(metric: str, rows: torch.Tensor) -> torch.Tensor:
    """Euclidean norms in float32 of the rows where the metric wants them; elsewhere the rows, as a pointer that is never read."""
    return torch.linalg.vector_norm(rows, dim=1, dtype=torch.float32) if metric == "cosine" else rows


def _strip(n: int, d: int, block: Block) -> dict[str, int]:
    """The shape of a streamed tile of BLOCK_N x NARROW elements: four rows at least, and for one row all of them in a line."""
    elements = block["BLOCK_N"] * NARROW
    width = stream_width(d, elements if n == 1 else elements // 4)
    return {"BLOCK_N": 1 if n == 1 else elements // width, "BLOCK_D": width, "num_warps": block["num_warps"]}


def _stream(metric: str, x: torch.Tensor, y: torch.Tensor, out: torch.Tensor, block: Block) -> None:
    (q, n), d = out.shape, x.shape[1]
    strip = _strip(n, d, block)
    distance_stream[(triton.cdiv(n, strip["BLOCK_N"]), q)](x, y, out, n, d, METRIC=NUMBER[metric], WHOLE=strip["BLOCK_D"] == d, **strip)


def _share(metric: str, x: torch.Tensor, y: torch.Tensor, out: torch.Tensor, block: Block) -> None:
    (q, n), d = out.shape, x.shape[1]
    strip, spans = _strip(n, d, block), triton.cdiv(d, SPAN)
    sums = torch.empty((3, q * n, spans), dtype=torch.float32, device=x.device)
    plane = q * n * spans
    grid = (triton.cdiv(n, strip["BLOCK_N"]) * spans, q)
    distance_share[grid](x, y, sums, n, d, spans, plane, METRIC=NUMBER[metric], SPAN=SPAN, **strip)
    distance_join[(q * n,)](sums, out, spans, plane, METRIC=NUMBER[metric], BLOCK=256)


def _rows_of_tile(q: int, block: Block, least: int) -> int:
    """BLOCK_Q, or less where queries are few: the power of two from q up, and `least` at least."""
    return min(block["BLOCK_Q"], max(least, triton.next_power_of_2(q)))


def _differences(metric: str, x: torch.Tensor, y: torch.Tensor, out: torch.Tensor, block: Block) -> None:
    """Both sides are put by columns a chunk of SCRATCH / 2 bytes at a time."""
    block_n, num_warps = block["BLOCK_N"], block["num_warps"]
    block_q = _rows_of_tile(len(x), block, max(32, 16 * 32 * num_warps // block_n))
    chunk = max(1, SCRATCH // (8 * x.shape[1] * 256)) * 256
    for first_q in range(0, len(x), chunk):
        queries = by_columns(x[first_q : first_q + chunk], block_q)
        for first_n in range(0, len(y), chunk):
            rows = by_columns(y[first_n : first_n + chunk], block_n)
            part = out[first_q : first_q + chunk, first_n : first_n + chunk]
            tiles = triton.cdiv(part.shape[0], block_q) * triton.cdiv(part.shape[1], block_n)
            distance_differences[(tiles,)](
                queries, rows, part, *part.shape, len(rows), out.stride(0), queries.stride(0), rows.stride(0), METRIC=NUMBER[metric],
                BLOCK_Q=block_q, BLOCK_N=block_n, **shares(block_q, block_n, num_warps), num_warps=num_warps, maxnreg=REGISTERS,
            )  # fmt: skip


def _products(metric: str, x: torch.Tensor, y: torch.Tensor, out: torch.Tensor, block: Block) -> None:
    if triton.knobs.runtime.interpret and x.dtype == torch.bfloat16:  # whose products the interpreter gets wrong
        x, y = x.float(), y.float()
    (q, n), d, block_n = out.shape, x.shape[1], block["BLOCK_N"]
    block_q, num_warps = _rows_of_tile(q, block, 16), block["num_warps"]
    small = block_q * block_n <= 32 * 32 * num_warps and d % 16 == 0  # at most 32 results a thread, and the widest loads
    tiles = triton.cdiv(q, block_q) * triton.cdiv(n, block_n)
    distance_products[(tiles,)](
        x, y, norms(metric, x), norms(metric, y), out, q, n, d, METRIC=NUMBER[metric], BLOCK_Q=block_q, BLOCK_N=block_n,
        BLOCK_D=block["BLOCK_D"], PASSES=block["PASSES"] if x.dtype == torch.float32 else 1, num_warps=num_warps,
        num_stages=block["num_stages"], maxnreg=REGISTERS if small else None,
    )  # fmt: skip
