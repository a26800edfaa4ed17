"""Retrieval against NumPy in float64: exact where it says so, and on embeddings of real text nearly so in an inverted file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import ivf
from rag import cache, corpus, index
from rag.embed import Embedder, normalised
from rag.questions import questions

RECALL = 0.75
"""What the default lists and probes find of the 10 nearest to questions at least; 0.81 to 0.91 is usual for so few chunks."""


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKWISE_SCRATCH", str(tmp_path))


def drawn(number: int, dimension: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return normalised(torch.from_numpy(rng.standard_normal((number, dimension), dtype=np.float32)))


def nearest(queries: torch.Tensor, vectors: torch.Tensor) -> list[list[int]]:
    products = queries.double() @ vectors.double().T
    return np.argsort(-products.numpy(), axis=1).tolist()


@pytest.mark.parametrize(
    "arm",
    [{"retrieval": "knn"}, {}, {"retrieval": "numpy"}, {"retrieval": "ivf", "lists": 7, "nprobe": 7}, {"retrieval": "ivf", "nprobe": 900}],
    ids=["knn", "default", "numpy", "ivf all lists", "ivf more than all"],
)
def test_exact_retrieval_matches_numpy(arm):
    vectors, queries = drawn(60, 24), drawn(7, 24, seed=1)
    expected = nearest(queries, vectors)
    searched = index.of(arm, vectors)
    for k in (1, 5, 60):
        assert searched.search(queries, k) == [rows[:k] for rows in expected]
    assert searched.search(queries, 80) == expected


@settings(max_examples=30, deadline=None)
@given(
    number=st.integers(1, 80), lists=st.one_of(st.none(), st.integers(1, 100)), nprobe=st.one_of(st.none(), st.integers(1, 100)),
    k=st.integers(1, 100),
)  # fmt: skip
def test_an_inverted_file_finds_different_rows_best_first(number, lists, nprobe, k):
    """Also where k is above what the probed lists hold, and where lists and nprobe are above what there is."""
    vectors, queries = drawn(number, 8), drawn(3, 8, seed=1)
    built = ivf.build(vectors, min(lists or index.usual(number), number), metric="cosine")
    searched = index.Inverted(built, nprobe)
    for query, rows in zip(queries, searched.search(queries, k), strict=True):
        assert len(set(rows)) == len(rows) <= min(k, number) and all(0 <= row < number for row in rows)
        products = vectors[rows].double() @ query.double()
        assert (products.diff() <= 1e-6).all()
        assert len(rows) == min(k, number) or searched.nprobe < built.lists


def test_recall_on_real_embeddings(scratch, monkeypatch):
    monkeypatch.setenv("BLOCKWISE_SCRATCH", str(scratch))
    texts = corpus.build({"source": "stdlib", "chunk_words": 80, "limit": 400}, 0, "here")
    embedder = Embedder({"model": "minilm"}, "cpu", "here")
    chunks = [chunk.text for chunk in texts.chunks]
    vectors = normalised(
        torch.from_numpy(cache.kept(cache.path({"model": "minilm"}, embedder.folder, texts), lambda: embedder.passages(chunks)))
    )
    queries = embedder.queries([question.text for question in questions(texts, 100, 0, "here")])
    exact, found = (index.of({"retrieval": retrieval}, vectors) for retrieval in ("knn", "ivf"))
    assert isinstance(found, index.Inverted) and found.nprobe < found.built.lists // 4, "a part of the lists is probed"
    recall = ivf.recall(np.array(found.search(queries, 10)), np.array(exact.search(queries, 10)))

    assert RECALL <= recall < 1


def test_an_inverted_file_is_built_once_and_for_these_vectors(monkeypatch):
    vectors, queries = drawn(60, 24), drawn(7, 24, seed=1)
    first = index.of({"retrieval": "ivf", "lists": 7, "nprobe": 2}, vectors).search(queries, 5)
    built = list(map(ivf.build, [vectors], [7]))
    calls = []
    monkeypatch.setattr(ivf, "build", lambda *arguments, **options: calls.append(arguments) or built[0])
    assert index.of({"retrieval": "ivf", "lists": 7, "nprobe": 2}, vectors).search(queries, 5) == first
    assert not calls
    index.of({"retrieval": "ivf", "lists": 8}, vectors)
    index.of({"retrieval": "ivf", "lists": 7}, drawn(60, 24, seed=2))
    assert len(calls) == 2


def test_the_usual_number_of_lists():
    assert [index.usual(number) for number in (1, 15, 100, 1024, 100_000)] == [1, 1, 12, 128, 1265]


def test_an_index_needs_vectors_and_something_to_find():
    with pytest.raises(ValueError, match="shape"):
        index.Index(drawn(3, 4)[:0])
    with pytest.raises(ValueError, match="at least 1"):
        index.Index(drawn(3, 4)).search(drawn(1, 4), 0)
