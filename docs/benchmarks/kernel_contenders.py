"""Who is measured: this project's operators, torch and FlashLib, each as a function of torch tensors that lie where they are used.

The one place that knows the public functions of all three. Each imports its library when it is called, so that one that is absent,
or that cannot do a case, is a row that says so.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from kernels import dispatch
from kernels.gemm import Precision

SCORES = 1 << 28
"""Distances that torch materialises at once: 1 GiB."""


def knn_ours(queries: Any, collection: Any, k: int, metric: str) -> torch.Tensor:
    """Ids [Q, k]."""
    from kernels.knn import knn

    return knn(queries, collection, k, metric)[1]


def knn_streamed(queries: torch.Tensor, collection: np.ndarray, k: int, memory: int) -> torch.Tensor:
    """Ids [Q, k] in a collection that stays on the host; `memory` bounds the bytes taken on the GPU."""
    from kernels.knn import knn_streamed as search

    return search(queries, collection, k, memory=memory)[1]


def knn_flashlib(queries: torch.Tensor, collection: torch.Tensor, k: int) -> torch.Tensor:
    """Ids [Q, k] of the L2 nearest, with their distances computed as ours are."""
    from flashlib import flash_knn

    return flash_knn(queries, collection, k)[1]


def prepared_norms(collection: torch.Tensor, metric: str) -> torch.Tensor | None:
    """What torch's products need of the rows beside them: squared norms for L2, inverse norms for cosine."""
    if metric == "l2":
        return torch.linalg.vector_norm(collection, dim=1).square_()
    return torch.linalg.vector_norm(collection, dim=1).reciprocal_() if metric == "cosine" else None


def knn_torch(queries: torch.Tensor, collection: torch.Tensor, norms: torch.Tensor | None, k: int, metric: str) -> torch.Tensor:
    """Ids [Q, k] by a float32 product (L1: by cdist) and topk, a batch of queries at a time, with the norms of the rows given."""

    def scores(batch: torch.Tensor) -> torch.Tensor:
        if metric == "l1":
            return torch.cdist(batch, collection, p=1)
        if metric == "l2":
            assert norms is not None
            if len(batch) == 1:
                return torch.addmv(norms, collection, batch[0], alpha=-2)[None]
            return torch.addmm(norms, batch, collection.T, alpha=-2)
        products = (collection @ batch[0])[None] if len(batch) == 1 else batch @ collection.T
        return products if norms is None else products * norms

    largest = metric in ("dot", "cosine")
    batches = queries.split(max(1, SCORES // len(collection)))
    return torch.cat([scores(batch).topk(k, dim=1, largest=largest).indices for batch in batches])


def distance_ours(query: Any, collection: Any, metric: str) -> Any:
    from kernels.distance import distance

    return distance(query, collection, metric)


def lloyd_ours(points: Any, centroids: Any) -> tuple[Any, Any]:
    """(labels, centroids) after one iteration of Lloyd's algorithm; the labels are by the centroids before it."""
    from kernels.kmeans import OPERATOR

    found = dispatch.compute(OPERATOR, _lloyd(points, centroids), {"points": points, "centroids": centroids}, None)
    return found["labels"], found["centroids"]


def lloyd_flashlib(points: torch.Tensor, centroids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    from flashlib import flash_kmeans

    labels, after, _ = flash_kmeans(points, len(centroids), max_iters=1, tol=0.0, init_centroids=centroids)
    return labels, after


def lloyd_torch(points: torch.Tensor, centroids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The operator's own peer, which gives the inertia too."""
    from kernels.kmeans.peers import torch_products

    found = torch_products(_lloyd(points, centroids), {"points": points, "centroids": centroids})
    return found["labels"], found["centroids"]


def _lloyd(points: Any, centroids: Any) -> Any:
    from kernels.kmeans import KMeans

    return KMeans(n=points.shape[0], d=points.shape[1], k=centroids.shape[0], iterations=1)


def ivf_ours_build(collection: torch.Tensor, lists: int) -> Any:
    """An index by each library's own defaults: ours by 10 iterations on 64 rows a list, FlashLib's by 20 on 256."""
    from kernels.ivf import build

    return build(collection, lists)


def ivf_ours_search(index: Any, queries: torch.Tensor, k: int, nprobe: int) -> torch.Tensor:
    return index.search(queries, k, nprobe)[1]


def ivf_flashlib_build(collection: torch.Tensor, lists: int) -> Any:
    from flashlib import flash_ivf_flat_build

    return flash_ivf_flat_build(collection, lists)


def ivf_flashlib_search(index: Any, queries: torch.Tensor, k: int, nprobe: int) -> torch.Tensor:
    from flashlib import flash_ivf_flat_search

    return flash_ivf_flat_search(index, queries, k, nprobe=nprobe)[1]


def gemm_ours(a: torch.Tensor, b: torch.Tensor, precision: Precision) -> torch.Tensor:
    from kernels.gemm import gemm

    return gemm(a, b, precision)


def gemm_cublas(a: torch.Tensor, b: torch.Tensor, precision: str) -> torch.Tensor:
    from kernels.gemm.torch_impl import precisely

    with precisely(precision):
        return torch.matmul(a, b)
