"""The baseline in plain torch: cuBLAS on a GPU; float32 on the CPU for every precision, rounded once at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from kernels.contract import Arrays, Block, Space
from kernels.gemm import Gemm

ARRAYS = "torch"
DEVICES = ("cpu", "cuda")
SPACE = Space()

__all__ = ["ARRAYS", "DEVICES", "SPACE", "precisely", "run"]


def run(problem: Gemm, inputs: Arrays, block: Block) -> Arrays:
    """The product [m, n] in the inputs' dtype."""
    a, b = inputs["a"], inputs["b"]
    if a.device.type == "cpu":
        return {"c": (a.float() @ b.float()).to(a.dtype)}
    with precisely(problem.precision):
        return {"c": a @ b}


@contextlib.contextmanager
def precisely(precision: str) -> Iterator[None]:
    """Matrix products within it use TF32 for float32 if `precision` is "tf32", and sum in float32, whatever the caller set."""
    products = torch.backends.cuda.matmul
    names = ("allow_tf32", "allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction")
    before = {name: getattr(products, name) for name in names}
    try:
        for name in names:
            setattr(products, name, name == "allow_tf32" and precision == "tf32")
        yield
    finally:
        for name, value in before.items():
            setattr(products, name, value)
