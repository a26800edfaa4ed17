"""One tiny run for all tests of the DAG."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workflow.project import TINY, Project


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the project in which the run `tiny` of an operator from outside the tree was made."""
    made = Project.copy(tmp_path_factory.mktemp("project"))
    config = made.config(TINY)
    done = made.snakemake("--configfile", config, "--quiet", "rules")
    assert done.returncode == 0, done.stdout
    return made


@pytest.fixture(scope="session")
def run(project: Project) -> Path:
    return project.root / "results" / "tiny"
