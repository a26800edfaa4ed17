"""Embeddings and generations do not depend on the batch, and a model that is not to be had is one clear line."""

import numpy as np
import pytest
import torch

from analysis.cli import BadInput
from rag import cache, models
from rag.corpus import build
from rag.embed import Embedder, normalised
from rag.generate import Transformers
from rag.index import Index
from rag.pipeline import Ask, Pipeline, prompt
from tests.rag.conftest import TEXTS
from tests.rag.fakes import Played

GENERATOR = {"architecture": "opt", "hidden": 32, "layers": 2, "heads": 4, "new_tokens": 8, "prompt_tokens": 64, "dtype": "float32"}
SENTENCES = ["One.", *TEXTS.values(), "word " * 300]


@pytest.fixture(scope="module")
def embedder():
    return Embedder({"model": "minilm"}, "cpu", "test")


@pytest.fixture(scope="module")
def generator():
    return Transformers(GENERATOR, 3, "cpu", "test")


def test_an_embedding_does_not_depend_on_its_batch(embedder):
    together = embedder.means(SENTENCES)
    alone = torch.cat([embedder.means([text]) for text in SENTENCES])
    assert together.shape == (len(SENTENCES), 384) and together.dtype == torch.float32
    assert (together - alone).abs().max() < 1e-5


@pytest.fixture(scope="module")
def captured():
    place = Played()
    made = Embedder({"model": "minilm"}, "cpu", "test")
    made.capture(2, place)
    return made, place


