"""What a service is made of, loaded from a config: the corpus, its embeddings, the encoder and the language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rag import cache, corpus, embed, models
from rag.config import Experiment
from rag.embed import Embedder
from rag.generate import Generator, Transformers
from rag.index import Index
from rag.pipeline import Pipeline


@dataclass(frozen=True)
class Components:
    """The same for every arm, so that a comparison of arms is one of serving."""

    corpus: corpus.Corpus
    means: np.ndarray
    embedder: Embedder
    generator: Generator
    device: str

    @property
    def pipeline(self) -> Pipeline:
        """The components as this project puts them together: normalised embeddings, searched where the models are."""
        vectors = embed.normalised(torch.from_numpy(self.means).to(self.device))
        return Pipeline(self.corpus, self.embedder, Index(vectors), self.generator)

    @property
    def facts(self) -> dict[str, Any]:
        """What a record says of them."""
        return {
            "model": self.generator.name,
            "weights": self.generator.weights,
            "embedder": self.embedder.name,
            "corpus": self.corpus.digest,
            "device": self.device,
        }


def load(experiment: Experiment, device: str) -> Components:
    """Load what `experiment` names onto "auto", "cpu" or "cuda". Raises BadInput for what is not to be had."""
    settings, where = experiment.settings, experiment.where
    device = models.torch_device(device)
    texts = corpus.build(settings["corpus"], experiment.seed, f"{where}.corpus")
    embedder = Embedder(settings["embedder"], device, f"{where}.embedder")
    generator = Transformers(settings["generator"], experiment.seed, device, f"{where}.generator")
    file = cache.path(settings["embedder"], embedder.folder, texts)
    means = cache.kept(file, lambda: embedder.passages([chunk.text for chunk in texts.chunks]))
    return Components(texts, means, embedder, generator, device)
