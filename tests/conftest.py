"""What could not be tested is named at the end, with the reason."""

from __future__ import annotations

from typing import Any

import pytest

from tests.needs import FEATURES, required


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
