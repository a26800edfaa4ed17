"""Embeddings of texts by a Hugging Face encoder: the mean of the last hidden states over a text's own tokens."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer

from rag import models, shapes

BATCH = 32


class Embedder:
    """An encoder on a device. Safe to call from several threads.

    `settings` are the config's: `model`, or an `architecture` of `rag.shapes` with random weights and MiniLM's tokenizer; `dtype`,
    which on a CPU is float32 in any case; and `query_prefix` and `passage_prefix` where the model's own shall not hold.
    """

    def __init__(self, settings: Mapping[str, Any], device: str, where: str) -> None:
        self.weights = "random" if "architecture" in settings else "pretrained"
        self.name = settings.get("architecture") or settings["model"]
        self.folder = models.encoder_folder(settings, where)
        self.tokenizer = models.load(AutoTokenizer, self.folder, where)
        if self.weights == "random":
            model = shapes.encoder(self.name, self.tokenizer, 0, device)
        else:
            model = models.load(AutoModel, self.folder, where, dtype=torch.float32)
        dtype = getattr(torch, settings["dtype"] if device == "cuda" else "float32")
        self.model = model.eval().to(device=device, dtype=dtype)
        self._first = 2 if self.model.config.model_type == "xlm-roberta" else 0  # its positions begin there, and it has one type of token
        self.device = device
        self.query_prefix, self.passage_prefix = models.prefixes(settings, self.folder)
        self._tokenizing = threading.Lock()  # a fast tokenizer's padding and truncation are state

    @torch.inference_mode()
    def means(self, texts: Sequence[str]) -> torch.Tensor:
        """(number of texts, dimension) float32 on the device: the mean over each text's tokens, padding left out.

        The mask makes a text's embedding independent of the texts beside it. Longer texts are cut at the model's limit.
        """
        with self._tokenizing:
            limit = min(self.tokenizer.model_max_length, self.model.config.max_position_embeddings - self._first)
            tokens = self.tokenizer(list(texts), padding=True, truncation=True, max_length=limit, return_tensors="pt")
        tokens = tokens.to(self.device)
        if self._first:
            tokens.pop("token_type_ids", None)
        hidden = self.model(**tokens).last_hidden_state.float()
        mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        return (hidden * mask).sum(1) / mask.sum(1)

    def queries(self, texts: Sequence[str]) -> torch.Tensor:
        """Embeddings of queries, with the model's prefix, normalised to length 1."""
        return normalised(self.means([self.query_prefix + text for text in texts]))

    def passages(self, texts: Sequence[str]) -> np.ndarray:
        """Means of passages (float32, not normalised), in batches of like length so that little is padding."""
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]), reverse=True)
        out: np.ndarray | None = None
        with tqdm(total=len(texts), desc="embedding the corpus", unit=" chunks", disable=len(texts) < 4 * BATCH) as bar:
            for start in range(0, len(order), BATCH):
                batch = order[start : start + BATCH]
                means = self.means([self.passage_prefix + texts[at] for at in batch]).cpu().numpy()
                out = np.empty((len(texts), means.shape[1]), np.float32) if out is None else out
                out[batch] = means
                bar.update(len(batch))
        assert out is not None, "a corpus has at least one chunk"
        return out


class OneByOne:
    """An embedder that gives queries to its model one at a time, as the course's batches do, for comparison."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    def queries(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.cat([self._embedder.queries([text]) for text in texts])


def normalised(means: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(means, dim=-1)
