"""The decoder with a static cache against `generate` of transformers: the same tokens, whatever the batch and the padding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import OPTConfig, OPTForCausalLM, Qwen2Config, Qwen2ForCausalLM

from rag.decode import Decoder
from tests.rag.fakes import Played

NEW, PROMPT, VOCABULARY, PAD = 6, 12, 99, 1
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64,
    "pad_token_id": PAD, "bos_token_id": 2, "eos_token_id": 3,
}  # fmt: skip


def opt() -> Any:
    return OPTForCausalLM(OPTConfig(**SIZES, word_embed_proj_dim=32, ffn_dim=64))


def qwen() -> Any:
    return Qwen2ForCausalLM(Qwen2Config(**SIZES, num_key_value_heads=2, intermediate_size=64))


@pytest.fixture(
    scope="module", params=[(make, device) for make in (opt, qwen) for device in DEVICES], ids=lambda p: f"{p[0].__name__}-{p[1]}"
)
def model(request: pytest.FixtureRequest) -> Any:
    make, device = request.param
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval().to(device)


@pytest.fixture(scope="module", params=["launched", "captured"])
def decoder(model: Any, request: pytest.FixtureRequest) -> Decoder:
    made = Decoder(model, PROMPT, NEW, max_batch=5)
    if request.param == "launched":
        made._place = None
    elif made._place is None:
        made._place = Played()
    return made


def padded(lengths: list[int], seed: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts of these lengths, padded on the left, and their mask."""
    rng = torch.Generator().manual_seed(seed)
    ids = torch.full((len(lengths), max(lengths)), PAD)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        ids[row, -length:] = torch.randint(4, VOCABULARY, (length,), generator=rng)
        mask[row, -length:] = 1
    return ids.to(device), mask.to(device)


def generated(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    out = model.generate(
        input_ids=ids, attention_mask=mask, do_sample=False, min_new_tokens=NEW, max_new_tokens=NEW, pad_token_id=PAD, eos_token_id=None
    )
    return out[:, ids.shape[1] :]


@settings(max_examples=12, deadline=None)
@given(lengths=st.lists(st.integers(1, PROMPT), min_size=1, max_size=12), seed=st.integers(0, 1000))
def test_the_tokens_are_those_of_generate(model: Any, decoder: Decoder, lengths: list[int], seed: int):
    ids, mask = padded(lengths, seed, str(model.device))
    assert torch.equal(decoder(ids, mask), generated(model, ids, mask))


@pytest.mark.parametrize("new", [1, 2])
def test_a_single_token_or_two(model: Any, new: int):
    ids, mask = padded([3, PROMPT, 1], 4, str(model.device))
    assert torch.equal(Decoder(model, PROMPT, new, max_batch=2)(ids, mask), generated(model, ids, mask)[:, :new])


def test_a_batch_leaves_nothing_behind_for_the_next(model: Any, decoder: Decoder):
    long, short = padded([PROMPT] * 5, 1, str(model.device)), padded([1], 2, str(model.device))
    alone = decoder(*short)
    decoder(*long)
    assert torch.equal(decoder(*short), alone)


def test_an_answer_does_not_depend_on_who_shares_its_batch(model: Any, decoder: Decoder):
    ids, mask = padded([3, PROMPT, 1, 7], 3, str(model.device))
    together = decoder(ids, mask)
    for row in range(len(ids)):
        assert torch.equal(decoder(ids[row : row + 1], mask[row : row + 1])[0], together[row])


def test_all_that_a_captured_decoder_runs_is_replayed(model: Any):
    decoder, place = Decoder(model, PROMPT, NEW, max_batch=2), Played()
    decoder._place = place
    for lengths in ([1], [2, PROMPT // 4 + 1], [PROMPT, 3]):
        before = place.replays
        decoder(*padded(lengths, 5, str(model.device)))
        assert place.replays - before == NEW  # the prompts, and a step for each token but the first


def test_warming_up_prepares_every_batch_size(model: Any):
    decoder = Decoder(model, PROMPT, NEW, max_batch=5)
    decoder.warm_up()
    assert sorted(decoder._plans) == [1, 2, 4, 5]
