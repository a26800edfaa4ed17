"""The benchmark of what is around the models runs, at lengths that say nothing, and its record holds what it prints."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from rag.ceiling import answering
from tests.commands import ROOT

sys.path.append(str(ROOT / "docs" / "benchmarks"))

import serving as benchmark


def test_ceiling_and_overhead_are_kept_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """The service is another server that does nothing: its own start is tests/rag/test_service.py's affair."""
    for name, value in {"SECONDS": 0.3, "REPEATS": 1, "CEILINGS": 1, "enough": lambda: 1, "service": answering}.items():
        monkeypatch.setattr(benchmark, name, value)
    path = tmp_path / "serving.json"
    benchmark.record("ceiling", path)
    kept = benchmark.record("overhead", path)
    assert json.loads(path.read_text()) == kept and set(kept) == {"ceiling", "overhead"}
    assert kept["ceiling"]["rps_by_processes"]["1"] > 50
    rows = kept["overhead"]["rows"]
    assert {(row["what"], row["rate"]) for row in rows} == {(what, rate) for what in ("floor", "service") for rate in benchmark.RATES}
    assert all(0 < row["p50_ms"] <= row["p99_ms"] < float("inf") for row in rows)
    assert all(
        row["requests"] == len(benchmark.schedule({"arrivals": "poisson", "seconds": 0.3}, row["rate"], [row["rate"], 0])) for row in rows
    )
    within = all(row["p50_ms"] <= 3 and row["p99_ms"] <= 10 for row in rows if row["what"] == "service")
    assert kept["overhead"]["held"] == within
    assert ("NOT held" in capsys.readouterr().out) != within
