"""The cases of the benchmark: their data, their contenders and what is asked of them."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kernel_measure import Contender, Row, Target

from analysis.cli import BadInput
from kernels.gemm import Precision
from kernels.metrics import Metric

if TYPE_CHECKING:
    import torch

SEED = 20261124
METRICS: tuple[Metric, ...] = ("l2", "cosine", "dot", "l1")
CHECKED = {"l1": 200}
"""Queries that float64 answers at most; of other metrics 1,000."""
POINTS = 20_000
"""Points whose labels float64 finds at most."""
RECALL = 0.99
STREAM_MEMORY = 4_000_000_000
"""Bytes of GPU memory that a streamed search may use."""


@dataclass(frozen=True)
class Setting:
    """Where data lies: "cuda" or "cpu"."""

    device: str = "cuda"

    @property
    def place(self) -> str:
        return "gpu" if self.device == "cuda" else "cpu"

    def normal(self, *shape: int, seed: int = 0) -> torch.Tensor:
        """Standard normal float32 from a seeded generator on the device."""
        import torch

        generator = torch.Generator(self.device).manual_seed(SEED + seed)
        return torch.randn(*shape, device=self.device, generator=generator)


@dataclass(frozen=True)
class Case:
    """Rows that share data; `rows(setting)` makes the data and yields them one by one."""

    name: str
    title: str
    rows: Callable[[Setting], Iterator[Row]]


def knn(name: str, title: str, q: int, n: int, d: int, k: int, targets: dict[str, Target], torch_too: bool = True) -> Case:
    """Nearest neighbours of q queries, a row a metric of `targets`."""

    def rows(setting: Setting) -> Iterator[Row]:
        import kernel_contenders as who
        import kernel_exactness as exactness

        collection, queries = setting.normal(n, d), setting.normal(q, d, seed=1)
        for metric, target in targets.items():
            part = exactness.spread(q, CHECKED.get(metric, 1000), setting.device)

            @functools.cache
            def truth(metric: str = metric, part: torch.Tensor = part) -> exactness.Nearest:
                some = queries[part]
                return exactness.nearest(some, exactness.chunks(collection, some.device, len(some)), k, metric)

            def check(ids: torch.Tensor, _: Any, metric: str = metric, part: torch.Tensor = part, truth: Any = truth) -> dict[str, float]:
                return exactness.neighbours(queries[part], lambda rows: collection[rows], ids[part], truth(), metric, n)

            contenders = [Contender("ours", lambda _, metric=metric: who.knn_ours(queries, collection, k, metric), check)]
            if metric == "l2":
                contenders.append(Contender("FlashLib", lambda _: who.knn_flashlib(queries, collection, k), check))
            if torch_too:
                prepare = functools.partial(who.prepared_norms, collection, metric)
                kind = "torch" if metric in ("dot", "l1") else "torch, norms precomputed"
                contenders.append(
                    Contender(kind, lambda norms, metric=metric: who.knn_torch(queries, collection, norms, k, metric), check, prepare)
                )
            yield Row(f"{name}_{metric}" if len(targets) > 1 else name, f"{title}, {metric}", _at(setting, contenders), target)

    return Case(name, title, rows)


def kmeans(name: str, title: str, n: int, d: int, k: int, target: Target) -> Case:
    """One iteration of Lloyd's algorithm from k of the points."""

    def rows(setting: Setting) -> Iterator[Row]:
        import kernel_contenders as who

        points = setting.normal(n, d)
        centroids, check = _clusters(setting, points, k)
        calls = {"ours": who.lloyd_ours, "FlashLib": who.lloyd_flashlib, "torch": who.lloyd_torch}
        contenders = [Contender(each, lambda _, call=call: call(points, centroids), check) for each, call in calls.items()]
        yield Row(name, title, _at(setting, contenders), target)

    return Case(name, title, rows)


def _clusters(setting: Setting, points: torch.Tensor, k: int) -> tuple[torch.Tensor, Callable[[Any, Any], dict[str, float]]]:
    """Random rows as first centroids, and the check of one iteration from them."""
    import kernel_exactness as exactness
    import torch

    generator = torch.Generator(setting.device).manual_seed(SEED)
    centroids = points[torch.randperm(len(points), device=setting.device, generator=generator)[:k]]
    part = exactness.spread(len(points), POINTS, setting.device)

    def check(found: Any, _: Any) -> dict[str, float]:
        labels, after = (torch.as_tensor(each).to(setting.device) for each in found)
        return exactness.clusters(points, centroids, labels, after, part)

    return centroids, check


