"""What the public function needs of torch; see `kernels.kmeans.seeding` and `kernels.kmeans.lloyd`."""

from __future__ import annotations

import numpy as np
import torch

from kernels.distance.torch_impl import ieee
from kernels.kmeans.seeding import SMALL, rounds
from kernels.kmeans.torch_impl import unit

CHUNK = 1 << 24


def host(array: torch.Tensor) -> np.ndarray:
    """A copy as NumPy's array; waits for the device."""
    return array.cpu().numpy()


def squares(points: torch.Tensor) -> np.ndarray:
    """Squared norms [N] in float32, on the host."""
    return host(torch.cat([(chunk * chunk).sum(1) for chunk in _chunks(points)]))


def take(points: torch.Tensor, ids: np.ndarray) -> torch.Tensor:
    """The rows `ids`."""
    return points[_ids(points, ids)]


def replaced(centroids: torch.Tensor, ids: np.ndarray, rows: torch.Tensor) -> torch.Tensor:
    """A copy of the centroids with `rows` as those of `ids`."""
    return centroids.index_copy(0, _ids(centroids, ids), rows)


def shift(before: torch.Tensor, after: torch.Tensor) -> float:
    """Sum of the squared differences."""
    return float(((after - before) ** 2).sum(dtype=torch.float64))


def distances(metric: str, points: torch.Tensor, centroids: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """Squared distances (l2) or distances (cosine) of points to their centroids [N], on the host; -1 for label -1."""
    found = []
    for chunk, own in zip(_chunks(points), _chunks(labels, points.shape[1]), strict=True):
        near = centroids[own.clamp(min=0).long()]
        found.append(((chunk - near) ** 2).sum(1) if metric == "l2" else 1.0 - (unit(chunk) * near).sum(1))
    return host(torch.where(labels < 0, -1.0, torch.cat(found)))


def plus_plus(sample: torch.Tensor, k: int, seed: int) -> torch.Tensor:
    """k rows of the sample by k-means++."""
    device, generator = sample.device, torch.Generator(sample.device).manual_seed(seed)
    values = sample - sample.mean(0)
    norms = (values * values).sum(1)
    weights = torch.full((len(sample),), float("inf"), device=device)
    drawn = [torch.randint(len(sample), (1,), generator=generator, device=device)]
    with ieee():
        for count in rounds(k)[1:]:
            last = drawn[-1]
            found = torch.addmm(norms[last], values, values[last].T, alpha=-2).amin(1) + norms
            weights = torch.minimum(weights, found.clamp(min=SMALL)).index_fill(0, last, 0.0)
            waits = torch.empty_like(weights).exponential_(generator=generator) / weights  # the shortest waits are a draw by weight
            drawn.append(waits.topk(count, largest=False).indices)
    return sample[torch.cat(drawn)]


def _ids(array: torch.Tensor, ids: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(ids).to(array.device)


def _chunks(array: torch.Tensor, width: int = 0) -> tuple[torch.Tensor, ...]:
    return array.split(max(1, CHUNK // (width or array.shape[1])))
