"""A corpus and sizes small enough for tests, and no network."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

TEXTS = {
    "astronomy": "The telescope gathers starlight from distant galaxies, and astronomers measure their redshift to know how far they are.",
    "baking": "Knead flour, water, yeast and salt into dough; let it ferment overnight, then bake the loaf in a steaming oven.",
    "sailing": "A sloop carries one mast; trimming its mainsail against the breeze lets sailors beat upwind towards the harbour.",
    "chess": "Castling moves the king behind pawns while the rook enters the centre, usually before the middlegame begins.",
    "gardening": "Prune roses after winter, mulch beds with compost, and water seedlings early before sunshine evaporates everything.",
    "banking": "A mortgage spreads the price of a house across decades, with interest compounding on whatever principal remains.",
}
BLOCK = {
    "corpus": {"source": "folder", "chunk_words": 12},
    "questions": 6,
    "generator": {"architecture": "opt", "hidden": 16, "layers": 1, "heads": 2, "new_tokens": 3},
    "k": 2,
    "arms": {"course": {"service": "course"}, "batched": {"service": "batched", "max_batch": 4, "queue": 8}},
    "load": {"arrivals": "poisson", "rates": [20], "seconds": 1, "deadline_s": 5},
}


@pytest.fixture(scope="session")
def texts_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for name, text in TEXTS.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


@pytest.fixture(scope="session")
def scratch(tmp_path_factory) -> Path:
    """The cache of embeddings, shared by the tests that start services."""
    return tmp_path_factory.mktemp("scratch")


@contextlib.contextmanager
def config_of(folder: Path, texts_folder: Path, scratch: Path, **changes: Any) -> Iterator[Path]:
    """A config on disk, with some keys of BLOCK changed and a deadline that no test reaches; the cache is in the environment."""
    block = copy.deepcopy(BLOCK) | changes
    block["corpus"]["folder"] = str(texts_folder)
    block["load"]["deadline_s"] = 60
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({"rag": {"tiny": block}}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BLOCKWISE_SCRATCH", str(scratch))
        yield path


@pytest.fixture
def block(texts_folder, scratch, monkeypatch) -> dict:
    """A small experiment to change at will; nothing that it starts writes outside the test's folders."""
    monkeypatch.setenv("BLOCKWISE_SCRATCH", str(scratch))
    block = copy.deepcopy(BLOCK)
    block["corpus"]["folder"] = str(texts_folder)
    return block


@pytest.fixture
def write_config(tmp_path):
    """Writes a config with the given experiment, called `tiny`, and returns its path."""

    def write(block: dict, **others: object) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump({"seed": 5, "rag": {"tiny": block}, **others}, sort_keys=False))
        return path

    return write
