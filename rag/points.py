"""The points of an experiment: every arm under every load, each point known by what determines its result."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from analysis.environment import ROOT, identity, versions
from kernels.device import Device
from kernels.source import digest_of
from rag import models, traces
from rag.config import Experiment
from rag.corpus import Corpus
from rag.search import probes

PROTOCOL = 2
"""Counts changes in what is measured and how, beyond what the code's digest says."""
LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "triton", "fastapi", "uvicorn", "aiohttp")
NAN = float("nan")


@dataclass(frozen=True)
class Point:
    """One rate of a load on one arm. `repeat` counts from 1.

    `probe` says why it is measured: "rate", a rate of the config; "search", a rate that a search tries; "multiple", a rate that is
    `multiple` times the one that the search found. A rate that the search tried itself may be one of these multiples too.
    """

    id: str
    arm: str
    load: str
    rate: float
    repeat: int
    probe: str
    multiple: float = NAN


@dataclass(frozen=True)
class Progress:
    """What is known of a series: the `points` that are measured, the `next` to measure (None: all are), what its search has `found`.

    `found` is 0 where no rate passed, and NaN where the search is not over or there is none.
    """

    points: list[Point]
    next: Point | None
    found: float = NAN


@dataclass(frozen=True)
class Series:
    """The points of one arm under one load in one repeat. `settings` are the load's, `shared` what determines all their results."""

    arm: str
    load: str
    repeat: int
    settings: Mapping[str, Any]
    shared: Mapping[str, Any]

    @property
    def strict(self) -> bool:
        """Whether what is measured next depends on what was measured before."""
        return "search" in self.settings

    def progress(self, passed: Callable[[Point], bool | None]) -> Progress:
        """How far the series is. `passed` says whether a point met the objective, or None: it is not measured."""
        if not self.strict:
            return _until_next(map(self.point, self.settings["rates"]), passed)
        steps, tried = probes(self.settings), list[Point]()
        try:
            rate = next(steps)
            while True:
                point = self.point(rate, "search")
                if (outcome := passed(point)) is None:
                    return Progress(tried, point)
                tried.append(point)
                rate = steps.send(outcome)
        except StopIteration as end:
            found: float = end.value
        multiples = {multiple * found: float(multiple) for multiple in (1, *self.settings.get("times", ())) if found}
        tried = [replace(point, multiple=multiples.pop(point.rate, NAN)) for point in tried]
        more = _until_next((self.point(rate, "multiple", multiple) for rate, multiple in multiples.items()), passed)
        return Progress(tried + more.points, more.next, found)

    def point(self, rate: float, probe: str = "rate", multiple: float = NAN) -> Point:
        """The point of this series at a rate."""
        key = identity(**self.shared, rate=float(rate), repeat=self.repeat)
        return Point(key, self.arm, self.load, float(rate), self.repeat, probe, multiple)


def _until_next(points: Iterable[Point], passed: Callable[[Point], bool | None]) -> Progress:
    """The progress of points that are measured one after the other, whatever becomes of them."""
    every = list(points)
    measured = [point for point in every if passed(point) is not None]
    return Progress(measured, next((point for point in every if passed(point) is None), None))


def plan(experiment: Experiment, corpus: Corpus, device: Device) -> list[Series]:
    """The series of `experiment`, arm by arm, and of each the loads as the config lists them.

    Raises BadInput where a model is not to be had.
    """
    settings = experiment.settings
    folders = {
        "embedder": models.encoder_folder(settings["embedder"], f"{experiment.where}.embedder"),
    }
    if "endpoint" not in settings["generator"]:
        folders["generator"] = models.locate(settings["generator"].get("model", "minilm"), f"{experiment.where}.generator")
    shared = {
        "corpus": corpus.digest,
        "weights": {part: models.weights_digest(folder) for part, folder in folders.items()},
        **{name: settings[name] for name in ("questions", "embedder", "generator", "k")},
        "seed": experiment.seed,
        "code": code_digest(device.kind),
        "versions": versions(*LIBRARIES),
        "device": [device.name, device.driver],
        "protocol": PROTOCOL,
    }
    loads = {name: _determining(experiment, name) for name in settings["loads"]}
    return [
        Series(arm, name, repeat, settings["loads"][name], {**shared, "arm": [arm, experiment.arm(arm)], "load": load})
        for arm in settings["arms"]
        for name, load in loads.items()
        for repeat in range(1, settings["repeats"] + 1)
    ]


def trace_of(experiment: Experiment, load: str) -> traces.Trace | None:
    """The trace that a load replays, None for one of another kind of arrivals. Raises BadInput as `traces.read` does."""
    return traces.named(experiment.settings["loads"][load], f"{experiment.where}: the load {load}, trace")


def _determining(experiment: Experiment, name: str) -> dict[str, Any]:
    """What of a load determines a point's result, whichever rates are asked for."""
    trace = trace_of(experiment, name)
    load = experiment.settings["loads"][name]
    kept = {key: value for key, value in load.items() if key not in ("rates", "search", "times", "trace")}
    return kept | ({"trace": trace.sha256} if trace else {})


@functools.cache
def code_digest(kind: str) -> str:
    """A digest of the services, the load and the measuring, and of the kernels that they search with on a device of `kind`."""
    backend = "triton_impl.py" if kind == "gpu" else "torch_impl.py"
    retrieval = [ROOT / "kernels" / operator / backend for operator in ("knn", "ivf")]
    return digest_of([ROOT / "rag" / "experiment.py", ROOT / "rag" / "service.py", *retrieval])
