"""The points of an experiment: every arm at every rate, each known by what determines its result."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

from analysis.environment import ROOT, identity, versions
from kernels.device import Device
from rag import models
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
    load = {name: value for name, value in settings["load"].items() if name != "rates"}
    folders = {"embedder": settings["embedder"]["model"], "generator": settings["generator"].get("model", "minilm")}
    weights = {part: models.weights_digest(models.locate(model, f"{experiment.where}.{part}")) for part, model in folders.items()}
    shared = {
        "corpus": corpus.digest,
        "weights": weights,
        **{name: settings[name] for name in ("questions", "embedder", "generator", "k")},
        "load": load,
        "seed": experiment.seed,
        "code": code_digest(),
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
def code_digest() -> str:
    """The first 16 hex digits of the sha256 over this package's source and that of the kernels it searches with."""
    hashed = hashlib.sha256()
    for folder in (Path(__file__).parent, ROOT / "kernels" / "knn"):
        for path in sorted(folder.glob("*.py")):
            hashed.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return hashed.hexdigest()[:16]
