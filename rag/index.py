"""Nearest neighbours of queries among a corpus's embeddings: by this project's exact search or inverted file, or by a full sort."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch

from analysis.environment import ROOT, identity, versions
from kernels import ivf
from kernels.knn import knn
from kernels.source import digest_of
from rag import cache
from rag.graphs import power, topped_up

SHARE = 8
"""Of an inverted file's lists one in so many is probed unless told otherwise. docs/log.md has the recall that this and `usual` give."""


class Searchable(Protocol):
    """What finds the nearest of a corpus: for each query the row numbers of the k with the largest dot product, the largest first.

    k is at least 1; above the number of vectors it gives them all.
    """

    def search(self, queries: torch.Tensor, k: int) -> list[list[int]]: ...


class Index:
    """All vectors (number, dimension), searched exactly on the device where they are."""

    def __init__(self, vectors: torch.Tensor) -> None:
        if vectors.ndim != 2 or not len(vectors):
            raise ValueError(f"an index needs vectors of shape (number ≥ 1, dimension), not {tuple(vectors.shape)}")
        self.vectors = vectors

    def search(self, queries: torch.Tensor, k: int) -> list[list[int]]:
        _, ids = knn(_whole(queries), self.vectors, min(k, len(self.vectors)), metric="dot")
        return ids[: len(queries)].tolist()


class Inverted:
    """Vectors of length 1 in the lists of an inverted file, of which the nearest `nprobe` are searched.

    For such vectors the nearest have the largest dot product. Where the probed lists hold fewer than k, fewer are found.
    `nprobe` None is one in SHARE of the lists, and one above their number is all of them, which is exact.
    """

    def __init__(self, built: ivf.Index, nprobe: int | None) -> None:
        self.built, self.nprobe = built, min(nprobe or -(-built.lists // SHARE), built.lists)

    def search(self, queries: torch.Tensor, k: int) -> list[list[int]]:
        _, ids = self.built.search(_whole(queries), min(k, len(self.built)), self.nprobe)
        return [[row for row in rows if row >= 0] for rows in ids[: len(queries)].tolist()]


def _whole(queries: torch.Tensor) -> torch.Tensor:
    """Queries on a GPU, topped up to a power of two: no batch waits for kernels and graphs of its own."""
    return topped_up(queries, power(len(queries))) if queries.is_cuda and len(queries) else queries


class OnHost:
    """Vectors (number, dimension) on the host, all of whose products with a query are sorted, as the course does it."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors

    def search(self, queries: torch.Tensor, k: int) -> list[list[int]]:
        products = queries.cpu().numpy() @ self.vectors.T
        rows: list[list[int]] = np.argsort(products, axis=1)[:, ::-1][:, :k].tolist()
        return rows


def of(arm: Mapping[str, Any], vectors: torch.Tensor) -> Searchable:
    """The index of `vectors` that an arm's settings name."""
    retrieval = arm.get("retrieval")
    if retrieval == "numpy":
        return OnHost(vectors.cpu().numpy())
    if retrieval == "ivf":
        return Inverted(inverted(vectors, arm.get("lists")), arm.get("nprobe"))
    return Index(vectors)


def usual(vectors: int) -> int:
    """Lists for so many vectors: four times the square root, but such that a list has 8 on average."""
    return max(1, min(round(4 * math.sqrt(vectors)), vectors // 8))


def inverted(vectors: torch.Tensor, lists: int | None) -> ivf.Index:
    """An inverted file of `vectors` where they are, of so many lists (None: `usual`), at most one a vector.

    It is built once, and kept by what determines it: the vectors, the number of lists, the kind of device, the code and its libraries.
    """
    lists = min(lists, len(vectors)) if lists else usual(len(vectors))
    kind = vectors.device.type
    clustering = "triton_impl.py" if kind == "cuda" else "torch_impl.py"
    key = identity(
        vectors=hashlib.sha256(np.ascontiguousarray(vectors.cpu().numpy()).data).hexdigest(),
        lists=lists,
        device=kind,
        code=digest_of([ROOT / "kernels" / "ivf" / "building.py", ROOT / "kernels" / "kmeans" / clustering]),
        versions=versions("torch", "triton"),
    )
    file = cache.folder("indices") / f"{key}.npz"
    if not file.is_file():
        ivf.build(vectors, lists, metric="cosine").save(file)
    return ivf.load(file, str(vectors.device))
