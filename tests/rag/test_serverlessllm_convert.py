"""Models in the form that ServerlessLLM loads: the same weights and tokens as before, whole or not there."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from analysis.cli import BadInput
from rag import models, shapes
from rag.serverlessllm import convert, environment
from rag.serverlessllm.deployment import Deployment
from tests.commands import one_line, run_module
from tests.needs import require
from tests.rag import fake_serverlessllm as fake

SIZES = {"architecture": "opt", "hidden": 32, "layers": 2, "heads": 4, "prompt_tokens": 64, "new_tokens": 8}


def random_weights(seed=3):
    return {"settings": SIZES, "seed": seed, "tokenizer": str(models.locate("minilm", "test")), "dtype": "float32"}


@pytest.fixture
def source(tmp_path):
    """A small model with its tokenizer, in a folder as it comes from a hub, and the model itself."""
    tokenizer = AutoTokenizer.from_pretrained(models.locate("minilm", "test"))
    model = shapes.generator(SIZES, tokenizer, 7, "cpu").eval()
    model.save_pretrained(tmp_path / "source")
    tokenizer.save_pretrained(tmp_path / "source")
    return tmp_path / "source", model, tokenizer


def test_a_converted_folder_gives_the_same_logits(source, tmp_path):
    require("serverlessllm")
    folder, model, tokenizer = source
    done = run_module(
        "rag.serverlessllm.convert", "--stand-in", "--dtype=float32", "--model", folder, "--name=its", "--store", tmp_path / "store"
    )
    assert done.returncode == 0, done.stderr
    made = tmp_path / "store" / "transformers" / "its"
    Deployment("its").check(tmp_path / "store", stand_in=True)
    tokens = tokenizer("Knead the dough.", return_tensors="pt")["input_ids"]
    again = AutoTokenizer.from_pretrained(made / "tokenizer")("Knead the dough.", return_tensors="pt")["input_ids"]
    assert torch.equal(tokens, again)
    with torch.inference_mode():
        assert torch.equal(AutoModelForCausalLM.from_pretrained(made).eval()(tokens).logits, model(tokens).logits)
    assert json.loads((made / "blockwise.json").read_text())["weights"] == "pretrained"


def test_random_weights_follow_the_seed_and_never_stop_early(tmp_path):
    require("serverlessllm")
    made = [
        convert.convert(environment.default(), tmp_path, name, random_weights(seed), True) for name, seed in (("a", 3), ("b", 3), ("c", 4))
    ]
    a, b, c = (load_file(folder / "model.safetensors") for folder in made)
    assert all(torch.equal(a[name], b[name]) for name in a) and not all(torch.equal(a[name], c[name]) for name in a)
    assert "eos_token_id" not in json.loads((made[0] / "generation_config.json").read_text())
    tokenizer = Tokenizer.from_file(str(made[0] / "tokenizer" / "tokenizer.json"))
    tokenizer.no_padding()
    assert len(tokenizer.encode("some words").ids) == 2  # no [SEP], after which nothing comes


def test_what_cannot_be_converted_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    home = fake.environment(tmp_path / "env")
    monkeypatch.setenv("FAKE", "python ends")
    with pytest.raises(BadInput, match=r"opt: it could not be converted \(python: a reason\)") as caught:
        convert.convert(home, tmp_path / "store", "tiny", random_weights(), True)
    assert "\n" not in str(caught.value) and not list((tmp_path / "store").rglob("*tiny*"))


def test_bad_input_is_one_line(tmp_path):
    home = fake.environment(tmp_path / "env")
    (tmp_path / "store" / "transformers" / "its").mkdir(parents=True)
    common = ("rag.serverlessllm.convert", "--store", tmp_path / "store", "--environment", home, "--name=its")
    assert "its exists; remove it, or take another name" in one_line(run_module(*common, "--architecture=opt"))
    (tmp_path / "empty").mkdir()
    assert "no config.json in the folder" in one_line(run_module(*common, "--model", tmp_path / "empty"))
    assert "is not built" in one_line(run_module(*common[:3], "--name=new", "--architecture=opt", "--environment", tmp_path / "nowhere"))


def test_space_is_compared_first(source, tmp_path, monkeypatch):
    folder, _, _ = source
    monkeypatch.setattr(convert, "_ROOM", 1e12)
    with pytest.raises(BadInput, match=r"[\d.]+ GB are free and [\d.]+ GB are needed; name one on a bigger file system"):
        convert.convert(fake.environment(tmp_path / "env"), tmp_path / "store", "its", {"model": str(folder)}, True)
