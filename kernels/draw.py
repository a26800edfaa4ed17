"""Seeded random numbers for large inputs: drawn by all cores at once, and the same whatever their number."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from analysis.environment import usable_cores

PIECE = 1 << 20
"""Elements that one stream of random numbers gives."""


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """float32 of `shape` from N(0, 1): each piece of PIECE elements by a stream of its own, which `rng` spawns."""
    values = np.empty(shape, np.float32)
    flat = values.reshape(-1)
    pieces = [flat[start : start + PIECE] for start in range(0, flat.size, PIECE)]

    def fill(stream: np.random.Generator, piece: np.ndarray) -> None:
        stream.standard_normal(out=piece, dtype=np.float32)

    with ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(fill, rng.spawn(len(pieces)), pieces))
    return values
