"""Exact nearest neighbours of queries among a corpus's embeddings: by this project's kernels, or by a full sort on the host."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch


class Searchable(Protocol):
    """What finds the nearest of a corpus: for each query the row numbers of the k with the largest dot product, the largest first."""

    def search(self, queries: torch.Tensor, k: int) -> list[list[int]]: ...


class Index:
    """Vectors (number, dimension) on the device where they are searched."""

    def __init__(self, vectors: torch.Tensor) -> None:
        if vectors.ndim != 2 or not len(vectors):
            raise ValueError(f"an index needs vectors of shape (number ≥ 1, dimension), not {tuple(vectors.shape)}")
        self.vectors = vectors

    def __len__(self) -> int:
        return len(self.vectors)

    def search(self, queries: torch.Tensor, k: int) -> list[list[int]]:
        """For each query the row numbers of the k vectors with the largest dot product, the largest first.

        A k above the number of vectors gives them all. Raises ValueError for k < 1.
        """
        from kernels.knn import knn

        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        _, ids = knn(queries, self.vectors, min(k, len(self)), metric="dot")
        return ids.tolist()


class OnHost:
    """Vectors (number, dimension) on the host, all of whose products with a query are sorted, as the course does it."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors

    def search(self, queries: torch.Tensor, k: int) -> list[list[int]]:
        products = queries.cpu().numpy() @ self.vectors.T
        rows: list[list[int]] = np.argsort(products, axis=1)[:, ::-1][:, :k].tolist()
        return rows
