"""An inverted file that is held: searched, saved and loaded."""

from __future__ import annotations

import functools
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.cli import BadInput, replacing
from kernels import dispatch, metrics
from kernels.ivf.problem import OPERATOR, Ivf

KIND, SCHEMA = "blockwise ivf", 1
COMPARED = 1 << 24
"""Pairs of ids that `recall` compares at once."""


@dataclass(frozen=True, eq=False)
class Index:
    """A collection of N rows in lists, each around a centroid; made by `build` or `load`.

    metric:    "l2", "cosine", "dot" or "l1"
    centroids: float32 [lists, D]
    rows:      float32 [N, D], list after list
    ids:       int64 [N], the number that each of the rows had in the collection
    offsets:   int64 [lists + 1], where each list begins; the last is N
    """

    metric: metrics.Metric
    centroids: Any
    rows: Any
    ids: Any
    offsets: Any

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lists(self) -> int:
        return len(self.centroids)

    def search(self, queries: Any, k: int, nprobe: int = 1, *, block: dict[str, int] | None = None) -> tuple[Any, Any]:
        """The k rows nearest to each query among those in its `nprobe` nearest lists: (distances, ids), best first.

        `queries` [Q, D] is a float32 array where the index lies, and so are the results, float32 and int64 [Q, k]; one query [D] gives
        [k]. Distances are those of `kernels.distance.distance`; "dot" ranks the largest product first, of rows as of centroids. Ties
        come by the smaller id, or list. A NaN distance counts as infinitely far, and what is infinitely far comes last in any
        order, at distance inf (-inf for dot). Where the probed lists hold fewer than k rows the rest has id -1 at that same
        distance. Within the lists the answer is exact up to ties within float32 rounding; lists that tie for the last place
        within it may stand for one another.
        `block` sets the backend's block parameters; None takes the tuned ones.

        Raises BadInput, a ValueError, for another dtype, width or place, for k < 1, or nprobe not from 1 to the number of lists.
        """
        d = self.rows.shape[1]
        dispatch.check_dtype("queries", queries)
        if queries.ndim not in (1, 2) or queries.shape[-1] != d:
            raise BadInput(f"queries: shape {list(queries.shape)}; give a vector [{d}] or rows [Q, {d}], as the index has them")
        dispatch.check_together("queries", queries, "the index", self.rows)
        for name, value, most in (("k", k, np.inf), ("nprobe", nprobe, self.lists)):
            if not isinstance(value, int | np.integer) or not 1 <= value <= most:
                raise BadInput(f"{name}: {value!r} is not a whole number of at least 1" + (f" and at most {most}" if most < np.inf else ""))
        wide = dispatch.rows(queries)
        problem = _problem(self.metric, len(wide), len(self.rows), d, int(k), self.lists, int(nprobe))
        inputs = {"queries": wide, "centroids": self.centroids, "rows": self.rows, "ids": self.ids, "offsets": self.offsets}
        found = dispatch.compute(OPERATOR, problem, inputs, block, "queries")
        shape = (*queries.shape[:-1], int(k))
        return found["distances"].reshape(shape), found["ids"].reshape(shape)

    def save(self, path: Path | str) -> None:
        """Write the index to `path`, an .npz file of plain arrays without pickle; a file that is there is replaced once all is written."""
        arrays: dict[str, Any] = {name: _host(getattr(self, name)) for name in ("centroids", "rows", "ids", "offsets")}
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, kind=np.array(KIND), schema=np.array(SCHEMA), metric=np.array(self.metric), **arrays)


def load(path: Path | str, device: str | None = None) -> Index:
    """The index that `Index.save` wrote to `path`, in NumPy arrays, torch tensors on `device` ("cpu", "cuda:1"), or for "cupy" CuPy's.

    Raises BadInput, a ValueError, naming the file, for one that is missing, truncated, of another schema, or no index at all.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError, AttributeError, TypeError, KeyError, zipfile.BadZipFile, zlib.error):
        raise BadInput(f"{path}: not an index, or a truncated one; build and save it again") from None
    fault = _fault(found)
    if fault:
        raise BadInput(f"{path}: {fault}; build and save it again")
    metric = metrics.known_metric(str(found["metric"]))
    return Index(metric, *(_placed(found[name], device) for name in ("centroids", "rows", "ids", "offsets")))


def recall(found_ids: Any, true_ids: Any) -> float:
    """The share of `true_ids` [Q, k] (or [k]) that are among the `found_ids` [Q, k'] of the same query; 1 where there is nothing to find.

    Ids of any library, such as those of `Index.search` and of `kernels.knn.knn`. Padding (-1) does not count.
    """
    found, true = (np.atleast_2d(_host(ids)) for ids in (found_ids, true_ids))
    if found.ndim != 2 or true.ndim != 2 or len(found) != len(true):
        raise BadInput(
            f"found_ids: shape {list(found.shape)} does not go with true_ids of shape {list(true.shape)}; both need a row a query"
        )
    step = max(1, COMPARED // max(1, found.shape[1] * true.shape[1]))
    hits = [(true[at : at + step, :, None] == found[at : at + step, None, :]).any(axis=2) for at in range(0, len(true), step)]
    real = true >= 0
    return float(np.concatenate(hits)[real].mean()) if real.any() else 1.0


def _fault(found: dict[str, np.ndarray]) -> str | None:
    """What is wrong with the content of an index's file, or None."""
    if str(found.get("kind")) != KIND:
        return "not an index"
    if int(found["schema"]) != SCHEMA:
        return f"schema {int(found['schema'])}, and this version reads {SCHEMA}"
    wanted = {"centroids": ("float32", 2), "rows": ("float32", 2), "ids": ("int64", 1), "offsets": ("int64", 1)}
    for name, (dtype, dimensions) in wanted.items():
        if name not in found or (str(found[name].dtype), found[name].ndim) != (dtype, dimensions):
            return f"{name} is missing, or not {dtype} of {dimensions} dimensions"
    centroids, rows, ids, offsets = (found[name] for name in wanted)
    if len(offsets) != len(centroids) + 1 or offsets[0] != 0 or offsets[-1] != len(rows) or (np.diff(offsets) < 0).any():
        return "its offsets do not go with its rows and centroids"
    return None if len(ids) == len(rows) and rows.shape[1] == centroids.shape[1] else "its ids or centroids do not go with its rows"


@functools.lru_cache(maxsize=1024)
def _problem(metric: metrics.Metric, q: int, n: int, d: int, k: int, lists: int, nprobe: int) -> Ivf:
    return Ivf(metric=metric, q=q, n=n, d=d, k=k, lists=lists, nprobe=nprobe)


def _host(array: Any) -> np.ndarray:
    """A copy on the host, or the array itself where it is NumPy's."""
    kind = dispatch.library("array", array)
    return array if kind == "numpy" else array.get() if kind == "cupy" else array.cpu().numpy()


def _placed(array: np.ndarray, device: str | None) -> Any:
    if device is None:
        return array
    if device == "cupy":
        import cupy

        return cupy.asarray(array)
    import torch

    return torch.from_numpy(array).to(device)
