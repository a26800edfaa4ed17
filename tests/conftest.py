"""What could not be tested is named at the end, with the reason; and a real Slurm for the tests that need one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.testbed import daemons
from tests.needs import FEATURES, require, required


@pytest.fixture(scope="session")
def slurm() -> Iterator[dict[str, str]]:
    """What a process needs in its environment to use the testbed's Slurm: up once for a process of tests, down at its end in any case."""
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


def pytest_configure(config: pytest.Config) -> None:
    unknown = required() - FEATURES.keys()
    if unknown:
        raise pytest.UsageError(f"REQUIRE={','.join(sorted(unknown))}: unknown; features are {', '.join(FEATURES)}")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line for each feature that this machine lacks, with the number of tests that it cost."""
    reasons: dict[str, int] = {}
    for report in terminalreporter.stats.get("skipped", []):
        reason = str(report.longrepr[2]).removeprefix("Skipped: ")
        reasons[reason] = reasons.get(reason, 0) + 1
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"not tested: {count} test{'s' if count > 1 else ''}: {reason}")
