"""Random weights in the shapes of known models: as many as theirs, the same for a seed, and told from theirs."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoTokenizer

from rag import models, shapes
from rag.embed import Embedder
from rag.generate import Transformers

TINY = {"new_tokens": 3, "prompt_tokens": 16, "dtype": "float32", "hidden": 16, "layers": 1, "heads": 2}


@pytest.fixture(scope="module")
def tokenizer():
    return models.load(AutoTokenizer, models.locate("minilm", "here"), "here")


@pytest.mark.parametrize(("architecture", "million"), [("opt-125m", 125.2), ("qwen2.5-1.5b", 1543.7)])
def test_a_generator_has_as_many_weights_as_its_model(tokenizer, architecture: str, million: float):
    """Counted without making them; OPT's table of positions is as long as what is asked of it."""
    model = shapes.generator({"architecture": architecture, "new_tokens": 48, "prompt_tokens": 2000}, tokenizer, 0, "meta")
    assert sum(weights.numel() for weights in model.parameters()) / 1e6 == pytest.approx(million, abs=0.05)


def test_an_encoder_has_as_many_weights_as_its_model(tokenizer):
    model = shapes.encoder("e5-large", tokenizer, 0, "meta")
    assert sum(weights.numel() for weights in model.parameters()) / 1e6 == pytest.approx(559.9, abs=0.05)


def test_weights_follow_from_the_seed_and_leave_the_global_generator_alone(tokenizer):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    drawn = [shapes.generator({"architecture": "opt", **TINY}, tokenizer, seed, "cpu").lm_head.weight for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_random_is_named_so(monkeypatch: pytest.MonkeyPatch):
    small = {"vocabulary": 31000, "hidden": 16, "layers": 1, "heads": 2, "inner": 32, "positions": 66}
    monkeypatch.setitem(shapes.ENCODERS, "e5-large", small)
    embedder = Embedder({"architecture": "e5-large", "dtype": "float16"}, "cpu", "here")
    assert (embedder.name, embedder.weights) == ("e5-large", "random")
    found = embedder.queries(["a word", "word " * 500])
    assert found.dtype == torch.float32 and found.norm(dim=1) == pytest.approx(torch.ones(2))
    assert torch.allclose(found[0], embedder.queries(["a word"])[0], atol=1e-5)  # padding is left out
    generator = Transformers({"architecture": "opt", **TINY}, 0, "cpu", "here")
    assert (generator.name, generator.weights) == ("opt-1x16", "random")
