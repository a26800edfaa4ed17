"""Text generation with `transformers` in this process: greedy, batched, a fixed number of new tokens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, StoppingCriteriaList

from rag import models, shapes
from rag.decode import Decoder

Sink = Callable[[str], None]
"""Takes the pieces of one answer's text as they are generated."""


@dataclass(frozen=True)
class Generated:
    """A continuation, and how many tokens went in (the prompt) and came out."""

    text: str
    tokens_in: int
    tokens_out: int


class Generator(Protocol):
    """What answers prompts. `weights` is "random" or "pretrained": random weights cost the time of real ones and say nothing."""

    @property
    def name(self) -> str: ...

    @property
    def weights(self) -> str: ...

    def generate(self, prompts: Sequence[str], sinks: Sequence[Sink | None] = ()) -> list[Generated]: ...

    def length(self, prompt: str) -> int: ...


class Pieces:
    """Turns the tokens of a batch, a step at a time, into pieces of text for the sinks that there are."""

    def __init__(self, tokenizer: Any, tokenizing: threading.Lock, sinks: Sequence[Sink | None]) -> None:
        self._tokenizer, self._tokenizing = tokenizer, tokenizing
        self._rows = {row: (sink, list[int](), [0]) for row, sink in enumerate(sinks) if sink}

    def __call__(self, first: int, tokens: torch.Tensor) -> None:
        """Take the next token of the rows from `first` on."""
        taken = tokens.tolist()
        for row, (sink, ids, sent) in self._rows.items():
            if 0 <= row - first < len(taken):
                ids.append(taken[row - first])
                with self._tokenizing:
                    text = self._tokenizer.decode(ids, skip_special_tokens=True)
                if len(text) > sent[0] and not text.endswith("\ufffd"):  # a character that is not whole yet
                    sink(text[sent[0] :])
                    sent[0] = len(text)


class Transformers:
    """A causal language model on a device. Safe to call from several threads.

    Every answer has exactly `new_tokens` tokens, so that requests cost alike whatever the weights say. A prompt longer than
    `prompt_tokens` loses its beginning. `settings` with an `architecture` build it (see `rag.shapes`) with random weights from
    `seed` and MiniLM's tokenizer (no generation tokenizer comes without a download).
    """

    def __init__(self, settings: Mapping[str, Any], seed: int, device: str, where: str) -> None:
        self.device, self.new_tokens = device, settings["new_tokens"]
        dtype = getattr(torch, settings["dtype"])
        self.weights = "random" if "architecture" in settings else "pretrained"
        if self.weights == "random":
            given = settings["architecture"] != "opt"
            self.name = settings["architecture"] if given else f"opt-{settings['layers']}x{settings['hidden']}"
            self.tokenizer = models.load(AutoTokenizer, models.locate("minilm", where), where)
            self.model: Any = shapes.generator(settings, self.tokenizer, seed, device)
        else:
            self.name = settings["model"]
            folder = models.locate(self.name, where)
            self.tokenizer = models.load(AutoTokenizer, folder, where)
            self.model = models.load(AutoModelForCausalLM, folder, where)
            self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token
        self.model = self.model.eval().to(device=device, dtype=dtype)
        self.tokenizer.padding_side = self.tokenizer.truncation_side = "left"  # a continuation follows the prompt's last token
        self.prompt_tokens = min(settings["prompt_tokens"], self.model.config.max_position_embeddings - self.new_tokens)
        self._tokenizing = threading.Lock()  # a fast tokenizer's padding and truncation are state
        self._decoder: Decoder | None = None

    def capture(self, max_batch: int) -> None:
        """Decode by captured graphs from now on (see `rag.decode`), for which a GPU and one thread at a time are needed."""
        self._decoder = Decoder(self.model, self.prompt_tokens, self.new_tokens, max_batch)
        self._decoder.warm_up()

    def length(self, prompt: str) -> int:
        """Tokens of a prompt as it goes into the model."""
        with self._tokenizing:
            return min(len(self.tokenizer(prompt)["input_ids"]), self.prompt_tokens)

    @torch.inference_mode()
    def generate(self, prompts: Sequence[str], sinks: Sequence[Sink | None] = ()) -> list[Generated]:
        """The continuations of `prompts`; in float32 each is the one that its prompt gets alone. `sinks[i]` gets the pieces of the i-th."""
        with self._tokenizing:
            tokens = self.tokenizer(
                list(prompts),
                padding=True,
                truncation=True,
                max_length=self.prompt_tokens,
                return_tensors="pt",
                return_token_type_ids=False,
            )
        tokens = tokens.to(self.device)
        pieces = Pieces(self.tokenizer, self._tokenizing, sinks) if any(sinks) else None
        if self._decoder is None:
            new = self._continued(tokens, pieces)
        else:
            new = self._decoder(tokens["input_ids"], tokens["attention_mask"], pieces)
        with self._tokenizing:
            texts = self.tokenizer.batch_decode(new, skip_special_tokens=True)
        sizes = tokens["attention_mask"].sum(1).tolist()
        return [Generated(text, size, new.shape[1]) for text, size in zip(texts, sizes, strict=True)]

    def _continued(self, tokens: Any, pieces: Pieces | None) -> torch.Tensor:
        def watch(ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
            if pieces is not None:
                pieces(0, ids[:, -1])
            return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

        out = self.model.generate(
            **tokens,
            stopping_criteria=StoppingCriteriaList([watch]),
            do_sample=False,
            num_beams=1,
            min_new_tokens=self.new_tokens,
            max_new_tokens=self.new_tokens,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        return out[:, tokens["input_ids"].shape[1] :]
