"""How right an answer is, told by float64 on the device that has the data.

Neighbours and labels count as right where they are those of float64 up to ties within float32 rounding: the j-th found may be farther
than the j-th nearest by the rounding of both distances (`kernels.distance.tolerance`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch

from kernels.distance.tolerance import allowed

SCORES = 1 << 27
"""Float64 distances held at once: 1 GiB."""
VALUES = 1 << 27
"""Elements of a collection held in float64 at once: 1 GiB."""


class Nearest(NamedTuple):
    """The k nearest rows to each query in float64: keys [Q, k], smallest first, their ids, and the longest row's norm."""

    keys: torch.Tensor
    ids: torch.Tensor
    longest: float


def keys_between(queries: torch.Tensor, rows: torch.Tensor, metric: str) -> torch.Tensor:
    """Ranking keys [Q, N] in float64, the smallest the nearest: distances, and the negative product for dot.

    L2 is by norms and products, which in float64 costs digits that float32 does not have, unless rows lie far from the origin.
    """
    x, y = queries.double(), rows.double()
    if metric == "l1":
        return torch.cdist(x, y, p=1)
    products = x @ y.T
    if metric == "dot":
        return -products
    if metric == "cosine":
        return 1 - products / torch.outer(x.norm(dim=1), y.norm(dim=1))
    squares = products.mul_(-2).add_((x * x).sum(1)[:, None]).add_((y * y).sum(1))
    return squares.clamp_(min=0).sqrt_()


def keys_of(queries: torch.Tensor, rows: torch.Tensor, metric: str) -> torch.Tensor:
    """Ranking keys [Q, k] in float64 of each query and its own rows [Q, k, D], by the definitions."""
    x, y = queries.double()[:, None], rows.double()
    if metric in ("l2", "l1"):
        return torch.linalg.vector_norm(y - x, ord=int(metric[1]), dim=2)
    products = (x * y).sum(2)
    return -products if metric == "dot" else 1 - products / (x.norm(dim=2) * y.norm(dim=2))


