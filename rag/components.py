"""What a service is made of, loaded from a config: the corpus, its embeddings, the encoder and the language model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from rag import cache, corpus, embed, index, models
from rag.config import Experiment
from rag.embed import Embedder, OneByOne
from rag.endpoint import remote
from rag.generate import Generator, Transformers
from rag.graphs import Place
from rag.pipeline import Pipeline
from rag.questions import questions

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Components:
    """The same models, corpus and embeddings for every arm, so that a comparison of arms is one of serving; `arm` is its settings."""

    arm: Mapping[str, Any]
    corpus: corpus.Corpus
    means: np.ndarray
    embedder: Embedder
    generator: Generator
    device: str

    @property
    def pipeline(self) -> Pipeline:
        """The components as the arm puts them together: by default a batch is embedded at once and searched for where the models are."""
        embedder = OneByOne(self.embedder) if self.arm.get("embedding") == "single" else self.embedder
        vectors = embed.normalised(torch.from_numpy(self.means).to(self.device))
        built = Pipeline(self.corpus, embedder, index.of(self.arm, vectors), self.generator)
        if self.device == "cuda":
            torch.cuda.synchronize()  # the stages search it on streams of their own, which wait for no other
        return built

    def aside(self, work: Callable[[T], R]) -> Callable[[T], R]:
        """`work` on a stream of its own, so that on a GPU what two threads ask for runs side by side."""
        if self.device != "cuda":
            return work
        stream = torch.cuda.Stream()

        def on_stream(given: T) -> R:
            with torch.cuda.stream(stream):
                return work(given)

        return on_stream

    def embeddings(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Normalised embeddings of queries, on the host."""
        return list(self.embedder.queries(texts).cpu().numpy())

    @property
    def facts(self) -> dict[str, Any]:
        """What a record says of them."""
        return {
            "model": self.generator.name,
            "weights": self.generator.weights,
            "embedder": self.embedder.name,
            "embedder_weights": self.embedder.weights,
            "corpus": self.corpus.digest,
            "chunks": len(self.corpus.chunks),
            "device": self.device,
        }


def _generator(experiment: Experiment, arm: Mapping[str, Any], device: str) -> Generator:
    settings, where = experiment.settings["generator"], f"{experiment.where}.generator"
    if "endpoint" in settings:
        return remote(settings, where)
    generator = Transformers(settings, experiment.seed, device, where)
    if device == "cuda" and arm.get("graphs"):
        generator.capture(arm["max_batch"])
    return generator


def load(experiment: Experiment, arm: Mapping[str, Any], device: str) -> Components:
    """Load what `experiment` names onto "auto", "cpu" or "cuda", for an arm of these. Raises BadInput for what is not to be had."""
    settings, where = experiment.settings, experiment.where
    device = models.torch_device(device)
    texts = corpus.build(settings["corpus"], experiment.seed, f"{where}.corpus")
    embedder = Embedder(settings["embedder"], device, f"{where}.embedder")
    generator = _generator(experiment, arm, device)
    file = cache.path(settings["embedder"], embedder.folder, texts)
    means = cache.kept(file, lambda: embedder.passages([chunk.text for chunk in texts.chunks]))
    if device == "cuda" and arm.get("graphs"):
        embedder.capture(arm["max_batch"], Place())
    if arm.get("chunks"):
        asked = questions(texts, settings["questions"], experiment.seed, f"{where}.corpus")
        sources = {question.source for question in asked}
        texts, rows = corpus.part(texts, arm["chunks"], sources, experiment.seed, f"{where}.arms: chunks")
        means = means[rows]
    return Components(arm, texts, means, embedder, generator, device)
