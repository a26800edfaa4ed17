"""Builds an inverted file: centroids by k-means on a sample, the list of every row, and the rows list after list."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from analysis.cli import BadInput
from kernels import dispatch, metrics
from kernels.ivf.index import Index
from kernels.kmeans import LARGEST_K, KMeans
from kernels.kmeans import OPERATOR as KMEANS

SHARE = 64
"""Rows of the sample for each list."""


def build(collection: Any, lists: int | None = None, metric: str = "l2", *, iterations: int = 10, seed: int = 0,
          sample: int | None = None) -> Index:  # fmt: skip
    """An index of `collection`, float32 rows [N, D] of NumPy, torch or CuPy, in the same place; the rows are copied.

    lists:      how many, up to N and 65,536; None: the square root of N
    metric:     "l2", "cosine", "dot" or "l1". Lists are clusters of k-means in l2, for cosine of spherical k-means, whose
                centroids have length 1; only their order in a search is the metric's own.
    iterations: of Lloyd's algorithm, from rows drawn at random
    sample:     rows that these run on, evenly spread over the collection; None: 64 a list
    seed:       of what is drawn; the same seed gives the same index on the same device with the same versions

    After them each row goes to the list of its nearest centroid, and each centroid to the mean of its list. Rows with NaN, infinity or
    squares beyond float32 are not trained on and lie in the first list. Lists may be empty. CuPy's rows need torch beside it.

    Raises BadInput, a ValueError, for another dtype or shape, no rows, more lists than rows, or than finite rows in the sample.
    """
    known = metrics.known_metric(metric)
    dispatch.check_dtype("collection", collection)
    if collection.ndim != 2 or 0 in collection.shape:
        raise BadInput(f"collection: shape {list(collection.shape)}; give rows [N, D] with N and D of at least 1")
    n = len(collection)
    lists = max(1, round(math.sqrt(n))) if lists is None else lists
    sample = min(n, SHARE * lists if isinstance(lists, int | np.integer) else n) if sample is None else sample
    for name, value, least, most in (
        ("lists", lists, 1, min(n, LARGEST_K)), ("iterations", iterations, 1, None), ("seed", seed, 0, None), ("sample", sample, lists, n),
    ):  # fmt: skip
        if not isinstance(value, int | np.integer) or value < least or (most is not None and value > most):
            raise BadInput(f"{name}: {value!r} is not a whole number from {least}" + (f" to {most}" if most is not None else ""))
    if dispatch.library("collection", collection) == "cupy":
        return _of_cupy(collection, int(lists), known, int(iterations), int(seed), int(sample))
    return _build(dispatch.rows(collection), int(lists), known, int(iterations), int(seed), int(sample))


def our_ann(N: int, D: int, A: Any, X: Any, K: int) -> Any:
    """The course's signature: ids [K] of K rows of A [N, D] near X [D] in l2, nearest first, from three quarters of sqrt(N) lists.

    So many keep the recall above 0.7 for data without any clusters too. The index is built for this one query, as the
    signature has it; `build` keeps it for many. NumPy inputs of another dtype than float32, such as float64 out of text
    files, are converted.
    """
    if isinstance(A, np.ndarray) and isinstance(X, np.ndarray):
        A, X = A.astype(np.float32, copy=False), X.astype(np.float32, copy=False)
    if tuple(A.shape) != (N, D):
        raise BadInput(f"A: shape {list(A.shape)}, but N = {N} and D = {D}")
    index = build(A)
    return index.search(X, K, -(-3 * index.lists // 4))[1]


def _build(collection: Any, lists: int, metric: metrics.Metric, iterations: int, seed: int, sample: int) -> Index:
    """The index of contiguous rows of NumPy or torch."""
    n, d = collection.shape
    clusters: Any = "cosine" if metric == "cosine" else "l2"
    rng = np.random.default_rng(seed)
    drawn = _take(collection, ((np.arange(sample) + rng.random(sample)) * (n / sample)).astype(np.int64).clip(max=n - 1))
    usable = _finite(drawn)
    if len(usable) < lists:
        raise BadInput(
            f"lists: {lists}, but of the {sample} rows drawn from the collection only {len(usable)} are finite; give fewer lists"
        )
    drawn = drawn if len(usable) == sample else _take(drawn, usable)
    first = _take(drawn, rng.permutation(len(usable))[:lists])
    training = KMeans(metric=clusters, n=len(usable), d=d, k=lists, iterations=iterations)
    centroids = dispatch.compute(KMEANS, training, {"points": drawn, "centroids": first}, None)["centroids"]
    assignment = KMeans(metric=clusters, n=n, d=d, k=lists)
    found = dispatch.compute(KMEANS, assignment, {"points": collection, "centroids": centroids}, None)
    order, offsets = _by_list(found["labels"], lists)
    return Index(metric, found["centroids"], collection[order], order, offsets)


def _take(rows: Any, at: np.ndarray) -> Any:
    """The rows at `at`."""
    if isinstance(rows, np.ndarray):
        return rows[at]
    import torch

    return rows[torch.from_numpy(at).to(rows.device)]


def _finite(rows: Any) -> np.ndarray:
    """The numbers of rows whose squares float32 can hold; waits for the device."""
    if isinstance(rows, np.ndarray):
        with np.errstate(over="ignore", invalid="ignore"):
            return np.flatnonzero(np.isfinite(np.einsum("nd,nd->n", rows, rows)))
    return np.flatnonzero((rows * rows).sum(dim=1).isfinite().cpu().numpy())


def _by_list(labels: Any, lists: int) -> tuple[Any, Any]:
    """The order of rows list after list, in each as they were, and the offsets of the lists. Label -1 counts as 0."""
    if isinstance(labels, np.ndarray):
        labels = np.maximum(labels, 0)
        order = np.argsort(labels, kind="stable")
        return order, np.searchsorted(labels[order], np.arange(lists + 1))
    import torch

    small = labels.clamp(min=0).to(torch.int16 if lists <= 1 << 15 else torch.int32)  # fewer passes of the sort
    ordered, order = small.sort(stable=True)
    return order, torch.searchsorted(ordered.int(), torch.arange(lists + 1, dtype=torch.int32, device=labels.device))


def _of_cupy(collection: Any, *options: Any) -> Index:
    """The index of CuPy's rows, built by torch on the same memory."""
    import cupy
    import torch

    built = _build(torch.from_dlpack(cupy.ascontiguousarray(collection)), *options)
    return Index(built.metric, *(cupy.from_dlpack(array) for array in (built.centroids, built.rows, built.ids, built.offsets)))
