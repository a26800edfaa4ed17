"""The baseline in plain torch, on the CPU and on a GPU: `cdist` by direct differences for L2 and L1, a matrix product else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from kernels.contract import Arrays, Block
from kernels.distance import Distance
from kernels.distance.space import TORCH as SPACE

ARRAYS = "torch"
DEVICES = ("cpu", "cuda")

__all__ = ["ARRAYS", "DEVICES", "SPACE", "between", "ieee", "run"]


def run(problem: Distance, inputs: Arrays, block: Block) -> Arrays:
    """Distances [q, n], written a chunk of ROWS rows of y at a time."""
    x, y = inputs["x"], inputs["y"]
    result = torch.empty((len(x), len(y)), dtype=torch.float32, device=x.device)
    with ieee():
        for start in range(0, len(y), block["ROWS"]):
            chunk = slice(start, start + block["ROWS"])
            result[:, chunk] = between(problem.metric, x, y[chunk])
    return {"distances": result}


@contextlib.contextmanager
def ieee() -> Iterator[None]:
    """Matrix products in float32 proper, whatever the caller set: TF32 keeps 10 bits, which loses neighbours."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def between(metric: str, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Distances [Q, N] in float32 between the rows of x and a chunk of rows y, which are widened to float32 first."""
    x, y = x.float(), y.float()
    if metric in ("l2", "l1"):
        return torch.cdist(x, y, p=float(metric[1]), compute_mode="donot_use_mm_for_euclid_dist")
    products = x @ y.T
    if metric == "dot":
        return products
    norms = torch.outer(torch.linalg.vector_norm(x, dim=1), torch.linalg.vector_norm(y, dim=1))
    return torch.where(norms == 0, 1.0, 1.0 - products / norms)
