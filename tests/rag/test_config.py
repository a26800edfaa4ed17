"""What a config may say, what it means when it says nothing, and one clear line for every mistake."""

import jsonschema
import pytest
import yaml

from analysis.cli import BadInput
from rag import config


def test_schema_is_valid_and_every_key_is_described():
    schema = yaml.safe_load(config.SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)

    def keys(part, path):
        for name, child in part.get("properties", {}).items():
            if isinstance(child, dict):
                yield f"{path}.{name}", child
                yield from keys(child, f"{path}.{name}")
        if isinstance(part.get("additionalProperties"), dict):
            yield from keys(part["additionalProperties"], f"{path}.*")

    found = dict(keys(schema["$defs"]["experiment"], ""))
    assert ".arms.*.max_batch" in found and len(found) > 20
    assert [path for path, child in found.items() if "description" not in child] == []


def test_defaults_are_filled_in(write_config):
    minimal = {"arms": {"a": {"service": "batched"}, "b": {"service": "course"}}, "load": {"rates": [1]}}
    experiment = config.read(write_config(minimal), "tiny")
    assert experiment.seed == 5
    assert experiment.settings["corpus"] == {"source": "stdlib", "chunk_words": 80}
    assert experiment.settings["embedder"] == {"model": "minilm", "dtype": "float32"}
    assert experiment.settings["generator"]["hidden"] == 128 and experiment.settings["generator"]["dtype"] == "float32"
    assert experiment.settings["load"] == {"arrivals": "poisson", "rates": [1], "stream": False, "seconds": 8, "deadline_s": 5}
    assert experiment.settings["loads"] == {"poisson": experiment.settings["load"]}
    assert experiment.arm("a") == {"service": "batched", **config.BATCHED}
    assert experiment.arm("b") == {"service": "course", **config.COURSE}


def test_a_pretrained_generator_has_no_sizes(write_config, block):
    block["generator"] = {"model": "some/model", "new_tokens": 5}
    assert config.read(write_config(block), "tiny").settings["generator"] == {
        "model": "some/model",
        "new_tokens": 5,
        "prompt_tokens": 1024,
        "dtype": "float32",
    }


BAD = {
    "unknown key": (lambda b: b.update(arm={}), r"rag\.tiny: unknown key 'arm'; one of corpus, "),
    "unknown key inside": (
        lambda b: b["load"].update(rate=[1]),
        r"rag\.tiny\.load: unknown key 'rate'; one of arrivals, burstiness, trace, rates",
    ),
    "unknown service": (lambda b: b["arms"].update(x={"service": "vllm"}), r"arms\.x\.service: 'vllm' is not one of"),
    "a batch for the course": (lambda b: b["arms"]["course"].update(max_batch=2), r"arms\.course: 'max_batch' is not one of \['service', "),
    "no arms": (lambda b: b.update(arms={}), r"rag\.tiny\.arms: "),
    "rate of zero": (lambda b: b["load"].update(rates=[1, 0]), r"load\.rates\[1\]: 0 is less than or equal to"),
    "two generators": (lambda b: b["generator"].update(model="m"), r"generator: exactly one of architecture, model is needed"),
    "hidden size": (lambda b: b["generator"].update(hidden=15), r"generator\.hidden: 15 is not a multiple of heads"),
    "folder without source": (lambda b: b["corpus"].update(source="stdlib"), r"corpus: 'folder' is not one of \['source', "),
    "a folder of packages": (lambda b: b["corpus"].update(source="packages"), r"corpus: 'folder' is not one of \['source', "),
    "lists of an exact search": (lambda b: b["arms"]["batched"].update(lists=9, retrieval="knn"), r"arms\.batched\.retrieval: 'ivf' was"),
    "nprobe by itself": (lambda b: b["arms"]["batched"].update(nprobe=9), r"arms\.batched: 'retrieval' is a required property"),
    "negative chunks": (lambda b: b["arms"]["course"].update(chunks=-1), r"arms\.course\.chunks: -1 is less than the minimum"),
    "empty embedder": (lambda b: b.update(embedder=""), r"rag\.tiny\.embedder: "),
    "k of zero": (lambda b: b.update(k=0), r"rag\.tiny\.k: 0 is less than the minimum"),
}


@pytest.mark.parametrize("change, message", BAD.values(), ids=BAD)
def test_mistakes_are_named(write_config, block, change, message):
    change(block)
    with pytest.raises(BadInput, match=message) as error:
        config.read(write_config(block), "tiny")
    assert "\n" not in str(error.value) and "config.yaml" in str(error.value)


def test_mistakes_around_the_block(tmp_path, write_config, block):
    with pytest.raises(BadInput, match="rag has no experiment 'other'; one of tiny"):
        config.read(write_config(block), "other")
    with pytest.raises(BadInput, match="no arm 'z'; one of course, batched"):
        config.read(write_config(block), "tiny").arm("z")
    with pytest.raises(BadInput, match="seed: -1"):
        config.read(write_config(block, seed=-1), "tiny")
    for name, text in {"a.yaml": "rag: [", "b.yaml": "name: x", "c.yaml": "- 1"}.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(BadInput, match=name):
            config.read(tmp_path / name, "tiny")
    with pytest.raises(BadInput, match=r"none\.yaml"):
        config.read(tmp_path / "none.yaml", "tiny")