def ivf(name: str, title: str, q: int, nprobe: int | None, target: Target, n: int = 1_000_000, d: int = 128, lists: int = 1024) -> Case:
    """Search of an inverted file with `nprobe`, or with the smallest power of two that has a recall of RECALL; q = 0: its building."""

    def rows(setting: Setting) -> Iterator[Row]:
        import kernel_contenders as who

        collection, queries = _around_centres(setting, n, max(q, 1000), d)
        recall = _recall_of(setting, collection, queries, 10)
        contenders = []
        for each, build, search in (
            ("ours", who.ivf_ours_build, who.ivf_ours_search),
            ("FlashLib", who.ivf_flashlib_build, who.ivf_flashlib_search),
        ):

            def ready(build: Any = build, search: Any = search) -> tuple[Any, int]:
                index = build(collection, lists)
                return index, nprobe or _enough(recall, lambda probes: search(index, queries, 10, probes), lists)

            def built(index: Any, _: Any, search: Any = search) -> dict[str, float]:
                return {"nprobe": min(16, lists), **recall(search(index, queries, 10, min(16, lists)))}

            def searched(ids: torch.Tensor, prepared: tuple[Any, int], search: Any = search) -> dict[str, float]:
                found = ids if len(ids) == len(queries) else search(prepared[0], queries, 10, prepared[1])
                return {"nprobe": prepared[1], **recall(found)}

            if q:
                batch = queries[:q]
                call = lambda prepared, search=search, batch=batch: search(prepared[0], batch, 10, prepared[1])  # noqa: E731
                contenders.append(Contender(each, call, searched, ready))
            else:
                contenders.append(Contender(each, lambda _, build=build: build(collection, lists), built))
        yield Row(name, title, _at(setting, contenders), target, needs=("recall", RECALL))

    return Case(name, title, rows)


def _around_centres(setting: Setting, n: int, q: int, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points and queries that deviate by 0.6 from 2,000 centres drawn from N(0, 1)."""
    import torch

    centres = setting.normal(2000, d, seed=2)
    generator = torch.Generator(setting.device).manual_seed(SEED + 3)
    points, queries = (
        setting.normal(count, d, seed=seed)
        .mul_(0.6)
        .add_(centres[torch.randint(2000, (count,), device=setting.device, generator=generator)])
        for count, seed in ((n, 0), (q, 1))
    )
    return points, queries


def _recall_of(setting: Setting, collection: torch.Tensor, queries: torch.Tensor, k: int) -> Callable[[torch.Tensor], dict[str, float]]:
    """What a search's ids [Q, k] recall of the exact neighbours, on a part of the queries; those are found once, when first asked for."""
    import kernel_exactness as exactness

    part = exactness.spread(len(queries), 1000, setting.device)

    @functools.cache
    def truth() -> exactness.Nearest:
        return exactness.nearest(queries[part], exactness.chunks(collection, collection.device, len(part)), k, "l2")

    def recall(ids: torch.Tensor) -> dict[str, float]:
        return exactness.neighbours(queries[part], lambda rows: collection[rows], ids[part], truth(), "l2", len(collection))

    return recall


def _enough(recall: Callable[[torch.Tensor], dict[str, float]], search: Callable[[int], torch.Tensor], lists: int) -> int:
    """The smallest power of two of lists to probe that has a recall of RECALL."""
    nprobe = 1
    while nprobe < lists and recall(search(nprobe))["recall"] < RECALL:
        nprobe *= 2
    return min(nprobe, lists)


def gemm(precision: Precision, size: int = 8192) -> Case:
    """A square product of row-major matrices."""

    def rows(setting: Setting) -> Iterator[Row]:
        import kernel_contenders as who
        import kernel_exactness as exactness
        import torch

        dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)
        a, b = (setting.normal(size, size, seed=seed).to(dtype) for seed in (0, 1))

        def check(c: torch.Tensor, _: Any) -> dict[str, float]:
            return exactness.product(precision, a, b, c)

        contenders = [
            Contender("ours", lambda _: who.gemm_ours(a, b, precision), check),
            Contender("cuBLAS", lambda _: who.gemm_cublas(a, b, precision), check),
        ]
        yield Row(f"gemm_{precision}", title, _at(setting, contenders), Target("peer", 1.0, 1 / 0.9, 1.0, "cuBLAS"))

    title = f"gemm {size}³ {precision}, both operands row-major"
    return Case(f"gemm_{precision}", title, rows)


