"""Embeddings are those of sentence-transformers, whatever the pooling that a model's files ask for; prefixes are the model's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertModel, Qwen2Config, Qwen2Model, XLMRobertaConfig, XLMRobertaModel

from analysis.cli import BadInput
from rag import embed, models, pooling
from rag.embed import Embedder

TEXTS = ["One.", "Castling moves the king behind pawns.", "word " * 90, "a b c"]
SMALL: dict[str, Any] = {"vocab_size": 30522, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
ENCODERS = {
    "bert": lambda: BertModel(BertConfig(**SMALL, intermediate_size=64, max_position_embeddings=64)),
    "roberta": lambda: XLMRobertaModel(XLMRobertaConfig(**SMALL, intermediate_size=64, max_position_embeddings=66, pad_token_id=0)),
    "qwen": lambda: Qwen2Model(Qwen2Config(**SMALL, num_key_value_heads=2, intermediate_size=64, max_position_embeddings=64)),
}
FLAGS = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "lasttoken": "pooling_mode_lasttoken"}


def encoder(folder: Path, kind: str, config: dict[str, Any], after: tuple[str, ...] = ("Normalize",), longest: int = 40) -> Path:
    """A small encoder with random weights and MiniLM's tokenizer, as sentence-transformers keeps it."""
    minilm = models.locate("minilm", "here")
    folder.mkdir(exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(minilm / name, folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ENCODERS[kind]().save_pretrained(folder)
    paths = {"Transformer": "", "Pooling": "1_Pooling"} | {name: f"{at}_{name}" for at, name in enumerate(after, 2)}
    modules = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{name}"}
        for at, (name, path) in enumerate(paths.items())
    ]
    files = {"modules.json": modules, "1_Pooling/config.json": config, "sentence_bert_config.json": {"max_seq_length": longest}}
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("old", [False, True], ids=["named", "flags"])
@pytest.mark.parametrize("mode", pooling.MODES)
@pytest.mark.parametrize("kind", ENCODERS)
def test_embeddings_are_those_of_sentence_transformers(tmp_path: Path, kind: str, mode: str, old: bool):
    library = pytest.importorskip("sentence_transformers")
    config = {"word_embedding_dimension": 32} | ({FLAGS[mode]: True} if old else {"pooling_mode": mode})
    folder = encoder(tmp_path, kind, config)
    expected = library.SentenceTransformer(str(folder), device="cpu").encode(TEXTS, convert_to_numpy=True)
    found = Embedder({"model": str(folder)}, "cpu", "here").queries(TEXTS).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.fixture(scope="module", params=pooling.MODES)
def embedder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    folder = encoder(tmp_path_factory.mktemp("encoder"), "bert", {"pooling_mode": request.param})
    return Embedder({"model": str(folder)}, "cpu", "here")


@settings(max_examples=15, deadline=None)
@given(texts=st.lists(st.text(min_size=1, max_size=300), min_size=1, max_size=25), budget=st.integers(1, 600))
def test_an_embedding_does_not_depend_on_what_shares_its_batch(embedder: Embedder, texts: list[str], budget: int):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(embed.TOKENS, "cpu", budget)
        patch.setattr(embed, "TOKENIZED", 7)
        together = embedder.means(texts)
    alone = torch.cat([embedder.means([text]) for text in texts])
    assert (together - alone).abs().max() < 1e-3


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(0, 500), max_size=60), budget=st.integers(1, 2000))
def test_batches_have_every_text_once_and_keep_to_the_budget(lengths: list[int], budget: int):
    batches = list(embed._batches(np.array(lengths, dtype=np.int64), budget))
    assert sorted(at for batch in batches for at in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * max(lengths[at] for at in batch) <= budget for batch in batches)


def test_a_folder_without_such_files_is_pooled_by_the_mean(tmp_path: Path):
    assert pooling.of(tmp_path, "here") == pooling.Pooling("mean", None)
    assert pooling.of(models.locate("minilm", "here"), "here") == pooling.Pooling("mean", 256)


def test_another_pooling_is_another_model(tmp_path: Path):
    """Or embeddings by the one would be taken for those by the other."""
    digests = {models.weights_digest(encoder(tmp_path, "bert", {"pooling_mode": mode}, longest=longest)) for mode, longest in
               [("mean", 40), ("cls", 40), ("cls", 50)]}  # fmt: skip
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("config", "after", "message"),
    [
        ({"pooling_mode": "max"}, (), "pooling by max; take a model that pools by one of mean, cls, lasttoken"),
        ({"pooling_mode": ["mean", "cls"]}, (), "pooling by mean and cls"),
        ({"pooling_mode_max_tokens": True}, (), "pooling by max_tokens"),
        ({"pooling_mode": "mean", "include_prompt": False}, (), "include_prompt is false"),
        ({"pooling_mode": "mean"}, ("Dense", "Normalize"), "needs Dense after its encoder"),
    ],
    ids=["max", "two", "old max", "prompt", "dense"],
)
def test_other_pooling_is_refused_in_one_line(tmp_path: Path, config: dict[str, Any], after: tuple[str, ...], message: str):
    folder = encoder(tmp_path, "bert", config, after)
    with pytest.raises(BadInput, match=message) as error:
        Embedder({"model": str(folder)}, "cpu", "config.yaml: rag.x.embedder")
    assert "\n" not in str(error.value) and str(error.value).startswith("config.yaml: rag.x.embedder: ")


E5 = ("query: ", "passage: ")


@pytest.mark.parametrize(
    ("given", "own", "expected"),
    [
        ({}, None, ("", "")),
        ({}, {"query": "query: ", "passage": "passage: "}, E5),
        ({}, {"query": "Q ", "document": "D "}, ("Q ", "D ")),
        ({"query_prefix": "Q "}, {"query": "query: ", "passage": "passage: "}, ("Q ", "passage: ")),
        ({"model": "intfloat/multilingual-e5-large"}, None, E5),
        ({"model": "intfloat/e5-base-v2@main"}, {}, E5),
        ({"model": "intfloat/multilingual-e5-large-instruct"}, None, (models.E5_PROMPT, "")),
        ({"model": "intfloat/e5-large", "passage_prefix": ""}, None, ("query: ", "")),
        ({"model": "intfloat/e5-large"}, {"query": "own: "}, ("own: ", "")),
        ({"model": "somebody/e5-large"}, None, ("", "")),
    ],
)
def test_prefixes_are_the_config_s_else_the_model_s_else_e5_s(tmp_path: Path, given: dict, own: dict | None, expected: tuple[str, str]):
    if own is not None:
        (tmp_path / "config_sentence_transformers.json").write_text(json.dumps({"prompts": own}))
    assert models.prefixes(given, tmp_path) == expected


def test_prefixes_go_before_texts(tmp_path: Path):
    folder = encoder(tmp_path, "bert", {"pooling_mode": "mean"})
    plain = Embedder({"model": str(folder)}, "cpu", "here")
    prefixed = Embedder({"model": str(folder), "query_prefix": "ask: ", "passage_prefix": "tell: "}, "cpu", "here")
    assert torch.equal(prefixed.queries(["a king"]), plain.queries(["ask: a king"]))
    assert np.array_equal(prefixed.passages(["a king"]), plain.passages(["tell: a king"]))
