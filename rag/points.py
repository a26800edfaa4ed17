"""The points of an experiment: every arm at every rate, each known by what determines its result."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from analysis.environment import ROOT, identity, versions
from kernels.device import Device
from kernels.source import digest_of
from rag import models, traces
from rag.config import Experiment
from rag.corpus import Corpus

PROTOCOL = 1
"""Counts changes in what is measured and how, beyond what the code's digest says."""
LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "triton", "fastapi", "uvicorn", "httpx")


@dataclass(frozen=True)
class Point:
    """One load on one arm. `repeat` counts from 1."""

    id: str
    arm: str
    rate: float
    repeat: int


def plan(experiment: Experiment, corpus: Corpus, device: Device) -> list[Point]:
    """The points of `experiment`, arm by arm, slow rates as the config lists them.

    Raises BadInput where a model is not to be had.
    """
    settings = experiment.settings
    load = {name: value for name, value in settings["load"].items() if name not in ("rates", "trace")}
    trace = traces.named(settings["load"], f"{experiment.where}.load.trace")
    load |= {"trace": trace.sha256} if trace else {}
    folders = {
        "embedder": models.encoder_folder(settings["embedder"], f"{experiment.where}.embedder"),
        "generator": models.locate(settings["generator"].get("model", "minilm"), f"{experiment.where}.generator"),
    }
    weights = {part: models.weights_digest(folder) for part, folder in folders.items()}
    shared = {
        "corpus": corpus.digest,
        "weights": weights,
        **{name: settings[name] for name in ("questions", "embedder", "generator", "k")},
        "load": load,
        "seed": experiment.seed,
        "code": code_digest(device.kind),
        "versions": versions(*LIBRARIES),
        "device": [device.name, device.driver],
        "protocol": PROTOCOL,
    }
    return [
        Point(identity(**shared, arm=[arm, experiment.arm(arm)], rate=float(rate), repeat=repeat), arm, float(rate), repeat)
        for arm in settings["arms"]
        for repeat in range(1, settings["repeats"] + 1)
        for rate in settings["load"]["rates"]
    ]


@functools.cache
def code_digest(kind: str) -> str:
    """A digest of the services, the load and the measuring, and of the kernel that they search with on a device of `kind`."""
    retrieval = "triton_impl.py" if kind == "gpu" else "torch_impl.py"
    return digest_of([ROOT / "rag" / "experiment.py", ROOT / "rag" / "service.py", ROOT / "kernels" / "knn" / retrieval])
