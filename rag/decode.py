"""Greedy decoding of a batch with nothing left to the host: a static cache, and on a GPU captured graphs of the prompts and of a step.

`generate` of `transformers` launches each kernel of each step from Python, which takes a GPU longer than the step itself. Here a step
reads where it is from tensors, so that the same graph, captured once a batch size, makes every token of every batch. Prompts are padded
to one of a few lengths, with a graph each.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import StaticCache

from rag.graphs import Graph, Place, sizes, topped_up

Watch = Callable[[int, torch.Tensor], None]


class Decoder:
    """Continues prompts of at most `prompt_tokens` by exactly `new_tokens` tokens, `max_batch` of them at a time. Not for several threads.

    `model` is a causal language model whose attention is PyTorch's own and whose cache may be static, as OPT's and Qwen2's.
    """

    def __init__(self, model: Any, prompt_tokens: int, new_tokens: int, max_batch: int) -> None:
        self.model, self.prompt_tokens, self.new_tokens, self.max_batch = model, prompt_tokens, new_tokens, max_batch
        self._plans: dict[int, _Plan] = {}
        self._place = Place() if model.device.type == "cuda" else None

    @torch.inference_mode()
    def __call__(self, ids: torch.Tensor, mask: torch.Tensor, watch: Watch | None = None) -> torch.Tensor:
        """(batch, new_tokens) token ids that follow `ids` (batch, length), padded on the left where `mask` is 0, on the model's device.

        `watch(first, tokens)` is called after each step with the tokens of the rows from `first` on.
        """
        starts = range(0, max(1, len(ids)), self.max_batch)
        return torch.cat([self._some(ids[at : at + self.max_batch], mask[at : at + self.max_batch], at, watch) for at in starts])

    def warm_up(self) -> None:
        """Capture the graphs of all batch sizes, so that no request waits for it: the largest first, as the others fit into its memory."""
        for rows in reversed(sizes(self.max_batch)):
            token = torch.zeros((rows, 1), dtype=torch.long, device=self.model.device)
            self(token, torch.ones_like(token))

    def _some(self, ids: torch.Tensor, mask: torch.Tensor, first: int, watch: Watch | None) -> torch.Tensor:
        rows = next(size for size in sizes(self.max_batch) if size >= len(ids))
        if rows not in self._plans:
            self._plans[rows] = _Plan(self.model, rows, self.prompt_tokens + self.new_tokens, self.new_tokens)
            if self._place is not None:
                self._plans[rows].capture(self._place, _lengths(self.prompt_tokens))
        told = (lambda token: watch(first, token[: len(ids)])) if watch else None
        return self._plans[rows].run(topped_up(ids, rows), topped_up(mask, rows), told)[: len(ids)].clone()


def _lengths(most: int) -> list[int]:
    """The lengths of prompts that are captured, the shortest first."""
    return sorted({-(-most // part) for part in (4, 2, 1)})


class _Plan:
    """The buffers of one batch size, and the graphs of a step and of prompts on them."""

    def __init__(self, model: Any, rows: int, length: int, new_tokens: int) -> None:
        device = model.device
        self.model, self.length = model, length
        self.cache = StaticCache(config=model.config, max_cache_len=length)
        self.seen = torch.zeros((rows, length), dtype=torch.bool, device=device)
        self.token = torch.zeros((rows, 1), dtype=torch.long, device=device)
        self.position = torch.zeros((rows, 1), dtype=torch.long, device=device)
        self.slot = torch.zeros(1, dtype=torch.long, device=device)
        self.number = torch.zeros(1, dtype=torch.long, device=device)
        self.out = torch.zeros((rows, new_tokens), dtype=torch.long, device=device)
        self.step: Graph | None = None
        self.prompts: dict[int, tuple[Graph, torch.Tensor, torch.Tensor]] = {}
        """By length: the graph, the ids that it reads, and their mask."""

    def capture(self, place: Place, lengths: Sequence[int]) -> None:
        """Record a step, and prompts of each of `lengths`."""
        self._prefill(torch.zeros_like(self.token), torch.ones_like(self.token, dtype=torch.bool))  # of any prompt: it makes the cache
        self.step, _ = place.captured(self._step, self.number.zero_)  # there may be fewer tokens to make than it runs
        for length in lengths:
            ids = torch.zeros((len(self.token), length), dtype=torch.long, device=self.token.device)
            mask = torch.ones_like(ids, dtype=torch.bool)
            graph, _ = place.captured(functools.partial(self._prefill, ids, mask))
            self.prompts[length] = graph, ids, mask

    def run(self, ids: torch.Tensor, mask: torch.Tensor, watch: Callable[[torch.Tensor], None] | None) -> torch.Tensor:
        self._start(ids, mask.bool())
        for number in range(self.out.shape[1]):
            if number:
                self._step() if self.step is None else self.step.replay()
            if watch is not None:
                watch(self.token[:, 0])
        return self.out

    def _start(self, ids: torch.Tensor, mask: torch.Tensor) -> None:
        """Run the prompts, padded further to the next length of which there is a graph."""
        own = ids.shape[1]
        length = next((length for length in self.prompts if length >= own), None)
        if length is None:
            return self._prefill(ids, mask)
        graph, its_ids, its_mask = self.prompts[length]
        its_mask.zero_()
        its_ids[:, length - own :], its_mask[:, length - own :] = ids, mask
        graph.replay()

    def _prefill(self, ids: torch.Tensor, mask: torch.Tensor) -> None:
        """Run the prompts, and put the first token of each answer in its place."""
        self.cache.reset()
        length = ids.shape[1]
        self.seen.zero_()
        self.seen[:, :length] = mask
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        before = torch.ones((length, self.length), dtype=torch.bool, device=ids.device).tril()
        itself = torch.eye(length, self.length, dtype=torch.bool, device=ids.device)  # or padding would see nothing, and give NaN
        self.number.zero_()
        self.slot.fill_(length)
        self._forward(ids, (before & self.seen[:, None] | itself)[:, None], positions)
        self.position.copy_(positions[:, -1:] + 1)

    def _step(self) -> None:
        """One token more for each row."""
        self.seen.index_fill_(1, self.slot, True)
        self._forward(self.token, self.seen[:, None, None], self.position)
        self.position.add_(1)
        self.slot.add_(1)

    def _forward(self, ids: torch.Tensor, allowed: torch.Tensor, positions: torch.Tensor) -> None:
        logits = self.model(
            input_ids=ids, attention_mask=allowed, position_ids=positions, past_key_values=self.cache, use_cache=True, logits_to_keep=1
        ).logits
        self.token.copy_(logits[:, -1].argmax(-1, keepdim=True))
        self.out.index_copy_(1, self.number, self.token)
        self.number.add_(1)