def chunks(collection: Any, device: torch.device, queries: int) -> Iterator[tuple[int, torch.Tensor]]:
    """(first row, rows on the device) of a torch or NumPy collection, in pieces that fit."""
    step = max(1, min(SCORES // max(1, queries), VALUES // collection.shape[1]))
    for start in range(0, len(collection), step):
        yield start, torch.as_tensor(collection[start : start + step]).to(device)


def nearest(queries: torch.Tensor, pieces: Iterable[tuple[int, torch.Tensor]], k: int, metric: str) -> Nearest:
    """The k nearest of all pieces of a collection."""
    best: tuple[torch.Tensor, torch.Tensor] | None = None
    longest = 0.0
    for start, rows in pieces:
        longest = max(longest, float(rows.double().norm(dim=1).max()))
        keys = keys_between(queries, rows, metric)
        near, ids = keys.topk(min(k, keys.shape[1]), dim=1, largest=False)
        ids = ids + start
        if best is not None:
            near, ids = torch.cat([best[0], near], 1), torch.cat([best[1], ids], 1)
        near, order = near.sort(dim=1)
        best = near[:, :k], ids.gather(1, order)[:, :k]
    assert best is not None
    return Nearest(*best, longest)


def neighbours(queries: torch.Tensor, take: Callable[[torch.Tensor], torch.Tensor], ids: torch.Tensor, truth: Nearest, metric: str,
               n: int) -> dict[str, float]:  # fmt: skip
    """The share of queries whose ids [Q, k] are right, the mean recall, and how many queries that is.

    `take(ids)` gives the collection's rows of these ids, [len(ids), D], on the queries' device.
    """
    ids = ids.to(queries.device, torch.int64)
    sound = ((ids >= 0) & (ids < n)).all(1) & (ids.sort(dim=1).values.diff(dim=1) != 0).all(1)
    batches = zip(
        *(each.split(max(1, VALUES // (ids.shape[1] * queries.shape[1]))) for each in (queries, ids.clamp(0, n - 1))), strict=True
    )
    keys = torch.cat([keys_of(some, take(found.reshape(-1)).view(*found.shape, -1), metric) for some, found in batches])
    norms = queries.double().norm(dim=1)[:, None].cpu().numpy() * truth.longest
    margin = torch.as_tensor(2 * allowed(metric, queries.shape[1], truth.keys.cpu().numpy(), norms), device=queries.device)
    right = sound & (keys.sort(dim=1).values <= truth.keys + margin).all(1)
    recalled = (ids[:, :, None] == truth.ids[:, None, :]).any(2).double().mean()
    return {"exact": float(right.double().mean()), "recall": float(recalled), "checked": len(queries)}


def clusters(points: torch.Tensor, before: torch.Tensor, labels: torch.Tensor, after: torch.Tensor, part: torch.Tensor) -> dict[str, float]:
    """Of the points `part`, the share with a nearest centroid of `before` as label; and how far centroids are from their points' means.

    `update` is the largest difference of an element of `after` from the float64 mean of the points with its label, of clusters
    that have points.
    """
    labels = labels.to(torch.int64)
    right = 0
    for some in part.split(max(1, SCORES // len(before))):
        keys = keys_between(points[some], before, "l2")
        least, found = keys.min(1).values, keys.gather(1, labels[some].clamp(0, len(before) - 1)[:, None])[:, 0]
        margin = torch.as_tensor(2 * allowed("l2", points.shape[1], least.cpu().numpy(), 1.0), device=points.device)
        right += int(((found <= least + margin) & (labels[some] >= 0)).sum())
    sums = torch.zeros(before.shape, dtype=torch.float64, device=points.device)
    for start, rows in chunks(points, points.device, 1):
        sums.index_add_(0, labels[start : start + len(rows)].clamp(0, len(before) - 1), rows.double())
    counts = torch.bincount(labels.clamp(0, len(before) - 1), minlength=len(before))[:, None]
    off = torch.where(counts > 0, (after.double() - sums / counts.clamp(min=1)).abs(), 0.0)
    return {"exact": right / len(part), "update": float(off.max()), "checked": len(part)}


def product(precision: str, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, part: int = 256) -> dict[str, float]:
    """The largest error of `part` x `part` elements of a product, evenly spread, in units of what its precision allows."""
    from kernels.gemm.tolerance import compare_product

    rows, columns = (torch.linspace(0, size - 1, min(size, part), device=a.device).long() for size in c.shape)
    x, y = a[rows].double(), b[:, columns].double()
    found = c[rows][:, columns].double().cpu().numpy()
    error = compare_product(precision, x.cpu().numpy(), y.cpu().numpy(), found, (x @ y).cpu().numpy()).error
    return {"exact": float(error <= 1), "error": error, "checked": len(rows) * len(columns)}


def distances(queries: torch.Tensor, rows: torch.Tensor, found: torch.Tensor, metric: str) -> dict[str, float]:
    """The largest error of distances [Q, N], in units of what float32 rounding allows."""
    from kernels.distance.tolerance import deviation

    keys = keys_between(queries, rows, metric).cpu().numpy()
    true = -keys if metric == "dot" else keys
    norms = torch.outer(queries.double().norm(dim=1), rows.double().norm(dim=1)).cpu().numpy()
    error = float(deviation(found.double().cpu().numpy(), true, allowed(metric, queries.shape[1], true, norms)).max(initial=0.0))
    return {"exact": float(error <= 1), "error": error, "checked": found.numel()}


def spread(count: int, most: int, device: torch.device | str) -> torch.Tensor:
    """At most `most` numbers from 0 to `count` - 1, evenly spread."""
    return torch.linspace(0, count - 1, min(count, most), dtype=torch.float64, device=device).long()
