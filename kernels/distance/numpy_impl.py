"""float32 on the CPU: BLAS for dot and cosine, direct differences in threads for L2 and L1."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from analysis.environment import usable_cores
from kernels.contract import Arrays, Block
from kernels.distance import Distance
from kernels.distance.space import NUMPY as SPACE

ARRAYS = "numpy"
DEVICES = ("cpu",)

__all__ = ["ARRAYS", "DEVICES", "SPACE", "between", "run", "spans"]


def run(problem: Distance, inputs: Arrays, block: Block) -> Arrays:
    """Distances [q, n], written a chunk of ROWS rows of y at a time."""
    x, y = inputs["x"], inputs["y"]
    result = np.empty((len(x), len(y)), np.float32)

    def fill(start: int, stop: int) -> None:
        for first in range(start, stop, block["ROWS"]):
            chunk = slice(first, min(first + block["ROWS"], stop))
            result[:, chunk] = between(problem.metric, x, y[chunk])

    spans(problem.metric, len(y), block["ROWS"], fill)
    return {"distances": result}


def spans(metric: str, n: int, rows: int, work: Callable[[int, int], object]) -> list[object]:
    """Results of `work(start, stop)` on spans of n rows, one span a core; one span where BLAS brings its own threads."""
    workers = 1 if metric in ("dot", "cosine") else max(1, min(usable_cores(), -(-n // rows)))
    edges = [n * i // workers for i in range(workers + 1)]
    if workers == 1:
        return [work(0, n)]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, edges[:-1], edges[1:]))


def between(metric: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distances [Q, N] between the rows of x and a chunk of rows y, in float32, to which they are widened first."""
    x, y = x.astype(np.float32, copy=False), y.astype(np.float32, copy=False)
    if metric in ("dot", "cosine"):
        with np.errstate(invalid="ignore", over="ignore"):
            products = x @ y.T
        return products if metric == "dot" else _cosine(products, x, y)
    result, difference = np.empty((len(x), len(y)), np.float32), np.empty_like(y)
    with np.errstate(invalid="ignore", over="ignore"):
        for query, row in zip(x, result, strict=True):
            np.subtract(y, query, out=difference)
            if metric == "l2":
                np.einsum("nd,nd->n", difference, difference, out=row)
            else:
                np.abs(difference, out=difference).sum(axis=1, out=row)
        return np.sqrt(result, out=result) if metric == "l2" else result


def _cosine(products: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):
        norms = np.outer(np.sqrt(np.einsum("nd,nd->n", x, x)), np.sqrt(np.einsum("nd,nd->n", y, y)))
        zero = norms == 0
        norms[zero] = 1
        products[zero] = 0
        return 1 - products / norms
