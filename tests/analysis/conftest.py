from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.analysis import synthetic


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The made-up run, for tests that only read it."""
    return synthetic.write(tmp_path_factory.mktemp("runs") / "made-up")


@pytest.fixture
def own(written: Path, tmp_path: Path) -> Path:
    """A copy of it, for tests that change it."""
    return shutil.copytree(written, tmp_path / "made-up")
