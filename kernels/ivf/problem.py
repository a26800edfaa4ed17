"""The contract of the search of an inverted file: its problems, their inputs, and how backends are checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from analysis.cli import BadInput
from kernels import metrics
from kernels.contract import Arrays, Cost, Memory, Operator, Problem, Signature
from kernels.distance import ORACLE
from kernels.distance.tolerance import spread as evenly
from kernels.draw import normal
from kernels.ivf import reference
from kernels.ivf.compare import compare

Data = Literal["clustered", "offset", "duplicates", "nan", "skewed"]
SCRATCH = 1 << 30
"""Bytes of scratch that the backends stay within, whatever the number of queries."""


@dataclass(frozen=True, kw_only=True)
class Ivf(Problem):
    """The k nearest rows to each of q queries among those in the `nprobe` nearest of `lists` lists; n rows of d dimensions in all.

    The centroids are N(0, 1); rows and queries lie around them, deviating by N(0, `spread`²). `data`: in "clustered" lists are about
    equally long; "offset" is the same around 10,000; in "duplicates" rows come in fours and centroids in pairs; "nan" has NaN in some
    rows and infinity in others; in "skewed" the first of 1,024 lists has a sixth of the rows and the last ones next to none.
    """

    metric: metrics.Metric = "l2"
    q: int = 1
    n: int
    d: int
    k: int = 10
    lists: int
    nprobe: int = 1
    spread: float = 0.6
    data: Data = "clustered"
    dtype: Literal["float32"] = "float32"

    def __post_init__(self) -> None:
        for name, least in (("q", 0), ("n", 0), ("d", 1), ("k", 1), ("lists", 1), ("nprobe", 1)):
            if getattr(self, name) < least:
                raise BadInput(f"{name}: {getattr(self, name)} is less than {least}")
        if self.nprobe > self.lists:
            raise BadInput(f"nprobe: {self.nprobe} is more than the {self.lists} lists")
        if self.n >= 1 << 31:
            raise BadInput(f"n: {self.n} is more than 2^31 - 1 rows")

    @property
    def probed(self) -> int:
        """Rows that a query meets, were all lists of one length."""
        return -(-self.n * self.nprobe // self.lists)


def shapes(problem: Ivf) -> dict[str, tuple[tuple[int, ...], str]]:
    return {
        "queries": ((problem.q, problem.d), problem.dtype),
        "centroids": ((problem.lists, problem.d), problem.dtype),
        "rows": ((problem.n, problem.d), problem.dtype),
        "ids": ((problem.n,), "int64"),
        "offsets": ((problem.lists + 1,), "int64"),
    }


def inputs(problem: Ivf, rng: np.random.Generator) -> Arrays:
    """A clustering that is given: each row is drawn around the centroid of its list, which in few dimensions need not be its nearest."""
    q, n, d, lists = problem.q, problem.n, problem.d, problem.lists
    centroids, rows, queries = (normal(rng, (count, d)) for count in (lists, n, q))
    if problem.data == "duplicates":
        rows = rows[np.arange(n) // 4 * 4]
        centroids[1::2] = centroids[: lists - 1 : 2]
    labels = (lists * rng.random(n) ** 4).astype(np.int64) if problem.data == "skewed" else rng.integers(lists, size=n)
    ids = np.argsort(labels, kind="stable")
    labels = labels[ids]
    around = labels[rng.integers(n, size=q)] if n else rng.integers(lists, size=q)
    for points, centres in ((rows, labels), (queries, around)):
        points *= np.float32(problem.spread)
        for start in range(0, len(points), 1 << 16):
            points[start : start + (1 << 16)] += centroids[centres[start : start + (1 << 16)]]
    if problem.data == "offset":
        for points in (centroids, rows, queries):
            points += np.float32(1e4)
    elif problem.data == "nan":
        rows[::3, 0], rows[1::7, -1] = np.nan, np.inf
    return {"queries": queries, "centroids": centroids, "rows": rows, "ids": ids, "offsets": np.searchsorted(labels, np.arange(lists + 1))}


def oracle(problem: Ivf, inputs: Arrays) -> Arrays:
    distances, ids = reference.search(**inputs, k=problem.k, nprobe=problem.nprobe, metric=problem.metric)
    return {"distances": distances, "ids": ids}


def part(problem: Ivf, inputs: Arrays, outputs: Arrays) -> tuple[Ivf, Arrays, Arrays]:
    """Some of the queries, evenly spread, as many as the oracle does in a second or so, and one at least."""
    rows = evenly(problem.q, max(1, ORACLE // ((problem.lists + problem.probed) * problem.d)))
    found = {name: array[rows] for name, array in outputs.items()}
    return replace(problem, q=len(rows)), inputs | {"queries": inputs["queries"][rows]}, found


def cost(problem: Ivf) -> Cost:
    """What is probed read once, at most every row, and distances and ids written once; a multiply-add an element and pair counts as 2.

    Lists are taken to be of one length. Products may be of tensor cores in TF32 where a bound tells what has to be computed again; l1 has
    no products, and subtracts and adds in float32.
    """
    q, d, lists, probed = problem.q, problem.d, problem.lists, problem.probed
    read = min(problem.n, q * probed)
    rate = "fp32" if problem.metric == "l1" else "tf32"
    return Cost(4 * (q + lists + read) * d + 8 * (read + lists + 1) + 12 * q * problem.k, 2 * q * (lists + probed) * d, rate)


def memory(problem: Ivf) -> Memory:
    """Host: inputs twice, outputs, and the oracle's float64 copies of a query's rows. Device: inputs, outputs and scratch."""
    q, n, d = problem.q, problem.n, problem.d
    once = 4 * (q + problem.lists + n) * d + 8 * (n + problem.lists) + 12 * q * problem.k
    return Memory(host=2 * once + 4 * 8 * min(n, 8 * problem.probed) * d + (64 << 20), device=once + 2 * SCRATCH)


def _native(function: Any, problem: Ivf, inputs: Arrays) -> Arrays:
    distances, ids = function(*inputs.values(), problem.k, problem.nprobe, problem.metric)
    return {"distances": np.asarray(distances), "ids": np.asarray(ids)}


def _course(function: Any, problem: Ivf, inputs: Arrays) -> Arrays:
    collection = np.empty_like(inputs["rows"])
    collection[inputs["ids"]] = inputs["rows"]
    found = [np.asarray(function(*collection.shape, collection, query, problem.k)) for query in inputs["queries"]]
    return {"approximate": np.stack(found).reshape(problem.q, -1)}


def _course_accepts(problem: Ivf) -> str | None:
    """The course asks for l2 over finite rows with K of at least 1 and at most N."""
    if problem.metric != "l2":
        return f"our_ann(N, D, A, X, K) has no metric; it is asked for l2, not {problem.metric}"
    if not problem.q or not problem.k <= problem.n or problem.data == "nan":
        return f"the course does not define k = {problem.k} of n = {problem.n} rows of {problem.data} data for q = {problem.q} queries"
    return None


_SHAPES = (
    (1, 300, 2, 10, 7, 3), (9, 300, 31, 7, 9, 2), (2, 64, 130, 1, 4, 2),
    (1, 1, 1, 1, 1, 1), (3, 131, 37, 140, 10, 4), (2, 5, 1, 9, 3, 3), (1, 0, 4, 2, 2, 1), (8, 99, 5, 20, 9, 9), (9, 0, 4, 2, 3, 2),
    (0, 5, 3, 2, 2, 1), (8, 30, 16, 6, 70, 9), (8, 400, 130, 5, 1, 1),
)  # fmt: skip
_HARD: tuple[tuple[int, Data], ...] = tuple((q, data) for q in (8, 2) for data in ("nan", "offset", "duplicates", "skewed"))
OPERATOR = Operator(
    name="ivf",
    summary="approximate k nearest neighbours: those in the lists whose centroids are nearest (IVF-Flat)",
    problem=Ivf,
    shapes=shapes,
    inputs=inputs,
    oracle=oracle,
    compare=compare,
    cost=cost,
    memory=memory,
    awkward=[
        *(
            Ivf(metric=metric, q=q, n=n, d=d, k=k, lists=lists, nprobe=nprobe)
            for metric in metrics.METRICS
            for q, n, d, k, lists, nprobe in (_SHAPES if metric == "l2" else _SHAPES[:3])
        ),
        *(
            Ivf(metric=metric, q=q, n=300, d=19, k=6, lists=16, nprobe=3, data=data)
            for metric in metrics.METRICS
            for q, data in (_HARD if metric == "l2" else _HARD[:1])
        ),
    ],
    signatures=[
        Signature(("queries", "centroids", "rows", "ids", "offsets", "k", "nprobe", "metric"), _native),
        Signature(("N", "D", "A", "X", "K"), _course, _course_accepts),
    ],
    part=part,
)