def streamed(n: int = 40_000_000, d: int = 128, q: int = 100, k: int = 10) -> Case:
    """Exact neighbours in a collection that stays in the host's memory."""

    def rows(setting: Setting) -> Iterator[Row]:
        import kernel_contenders as who
        import kernel_exactness as exactness
        import numpy as np
        import torch

        collection, step = np.empty((n, d), np.float32), 1_000_000
        for start in range(0, n, step):
            some = setting.normal(min(step, n - start), d, seed=10 + start // step)
            torch.from_numpy(collection[start : start + step]).copy_(some)
        queries = setting.normal(q, d, seed=1)

        @functools.cache
        def truth() -> exactness.Nearest:
            return exactness.nearest(queries, exactness.chunks(collection, queries.device, q), k, "l2")

        def take(ids: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(collection[ids.cpu().numpy()]).to(setting.device)

        def before() -> int:
            return _allocated(setting, anew=True)

        def check(ids: Any, held: int) -> dict[str, float]:
            used = _allocated(setting) - held
            if used > STREAM_MEMORY:
                raise RuntimeError(f"took {used / 1e9:.2f} GB of GPU memory where {STREAM_MEMORY / 1e9:.0f} are allowed")
            return exactness.neighbours(queries, take, torch.as_tensor(ids), truth(), "l2", n)

        contenders = [Contender("ours", lambda _: who.knn_streamed(queries, collection, k, STREAM_MEMORY), check, before)]
        gigabytes = collection.nbytes / 1e9
        target = Target("link", 1e3 * gigabytes, 1e3 * gigabytes / 0.85, 1e3 * gigabytes / 0.95)
        yield Row("knn_streamed", title, _at(setting, contenders), target)

    title = f"knn {q} queries, {n // 1_000_000}M × {d} from host memory, {STREAM_MEMORY // 10**9} GB of GPU memory allowed"
    return Case("knn_streamed", title, rows)


def _allocated(setting: Setting, anew: bool = False) -> int:
    """The most bytes that torch has had on the device, from now on if `anew`."""
    if setting.device != "cuda":
        return 0
    import torch

    if anew:
        torch.cuda.reset_peak_memory_stats()
    return torch.cuda.max_memory_allocated()


def report_distance(d: int, n: int) -> Case:
    """All four distances of one query, on the GPU and on the host's CPU."""
    name, title = f"report_distance_{d}_{_short(n)}", f"distances of 1 query, {_long(n)} × {d}"
    if 4 * n * d > 64 << 30:
        reason = f"the collection takes {4 * n * d / 1e9:,.0f} GB"
        return Case(name, title, lambda setting: iter([Row(name, title, left_out=reason)]))

    def rows(setting: Setting) -> Iterator[Row]:
        import kernel_contenders as who
        import kernel_exactness as exactness
        import torch

        from kernels.distance import OPERATOR, Distance

        collection, query = setting.normal(n, d), setting.normal(1, d, seed=1)
        here = {"gpu": (query, collection), "cpu": (query.cpu().numpy(), collection.cpu().numpy())}
        part = exactness.spread(n, 100_000, setting.device)
        for metric in METRICS:

            def check(found: Any, _: Any, metric: str = metric) -> dict[str, float]:
                values = torch.as_tensor(found).to(setting.device).reshape(1, n)
                return exactness.distances(query, collection[part], values[:, part], metric)

            contenders = [
                Contender("ours", lambda _, data=data, metric=metric: who.distance_ours(*data, metric), check, place=place)
                for place, data in here.items()
                if place in (setting.place, "cpu")
            ]
            yield Row(f"{name}_{metric}", f"{title}, {metric}", contenders, cost=OPERATOR.cost(Distance(metric=metric, n=n, d=d)))

    return Case(name, title, rows)


def report_kmeans(d: int, n: int, k: int = 10) -> Case:
    """One iteration of Lloyd's algorithm, on the GPU and on the host's CPU."""
    name, title = f"report_kmeans_{d}_{_short(n)}", f"kmeans, one iteration, {_long(n)} × {d}, K={k}"

    def rows(setting: Setting) -> Iterator[Row]:
        import kernel_contenders as who

        from kernels.kmeans import OPERATOR, KMeans

        points = setting.normal(n, d)
        centroids, check = _clusters(setting, points, k)
        here = {"gpu": (points, centroids), "cpu": (points.cpu().numpy(), centroids.cpu().numpy())}
        contenders = [
            Contender("ours", lambda _, data=data: who.lloyd_ours(*data), check, place=place)
            for place, data in here.items()
            if place in (setting.place, "cpu")
        ]
        yield Row(name, title, contenders, cost=OPERATOR.cost(KMeans(n=n, d=d, k=k)))

    return Case(name, title, rows)


def _at(setting: Setting, contenders: Sequence[Contender]) -> list[Contender]:
    return [replace(one, place=setting.place) for one in contenders]


def _short(count: int) -> str:
    return f"{count // 1_000_000}m" if count >= 1_000_000 else f"{count // 1000}k"


def _long(count: int) -> str:
    return f"{count // 1_000_000}M" if count >= 1_000_000 else f"{count:,}"


def _memory(base_ms: float, must: float, aim: float) -> Target:
    return Target("bandwidth", base_ms, must, aim)


MILLION = 1_000_000
CASES = [
    knn("knn_1_4m", "knn 1 query, 4M × 128, k=10", 1, 4 * MILLION, 128, 10, dict.fromkeys(METRICS, _memory(0.463, 0.60, 0.51))),
    knn("knn_1_1m_1024", "knn 1 query, 1M × 1024, k=10", 1, MILLION, 1024, 10, {"l2": _memory(0.926, 1.02, 0.97)}),
    knn(
        "knn_1_4k",
        "knn 1 query, 4,000 × 128, k=10",
        1,
        4000,
        128,
        10,
        {"l2": Target("peer", 0.032, 0.030, 0.015, "torch, norms precomputed")},
    ),
    knn("knn_100_1m", "knn 100 queries, 1M × 128, k=10", 100, MILLION, 128, 10, {"l2": _memory(0.12, 0.40, 0.25)}),
    knn("knn_10k_1m_k10", "knn 10k queries, 1M × 128, k=10", 10_000, MILLION, 128, 10, {"l2": Target("bf16", 3.8, 14, 7)}),
    knn("knn_10k_1m_k100", "knn 10k queries, 1M × 128, k=100", 10_000, MILLION, 128, 100, {"l2": Target("bf16", 3.8, 30, 12)}),
    knn("knn_10k_1m_d2", "knn 10k queries, 1M × 2, k=10", 10_000, MILLION, 2, 10, {"l2": Target("fp32", 1.2, 6, 3)}),
    knn("knn_100_100k_32768", "knn 100 queries, 100k × 32768, k=10", 100, 100_000, 32768, 10, {"l2": _memory(3.0, 6, 3.6)}),
    knn(
        "knn_l1_10k_1m", "knn 10k queries, 1M × 128, k=10", 10_000, MILLION, 128, 10, {"l1": Target("fp32", 100, 125, 80)}, torch_too=False
    ),
    kmeans("kmeans_4m_128", "kmeans, one iteration, 4M × 128, K=1024", 4 * MILLION, 128, 1024, Target("bf16", 1.8, 4.0, 2.5)),
    kmeans("kmeans_1m_1024", "kmeans, one iteration, 1M × 1024, K=1024", MILLION, 1024, 1024, Target("bf16", 4.0, 8, 5)),
    kmeans("kmeans_1m_65536", "kmeans, one iteration, 1M × 128, K=65,536", MILLION, 128, 65536, Target("bf16", 25, 45, 30)),
    kmeans("kmeans_1m_2", "kmeans, one iteration, 1M × 2, K=1024", MILLION, 2, 1024, Target("peer", 0.72, 0.40, 0.15, "FlashLib")),
    ivf("ivf_10k", "ivf 10k queries, k=10, 1M × 128, 1,024 lists, recall ≥ 0.99", 10_000, None, Target("peer", 1.23, 1.2, 0.8, "FlashLib")),
    ivf("ivf_1", "ivf 1 query, k=10, nprobe 16", 1, 16, Target("peer", 0.297, 0.15, 0.06, "FlashLib")),
    ivf("ivf_build", "ivf build, 1M × 128, 1,024 lists", 0, None, Target("peer", 12.1, 12, 8, "FlashLib")),
    *(gemm(precision) for precision in ("tf32", "fp16", "bf16")),
    streamed(),
    *(report_distance(d, n) for n in (4000, 4 * MILLION) for d in (2, 1024, 1 << 15)),
    *(report_kmeans(d, n) for n in (4000, 4 * MILLION) for d in (2, 1024)),
]


def chosen(words: Sequence[str]) -> list[Case]:
    """The cases that the words name: a name, the beginning of one, or a pattern such as *_1m_*; all without words."""
    if not words:
        return CASES
    named = {name for word in words for name in _named(word)}
    return [case for case in CASES if case.name in named]


def _named(word: str) -> list[str]:
    names = [case.name for case in CASES]
    found = [word] if word in names else [name for name in names if name.startswith(word) or fnmatch.fnmatch(name, word)]
    if not found:
        raise BadInput(f"--cases {word}: no such case; one of {', '.join(names)}")
    return found
