"""What takes long to make and is kept on disk: so that every service of an experiment starts from the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.cli import replacing
from analysis.environment import ROOT, identity
from rag import models

if TYPE_CHECKING:  # a corpus keeps things here too
    from rag.corpus import Corpus


def folder(kind: str) -> Path:
    """Where what is of one kind is kept: under BLOCKWISE_SCRATCH, or under .cache in the project."""
    return Path(os.environ.get("BLOCKWISE_SCRATCH") or ROOT / ".cache").expanduser() / kind


def path(embedder: Mapping[str, Any], encoder: Path, corpus: Corpus) -> Path:
    """Where the embeddings of `corpus` by the model in the folder `encoder` belong."""
    key = identity(
        weights=models.weights_digest(encoder),
        shape=[embedder.get("architecture"), embedder.get("dtype", "float32")],
        prefix=models.prefixes(embedder, encoder)[1],
        corpus=corpus.digest,
    )
    return folder("embeddings") / f"{key}.npz"


def kept(file: Path, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """The embeddings in `file`; where it does not exist yet, those of `compute`, kept there."""
    if file.is_file():
        with np.load(file, allow_pickle=False) as stored:
            return stored["means"]
    means = compute()
    with replacing(file) as temporary:
        np.savez(temporary, means=means)
    return means
