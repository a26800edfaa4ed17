"""Embeddings of texts by a Hugging Face encoder, in batches of like length; how hidden states become one vector is `rag.pooling`'s."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer

from rag import models, pooling, shapes
from rag.graphs import Graph, Place, sizes

TOKENS = {"cpu": 4096, "cuda": 32768}
"""Tokens of a batch at most, each text counted as long as the longest: enough to fill a device, and what bounds its memory."""
TOKENIZED = 8192
"""Texts given to the tokenizer at once."""
LENGTHS = (16, 32, 48, 64, 96, 128)
"""Lengths of queries of which there are graphs."""
_FROM_PADDING = {"camembert", "mpnet", "roberta", "xlm-roberta", "xlm-roberta-xl"}
"""Models that number the positions of a text from the id of their padding + 1."""


class Embedder:
    """An encoder on a device. Safe to call from several threads.

    `settings` are the config's: `model`, or an `architecture` of `rag.shapes` with random weights and MiniLM's tokenizer; `dtype`,
    which on a CPU is float32 in any case; and `query_prefix` and `passage_prefix` where the model's own shall not hold.
    """

    def __init__(self, settings: Mapping[str, Any], device: str, where: str) -> None:
        self.weights = "random" if "architecture" in settings else "pretrained"
        self.name = settings.get("architecture") or settings["model"]
        self.folder = models.encoder_folder(settings, where)
        self.pooling = pooling.of(self.folder, where)
        self.tokenizer = models.load(AutoTokenizer, self.folder, where)
        if self.weights == "random":
            model = shapes.encoder(self.name, self.tokenizer, 0, device)
        else:
            model = models.load(AutoModel, self.folder, where, dtype=torch.float32)
        dtype = getattr(torch, settings["dtype"] if device == "cuda" else "float32")
        self.model = model.eval().to(device=device, dtype=dtype)
        self.model.config.use_cache = False
        self.device = device
        self.query_prefix, self.passage_prefix = models.prefixes(settings, self.folder)
        self._tokenizing = threading.Lock()  # a fast tokenizer's truncation is state
        self._graphs: dict[tuple[int, int], tuple[Graph, torch.Tensor, torch.Tensor, torch.Tensor]] = {}
        """By texts and tokens: the graph, the ids and the mask that it reads, and the vectors that it gives."""
        self._replaying = threading.Lock()

    @torch.inference_mode()
    def capture(self, max_batch: int, place: Place) -> None:
        """Embed by captured graphs from now on, up to so many short texts at once."""
        most = TOKENS[self.device]
        for rows in reversed(sizes(max_batch)):
            for length in [each for each in LENGTHS if each <= self.longest and rows * each < 2 * most]:
                ids = torch.zeros((rows, length), dtype=torch.long, device=self.device)
                seen = torch.zeros_like(ids)
                seen[:, 0] = 1
                graph, vectors = place.captured(functools.partial(self._vectors, ids, seen))
                self._graphs[rows, length] = graph, ids, seen, vectors

    @property
    def longest(self) -> int:
        """Tokens of a text at most; of a longer one the rest is left out."""
        config = self.model.config
        first = config.pad_token_id + 1 if config.model_type in _FROM_PADDING else 0
        limits = [self.tokenizer.model_max_length, config.max_position_embeddings - first]
        return int(min(*limits, self.pooling.longest or limits[0]))

    @torch.inference_mode()
    def means(self, texts: Sequence[str], told: str | None = None) -> torch.Tensor:
        """(number of texts, dimension) float32 on the device: the pooled hidden states of each text, not normalised.

        The mask makes a text's embedding independent of the texts beside it. `told` names a progress bar.
        """
        tokens = self._tokens(texts)
        lengths = np.array([len(each) for each in tokens])
        pieces, order = list[torch.Tensor](), list[int]()
        with tqdm(total=len(texts), desc=told, unit=" texts", disable=told is None) as bar:
            for batch in _batches(lengths, TOKENS[self.device]):
                pieces.append(self._pooled([tokens[at] for at in batch]))
                order += batch
                bar.update(len(batch))
        out = torch.cat(pieces)
        return torch.empty_like(out).index_copy_(0, torch.tensor(order, device=self.device), out)

    def queries(self, texts: Sequence[str]) -> torch.Tensor:
        """Embeddings of queries, with the model's prefix, normalised to length 1."""
        return normalised(self.means([self.query_prefix + text for text in texts]))

    def passages(self, texts: Sequence[str]) -> np.ndarray:
        """Pooled hidden states of passages (float32, not normalised), with the model's prefix, on the host."""
        told = "embedding the corpus" if len(texts) > 100 else None
        return self.means([self.passage_prefix + text for text in texts], told).cpu().numpy()

    def _tokens(self, texts: Sequence[str]) -> list[np.ndarray]:
        options = {"truncation": True, "max_length": self.longest, "return_attention_mask": False, "return_token_type_ids": False}
        found = list[np.ndarray]()
        for start in range(0, len(texts), TOKENIZED):
            with self._tokenizing:
                some = self.tokenizer(list(texts[start : start + TOKENIZED]), **options)["input_ids"]
            found += [np.array(each, np.int64) for each in some]
        return found

    def _pooled(self, tokens: Sequence[np.ndarray]) -> torch.Tensor:
        """The vectors of a batch."""
        longest = max(map(len, tokens))
        fits = [(rows, length) for rows, length in self._graphs if rows >= len(tokens) and length >= longest]
        if fits:
            return self._replayed(tokens, *min(fits))
        if self.device == "cuda":
            longest = min(self.longest, -(-longest // 8) * 8)  # attention's kernels want masks of such widths
        ids, seen = self._padded(tokens, len(tokens), longest)
        return self._vectors(ids.to(self.device), seen.to(self.device))

    def _replayed(self, tokens: Sequence[np.ndarray], rows: int, length: int) -> torch.Tensor:
        graph, its_ids, its_mask, vectors = self._graphs[rows, length]
        ids, seen = self._padded(tokens, rows, length)
        with self._replaying:
            its_ids.copy_(ids)
            its_mask.copy_(seen)
            graph.replay()
            found = vectors[: len(tokens)].clone()
            if found.is_cuda:
                torch.cuda.current_stream().synchronize()  # another thread's stream may be the next to fill the graph's memory
        return found

    def _padded(self, tokens: Sequence[np.ndarray], rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask of texts, padded on the right, and of further ones of which only the first token is seen."""
        ids = np.full((rows, length), self.tokenizer.pad_token_id or 0)
        mask = np.zeros_like(ids)
        mask[:, 0] = 1
        for row, each in enumerate(tokens):
            ids[row, : len(each)], mask[row, : len(each)] = each, 1
        return torch.from_numpy(ids), torch.from_numpy(mask)

    def _vectors(self, ids: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        return self.pooling(self.model(input_ids=ids, attention_mask=seen).last_hidden_state.float(), seen)


class OneByOne:
    """An embedder that gives queries to its model one at a time, as the course's batches do, for comparison."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    def queries(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.cat([self._embedder.queries([text]) for text in texts])


def normalised(means: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(means, dim=-1)


def _batches(lengths: np.ndarray, budget: int) -> Iterator[list[int]]:
    """Texts of like length together, the longest first, so many that padded they have at most `budget` tokens, and one at least."""
    order = np.argsort(-lengths, kind="stable")
    while len(order):
        rows = max(1, budget // max(1, int(lengths[order[0]])))
        yield order[:rows].tolist()
        order = order[rows:]
