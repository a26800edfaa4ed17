"""A service put together for an arm: what it searches, how, and in which part of the corpus."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.cli import BadInput
from rag import components, config, index
from rag.pipeline import Ask, Pipeline
from rag.questions import questions
from tests.rag.conftest import config_of

ARMS: dict[str, dict[str, Any]] = {
    "exact": {"service": "batched"},
    "inverted": {"service": "batched", "retrieval": "ivf", "lists": 3, "nprobe": 1},
    "part": {"service": "batched", "chunks": 4},
    "inverted_part": {"service": "batched", "retrieval": "ivf", "chunks": 4},
    "course_part": {"service": "course", "chunks": 4},
    "too_much": {"service": "batched", "chunks": 4000},
}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory, texts_folder: Path, scratch: Path):
    with config_of(tmp_path_factory.mktemp("config"), texts_folder, scratch, arms=ARMS, questions=2) as path:
        yield config.read(path, "tiny")


def loaded(experiment: config.Experiment, arm: str) -> components.Components:
    return components.load(experiment, experiment.arm(arm), "cpu")


def test_an_arm_searches_as_its_settings_say(experiment: config.Experiment):
    found = loaded(experiment, "exact").pipeline.index, loaded(experiment, "inverted").pipeline.index
    assert isinstance(found[0], index.Index) and isinstance(found[1], index.Inverted)
    assert (found[1].built.lists, found[1].nprobe) == (3, 1)


def test_a_query_is_answered_from_fewer_chunks_where_the_probed_lists_have_fewer(experiment: config.Experiment):
    parts = loaded(experiment, "inverted")
    everything = len(parts.corpus.chunks)
    exact, answer = (
        loaded(experiment, "exact").pipeline.answer([ask := Ask("How does bread rise?", everything)])[0],
        parts.pipeline.answer([ask])[0],
    )
    assert 0 < len(answer.retrieved) < everything == len(exact.retrieved)
    kept = [chunk for chunk in exact.retrieved if chunk in answer.retrieved]
    assert list(answer.retrieved) == kept, "the best first, as in the exact search"


@pytest.mark.parametrize("arm", ["part", "inverted_part", "course_part"])
def test_a_part_of_the_corpus_has_the_questions_sources(experiment: config.Experiment, arm: str):
    whole, part = loaded(experiment, "exact"), loaded(experiment, arm)
    assert part.facts["chunks"] == len(part.means) == 4 < whole.facts["chunks"]
    assert part.facts["corpus"] != whole.facts["corpus"]
    rows = [whole.corpus.chunks.index(chunk) for chunk in part.corpus.chunks]
    assert np.array_equal(part.means, whole.means[rows])
    for question in questions(whole.corpus, 2, experiment.seed, "here"):
        assert part.pipeline.answer([Ask(question.text, 1)])[0].retrieved[0].split("#")[0] == question.source


@settings(max_examples=25, deadline=None)
@given(ks=st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_what_is_searched_for_is_a_power_of_two_and_each_gets_its_own_best(exact: Pipeline, ks: list[int]):
    pipeline = exact
    asked: list[int] = []

    class Noting:
        def search(self, queries: Any, k: int) -> list[list[int]]:
            asked.append(k)
            return pipeline.index.search(queries, k)

    found = dataclasses.replace(pipeline, index=Noting()).find([Ask("How does bread rise?", k) for k in ks])
    assert asked[0].bit_count() == 1 and max(ks) <= asked[0] < 2 * max(ks)
    everything = pipeline.find([Ask("How does bread rise?", len(pipeline.corpus.chunks))])[0].chunks
    assert [one.chunks for one in found] == [everything[:k] for k in ks]


@pytest.fixture(scope="module")
def exact(experiment: config.Experiment) -> Pipeline:
    return loaded(experiment, "exact").pipeline


def test_a_part_that_is_more_than_all_is_one_line(experiment: config.Experiment):
    with pytest.raises(BadInput, match=r"rag\.tiny\.arms: chunks: 4000, but the corpus has \d+; give at most so many, or 0 for all"):
        loaded(experiment, "too_much")
