"""A corpus's embeddings, kept on disk so that every service of an experiment starts from the same ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from analysis.cli import replacing
from analysis.environment import ROOT, identity
from rag import models
from rag.corpus import Corpus


def path(embedder: Mapping[str, Any], folder: Path, corpus: Corpus) -> Path:
    """Where the embeddings of `corpus` by the model in `folder` belong: under BLOCKWISE_SCRATCH, or under .cache in the project."""
    prefix, shape = models.prefixes(embedder, folder)[1], [embedder.get("architecture"), embedder.get("dtype", "float32")]
    key = identity(weights=models.weights_digest(folder), shape=shape, prefix=prefix, corpus=corpus.digest)
    return Path(os.environ.get("BLOCKWISE_SCRATCH") or ROOT / ".cache") / "embeddings" / f"{key}.npz"


def kept(file: Path, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """The embeddings in `file`; where it does not exist yet, those of `compute`, kept there."""
    if file.is_file():
        with np.load(file, allow_pickle=False) as stored:
            return stored["means"]
    means = compute()
    with replacing(file) as temporary:
        np.savez(temporary, means=means)
    return means
