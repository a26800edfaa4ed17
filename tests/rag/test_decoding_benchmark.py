"""The benchmark of decoding, embedding and retrieval runs at tiny sizes, and its record and tables hold what they say."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from analysis.cli import BadInput
from tests.commands import ROOT, one_line, run_python

sys.path.append(str(ROOT / "docs" / "benchmarks"))

import decoding as benchmark

SCRIPT = Path("docs/benchmarks/decoding.py")


def test_every_part_is_measured_and_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(benchmark, "seconds", lambda call, samples: 0.5 + 0.25 * (call() is not None))
    out = tmp_path / "record.json"
    record = benchmark.measure(benchmark.SMALL, list(benchmark.PARTS), out)
    assert json.loads(out.read_text())["rows"] == record["rows"]
    batches = list(benchmark.SMALL.batches)
    rows = {part: [row for row in record["rows"] if row["part"] == part] for part in benchmark.PARTS}
    timed = [row for row in rows["decoding"] if "requests_s" in row]
    assert [row["batch"] for row in timed] == batches and timed[0]["requests_s"] == batches[0] / 0.75
    assert timed[0]["decode_tokens_s"] == batches[0] * (benchmark.SMALL.new - 1) / 0.25, "the steps alone"
    assert [row["plain_requests_s"] is not None for row in timed] == [batch in benchmark.SMALL.plain for batch in batches]
    assert [row["rows_equal"] for row in rows["decoding"] if row.get("dtype") == "float32" and "compared" in row] == [1.0]
    assert [row["batch"] for row in rows["embedding"] if "queries_s" in row] == batches
    assert [row["batch"] for row in rows["retrieval"] if row.get("retrieval") == "ivf" and "s" in row] == batches
    assert [row["recall_at_10"] > 0.8 for row in rows["retrieval"] if "recall_at_10" in row] == [True]
    assert [row["equal"] for row in rows["alone"] if "equal" in row] == [1.0]
    assert [row["largest_difference"] < 1e-3 for row in rows["alone"] if "largest_difference" in row] == [True]
    table = "\n".join(benchmark.page(record))
    assert "decode_tokens_s" in table and "recall_at_10" in table


def test_a_record_is_printed_and_never_replaced(tmp_path: Path):
    record = {"gpu": {"name": "NVIDIA H100"}, "started": "today", "environment": {"commit": "abc"}, "versions": {"torch": "2"}}
    path = tmp_path / "record.json"
    path.write_text(json.dumps({**record, "rows": [{"part": "decoding", "batch": 1, "s": 0.25, "plain_requests_s": None}]}))
    done = run_python(SCRIPT, "--print", str(path))
    assert done.returncode == 0 and done.stdout.splitlines()[0].startswith("NVIDIA H100, today") and "0.25" in done.stdout
    assert "there is such a file" in one_line(run_python(SCRIPT, "--out", str(path), "--small"))
    assert "no such file" in one_line(run_python(SCRIPT, "--print", str(tmp_path / "none")))


def test_full_sizes_need_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(BadInput, match="no CUDA GPU here; --small"):
        benchmark.measure(benchmark.FULL, ["decoding"], tmp_path / "record.json")
