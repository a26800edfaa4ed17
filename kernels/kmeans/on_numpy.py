"""What the public function needs of NumPy; see `kernels.kmeans.seeding` and `kernels.kmeans.lloyd`."""

from __future__ import annotations

import numpy as np

from kernels.kmeans.seeding import SMALL, rounds

CHUNK = 1 << 22


def host(array: np.ndarray) -> np.ndarray:
    """The array itself: it is on the host."""
    return array


def squares(points: np.ndarray) -> np.ndarray:
    """Squared norms [N] in float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.einsum("nd,nd->n", points, points)


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1; zero rows stay."""
    norms = np.sqrt(squares(rows))[:, None]
    return rows / np.where(norms == 0, np.float32(1), norms)


def take(points: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The rows `ids`."""
    return points[ids]


def replaced(centroids: np.ndarray, ids: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """A copy of the centroids with `rows` as those of `ids`."""
    centroids = centroids.copy()
    centroids[ids] = rows
    return centroids


def shift(before: np.ndarray, after: np.ndarray) -> float:
    """Sum of the squared differences."""
    return float(np.sum((after.astype(np.float64) - before) ** 2))


def distances(metric: str, points: np.ndarray, centroids: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Squared distances (l2) or distances (cosine) of points to their centroids [N]; -1 for label -1."""
    result = np.empty(len(points))
    rows = max(1, CHUNK // points.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(points), rows):
            chunk = slice(start, start + rows)
            own = centroids[np.maximum(labels[chunk], 0)]
            if metric == "l2":
                result[chunk] = squares(points[chunk] - own)
            else:
                result[chunk] = 1.0 - np.einsum("nd,nd->n", unit(points[chunk]), own)
    return np.where(labels < 0, -1.0, result)


def plus_plus(sample: np.ndarray, k: int, seed: int) -> np.ndarray:
    """k rows of the sample by k-means++."""
    rng = np.random.default_rng(seed)
    values = sample - sample.mean(axis=0)
    norms = squares(values)
    weights = np.full(len(sample), np.inf, np.float32)
    drawn = [rng.integers(len(sample), size=1)]
    for count in rounds(k)[1:]:
        last = drawn[-1]
        found = norms[:, None] + norms[last] - 2 * (values @ values[last].T)
        np.minimum(weights, np.maximum(found.min(axis=1), SMALL), out=weights)
        weights[last] = 0
        with np.errstate(divide="ignore"):
            waits = rng.standard_exponential(len(sample), np.float32) / weights  # the shortest waits are a draw by weight
        drawn.append(np.argpartition(waits, count - 1)[:count])
    return sample[np.concatenate(drawn)]