@pytest.mark.parametrize("texts", [1, 2, 3], ids=lambda texts: f"{texts}-texts")
@pytest.mark.parametrize("words", [3, 40, 200], ids=lambda words: f"{words}-words")
def test_a_captured_embedder_gives_the_same(embedder, captured, texts, words):
    made, place = captured
    before = place.replays
    asked = [f"{number} " + "sloop beats upwind " * (words // (3 + number)) for number in range(texts)]
    torch.testing.assert_close(made.means(asked), embedder.means(asked), rtol=1e-5, atol=1e-6)
    assert (place.replays > before) == (texts <= 2 and words <= 100)


def test_the_mean_is_that_of_the_hidden_states(embedder):
    """The oracle: one text without padding, averaged in float64."""
    tokens = embedder.tokenizer(["Castling moves the king."], return_tensors="pt")
    hidden = embedder.model(**tokens).last_hidden_state[0].double().mean(0)
    assert (embedder.means(["Castling moves the king."])[0] - hidden).abs().max() < 1e-6
    assert torch.allclose(normalised(hidden[None]).norm(), torch.tensor(1.0, dtype=torch.float64))


def test_passages_keep_their_order_and_meaning(embedder):
    texts = list(TEXTS.values()) * 7  # more than a batch, of unlike lengths
    means = embedder.passages(texts)
    assert means.dtype == np.float32
    np.testing.assert_allclose(means[: len(TEXTS)], means[-len(TEXTS) :], atol=1e-5)
    np.testing.assert_allclose(means[3], embedder.means([texts[3]])[0], atol=1e-5)
    query = embedder.queries(["How does bread rise?"])
    best = (normalised(torch.from_numpy(means[: len(TEXTS)])) @ query[0]).argmax()
    assert list(TEXTS)[best] == "baking"


def test_embeddings_are_kept_and_keyed(tmp_path, monkeypatch, texts_folder):
    monkeypatch.setenv("BLOCKWISE_SCRATCH", str(tmp_path))
    settings = {"source": "folder", "folder": str(texts_folder)}
    one, other = (build({**settings, "chunk_words": words}, 0, "test") for words in (10, 11))
    folder = models.locate("minilm", "test")
    paths = {cache.path({}, folder, one), cache.path({}, folder, other), cache.path({"passage_prefix": "p"}, folder, one)}
    assert len(paths) == 3
    file = cache.path({}, folder, one)
    computed = cache.kept(file, lambda: np.arange(6, dtype=np.float32).reshape(2, 3))
    assert (cache.kept(file, lambda: pytest.fail("computed again")) == computed).all()


def test_generation_in_a_batch_is_generation_alone(generator):
    prompts = [prompt("What?", [text]) for text in SENTENCES]
    together = generator.generate(prompts)
    assert together == [generator.generate([one])[0] for one in prompts]
    assert len({one.text for one in together}) > 1
    assert all(one.tokens_out == 8 for one in together)
    assert together[-1].tokens_in == 64 > together[0].tokens_in > 0


def test_random_weights_are_labelled_and_seeded(generator):
    assert (generator.weights, generator.name) == ("random", "opt-2x32")
    state = torch.random.get_rng_state()
    again, other = (Transformers(GENERATOR, seed, "cpu", "test") for seed in (3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert generator.generate(["a b c"]) == again.generate(["a b c"])
    weights = [next(model.model.parameters()) for model in (generator, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_a_saved_model_is_pretrained(generator, tmp_path):
    generator.model.save_pretrained(tmp_path)
    generator.tokenizer.save_pretrained(tmp_path)
    settings = {"model": str(tmp_path), "new_tokens": 8, "prompt_tokens": 64, "dtype": "float32"}
    loaded = Transformers(settings, 0, "cpu", "test")
    assert loaded.weights == "pretrained"
    assert loaded.generate(["the king"]) == generator.generate(["the king"])


def test_a_batch_of_asks_is_answered_as_each_alone(embedder, generator, texts_folder):
    texts = build({"source": "folder", "folder": str(texts_folder), "chunk_words": 12}, 0, "test")
    means = torch.from_numpy(embedder.passages([chunk.text for chunk in texts.chunks]))
    pipeline = Pipeline(texts, embedder, Index(normalised(means)), generator)
    asks = [Ask("How does bread rise?", 1), Ask("Where do sailors go?", 3), Ask("Who castles?", 2)]
    together = pipeline.answer(asks)
    for ask, answer in zip(asks, together, strict=True):
        alone = pipeline.answer([ask])[0]
        assert (answer.result, answer.retrieved, answer.tokens_in) == (alone.result, alone.retrieved, alone.tokens_in)
        assert len(answer.retrieved) == ask.k and set(answer.stages) == {"embed_ms", "retrieve_ms", "generate_ms"}
    assert [answer.retrieved[0].split(".")[0] for answer in together] == ["baking", "sailing", "chess"]


def test_the_prompt_is_the_course_s():
    assert prompt("Why?", ["a", "b"]) == "Question: Why?\nContext:\na\nb\nAnswer:"


@pytest.mark.parametrize("name, message", [("no/such-model", "neither a folder nor"), ("not a name!", "neither a folder nor")])
def test_missing_models(name, message):
    with pytest.raises(BadInput, match=message) as error:
        models.locate(name, "config.yaml: rag.x.embedder")
    assert "\n" not in str(error.value) and str(error.value).startswith("config.yaml: rag.x.embedder: ")


def test_folders_that_hold_no_model(tmp_path):
    with pytest.raises(BadInput, match=r"no config\.json"):
        models.locate(str(tmp_path), "test")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(BadInput, match="cannot be loaded") as error:
        Embedder({"model": str(tmp_path)}, "cpu", "test")
    assert "\n" not in str(error.value)


def test_pickled_weights_are_refused(tmp_path, generator):
    generator.model.config.save_pretrained(tmp_path)
    generator.tokenizer.save_pretrained(tmp_path)
    torch.save(generator.model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(BadInput, match="cannot be loaded"):
        Transformers({"model": str(tmp_path), "new_tokens": 1, "prompt_tokens": 64, "dtype": "float32"}, 0, "cpu", "test")


def test_cuda_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert models.torch_device("auto") == models.torch_device("cpu") == "cpu"
    with pytest.raises(BadInput, match="--device cuda"):
        models.torch_device("cuda")


def test_the_packages_named_kernels_do_not_clash():
    """transformers looks for a package `kernels` of its own; ours is on the path and stays ours."""
    import kernels

    assert not hasattr(kernels, "__version__")
    from kernels.knn import knn

    assert callable(knn)
