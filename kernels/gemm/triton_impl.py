"""Triton: tiles of C that persistent programs compute from descriptors (TMA) on sm_90 and newer, and from pointers elsewhere.

Operands are brought into the form that the hardware reads fast before, at a cost of the order of their size: rows whose length is
not a multiple of 16 are copied into longer ones, and for TF32, which tensor cores read along K alone, B is transposed.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from kernels.contract import Arrays, Block
from kernels.gemm import Gemm
from kernels.gemm.space import MOST_SHARED
from kernels.gemm.space import TRITON as SPACE

ARRAYS = "torch"
DEVICES = ("cuda",)
STRIDE = 16
"""Rows are multiples of this many elements, which both TMA and vectors of 16 bytes want."""
STAGED = 1 << 15
"""Bytes of shared memory that the result may take on its way out, beside the operands of the next tile."""

__all__ = ["ARRAYS", "DEVICES", "SPACE", "run"]


@triton.jit
def tile_of(number, tiles_m, tiles_n, GROUP_M: tl.constexpr):
    """Row and column of the `number`-th tile: down GROUP_M tiles, then one to the right, so that those at work share rows and columns."""
    first = number // (GROUP_M * tiles_n) * GROUP_M
    height = min(tiles_m - first, GROUP_M)
    within = number % (GROUP_M * tiles_n)
    return first + within % height, within // height


@triton.jit
def store_parts(c, m, n, tile, WIDTH: tl.constexpr):
    """Write a tile through shared memory WIDTH columns at a time."""
    if tile.shape[1] <= WIDTH:
        c.store([m, n], tile.to(c.dtype))
    else:
        HALF: tl.constexpr = tile.shape[1] // 2
        left, right = tl.split(tl.permute(tl.reshape(tile, [tile.shape[0], 2, HALF]), [0, 2, 1]))
        store_parts(c, m, n, left, WIDTH)
        store_parts(c, m, n + HALF, right, WIDTH)


@triton.jit(do_not_specialize=["M", "N", "K"])
def gemm_descriptors(a, b, c, M, N, K, TRANSPOSED: tl.constexpr, PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
                     BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr, WIDTH: tl.constexpr):  # fmt: skip
    """Tiles of C, one after another; loads of the next tile start while one is finished. TRANSPOSED: b is [N, K]."""
    tiles_m, tiles_n = tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N)
    for number in tl.range(tl.program_id(0), tiles_m * tiles_n, tl.num_programs(0), flatten=True):
        row, column = tile_of(number, tiles_m, tiles_n, GROUP_M)
        m, n = row * BLOCK_M, column * BLOCK_N
        total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
        for step in range(tl.cdiv(K, BLOCK_K)):
            k = step * BLOCK_K
            x = a.load([m, k])
            y = b.load([n, k]).T if TRANSPOSED else b.load([k, n])
            total = tl.dot(x, y, total, input_precision=PRECISION)
        store_parts(c, m, n, total, WIDTH)


@triton.jit(do_not_specialize=["M", "N", "K", "AS", "BS", "CS"])
def gemm_pointers(A, B, C, M, N, K, AS, BS, CS, TRANSPOSED: tl.constexpr, PRECISION: tl.constexpr, BLOCK_M: tl.constexpr,
                  BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr, STRIDE: tl.constexpr):  # fmt: skip
    """One tile of C. Rows of A, B and C are AS, BS and CS times STRIDE elements long, the last of which may be padding."""
    row, column = tile_of(tl.program_id(0), tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N), GROUP_M)
    rows = row.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = column.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    steps = tl.arange(0, BLOCK_K)
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for k in range(0, K, BLOCK_K):
        ks = k + steps
        x = tl.load(A + rows[:, None] * (AS * STRIDE) + ks[None, :], mask=(rows < M)[:, None] & (ks < AS * STRIDE)[None, :], other=0.0)
        if TRANSPOSED:
            inside = (columns < N)[None, :] & (ks < BS * STRIDE)[:, None]
            y = tl.load(B + columns[None, :] * (BS * STRIDE) + ks[:, None], mask=inside, other=0.0)
        else:
            inside = (columns < BS * STRIDE)[None, :] & (ks < K)[:, None]
            y = tl.load(B + ks.to(tl.int64)[:, None] * (BS * STRIDE) + columns[None, :], mask=inside, other=0.0)
        total = tl.dot(x, y, total, input_precision=PRECISION)
    inside = (rows < M)[:, None] & (columns < CS * STRIDE)[None, :]
    tl.store(C + rows[:, None] * (CS * STRIDE) + columns[None, :], total.to(C.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["K", "TS"])
def transpose(B, T, K, N, TS, BLOCK: tl.constexpr, STRIDE: tl.constexpr):
    """T [N, TS * STRIDE]: B [K, N] transposed, with zeros where B has no row. N is B's stride, so its divisibility is compiled in."""
    tiles = tl.cdiv(N, BLOCK)
    ks = (tl.program_id(0) // tiles).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    columns = (tl.program_id(0) % tiles).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tile = tl.load(B + ks[:, None] * N + columns[None, :], mask=(ks < K)[:, None] & (columns < N)[None, :], other=0.0)
    tl.store(T + columns[:, None] * (TS * STRIDE) + ks[None, :], tile.T, mask=(columns < N)[:, None] & (ks < TS * STRIDE)[None, :])


def run(problem: Gemm, inputs: Arrays, block: Block) -> Arrays:
    """The product [m, n] in the inputs' dtype."""
    a, b = inputs["a"], inputs["b"]
    m, n, k = problem.m, problem.n, problem.k
    if not (m and n and k):
        return {"c": torch.zeros((m, n), dtype=a.dtype, device=a.device)}
    if triton.knobs.runtime.interpret and problem.dtype == "bfloat16":  # whose products the interpreter gets wrong
        return {"c": run(Gemm(m=m, n=n, k=k), {"a": a.float(), "b": b.float()}, block)["c"].to(a.dtype)}
    c = torch.empty((m, triton.cdiv(n, STRIDE) * STRIDE), dtype=a.dtype, device=a.device)
    transposed = problem.precision == "tf32"
    _multiply(problem, aligned(a), turned(b) if transposed else aligned(b), c, transposed, block)
    return {"c": c if c.shape[1] == n else c[:, :n].contiguous()}


def aligned(rows: torch.Tensor) -> torch.Tensor:
    """`rows`, or a copy of them where they do not start at a multiple of 16 bytes, or with zeros to make their length one of STRIDE."""
    missing = -rows.shape[1] % STRIDE
    if missing:
        return torch.nn.functional.pad(rows, (0, missing))
    return rows.clone() if rows.data_ptr() % 16 else rows


def turned(b: torch.Tensor) -> torch.Tensor:
    """The transpose of b [K, N], its rows filled up with zeros to a multiple of STRIDE."""
    (k, n), size = b.shape, 64
    result = torch.empty((n, triton.cdiv(k, STRIDE) * STRIDE), dtype=b.dtype, device=b.device)
    grid = (triton.cdiv(result.shape[1], size) * triton.cdiv(n, size),)
    transpose[grid](b, result, k, n, result.shape[1] // STRIDE, BLOCK=size, STRIDE=STRIDE, num_warps=4)
    return result


def by_descriptors(precision: str) -> bool:
    """Whether to load by TMA, which feeds the tensor cores of sm_90 and sm_100; IEEE float32 has no use for them."""
    if triton.knobs.runtime.interpret or precision == "fp32":
        return False
    return triton.runtime.driver.active.get_current_target().arch // 10 in (9, 10)


def programs(device: torch.device, tiles: int, shared: int) -> int:
    """How many programs of `shared` bytes share the tiles: one a multiprocessor, or two where both fit, which hide each other's ends."""
    count = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
    return min(tiles, count * max(1, min(2, MOST_SHARED // shared)))


def _multiply(problem: Gemm, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, transposed: bool, block: Block) -> None:
    """Launch the kernel for operands that are aligned."""
    m, n, k = problem.m, problem.n, problem.k
    tiles = triton.cdiv(m, block["BLOCK_M"]) * triton.cdiv(n, block["BLOCK_N"])
    constants = {"TRANSPOSED": transposed, "PRECISION": "tf32" if problem.precision == "tf32" else "ieee", **block}
    if not by_descriptors(problem.precision):
        strides = (rows.shape[1] // STRIDE for rows in (a, b, c))
        gemm_pointers[(tiles,)](a, b, c, m, n, k, *strides, STRIDE=STRIDE, **constants)
        return
    block_b = (block["BLOCK_N"], block["BLOCK_K"]) if transposed else (block["BLOCK_K"], block["BLOCK_N"])
    width = min(block["BLOCK_N"], STAGED // (block["BLOCK_M"] * c.element_size()))
    wanted = zip((a, b, c), ((block["BLOCK_M"], block["BLOCK_K"]), block_b, (block["BLOCK_M"], width)), strict=True)
    descriptors = [TensorDescriptor(rows, list(rows.shape), [rows.shape[1], 1], list(shape)) for rows, shape in wanted]
    shared = STAGED + block["num_stages"] * a.element_size() * (block["BLOCK_M"] + block["BLOCK_N"]) * block["BLOCK_K"]
    gemm_descriptors[(programs(a.device, tiles, shared),)](*descriptors, m, n, k, WIDTH=width, **constants)
