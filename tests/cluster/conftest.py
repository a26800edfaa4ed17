"""A real Slurm for the tests that need one: up once, down at the end whatever happens."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from cluster.testbed import daemons
from tests.needs import require


@pytest.fixture(scope="session")
def slurm():
    """What a process needs in its environment to use the testbed's Slurm."""
    require("slurm")
    with tempfile.TemporaryDirectory(prefix="blockwise-slurm-") as folder:  # munge wants a path that everybody may pass
        Path(folder).chmod(0o755)
        state = Path(folder) / "state"
        daemons.up(state)
        try:
            yield daemons.environment(state)
        finally:
            daemons.down(state)
            assert not state.exists()
