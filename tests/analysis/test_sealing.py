"""A sealed run: what its manifest holds, and that whatever differs is named."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from analysis import sealing
from analysis.cli import BadInput, run
from analysis.records import write_parquet
from tests.analysis import synthetic


@pytest.fixture
def sealed(own: Path) -> Path:
    for name in ("figures/a.pdf", "sweep/journal/knn.cpu/1.jsonl", "compile/knn.sm_80.cache/key"):
        (own / name).parent.mkdir(parents=True, exist_ok=True)
        (own / name).write_text("made again")
    sealing.seal(own)
    return own


def test_the_manifest_lists_raw_files_and_no_others(sealed: Path):
    manifest = json.loads((sealed / "manifest.json").read_text())
    assert set(manifest["files"]) == {
        *("config.yaml", "tune/knn.cpu.json", "validate/knn.torch.cpu.parquet", "rag/batching.parquet", "sweep/knn.cpu.parquet"),
        *("bench/distance_speedup.cpu.parquet", "bench/knn_scaling.cpu.parquet"),
        *("compile/knn.sm_80.parquet", "compile/knn.sm_90.parquet"),
    }
    assert manifest["commits"] == [synthetic.COMMIT]
    assert manifest["dirty"] is False
    assert manifest["devices"] == [synthetic.CPU]
    assert manifest["versions"]["numpy"] == ["2.4.6"]
    assert sealing.verify(sealed) == manifest


def test_one_flipped_byte_is_named(sealed: Path):
    path = sealed / "sweep/knn.cpu.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"sweep/knn.cpu.parquet has changed") as error:
        sealing.verify(sealed)
    assert "bench" not in str(error.value)


def test_a_missing_and_an_extra_file_are_named(sealed: Path):
    (sealed / "rag/batching.parquet").rename(sealed / "rag/other.parquet")
    with pytest.raises(BadInput, match=r"rag/batching.parquet is missing; rag/other.parquet is extra"):
        sealing.verify(sealed)


def test_figures_journals_and_caches_may_change(sealed: Path):
    for name in ("figures/a.pdf", "sweep/journal/knn.cpu/1.jsonl", "compile/knn.sm_80.cache/key"):
        (sealed / name).unlink()
    (sealed / "numbers.tex").write_text("new")
    sealing.verify(sealed)


def test_a_sealed_run_is_not_sealed_again(sealed: Path):
    before = (sealed / "manifest.json").read_bytes()
    with pytest.raises(BadInput, match="sealed already, on 20"):
        sealing.seal(sealed)
    assert (sealed / "manifest.json").read_bytes() == before


def test_a_run_without_records_or_config_is_not_sealed(tmp_path: Path):
    with pytest.raises(BadInput, match=r"no config.yaml"):
        sealing.seal(tmp_path)
    (tmp_path / "config.yaml").write_text("name: empty\n")
    with pytest.raises(BadInput, match="no records"):
        sealing.seal(tmp_path)
    assert not (tmp_path / "manifest.json").exists()


def test_records_of_changed_code_and_of_several_commits_are_sealed_with_a_warning(own: Path, capsys: pytest.CaptureFixture[str]):
    rows = [row | {"provenance": synthetic.provenance(commit="f" * 40, dirty=True)} for row in synthetic.scalings()]
    write_parquet(own / "bench/knn_scaling.cpu.parquet", rows)
    sealing.seal(own)
    warnings = capsys.readouterr().err
    assert "2 commits" in warnings
    assert "uncommitted changes" in warnings


@pytest.mark.parametrize("content", ["{", "[]", '{"schema": 99, "files": {}}'], ids=["torn", "no mapping", "other schema"])
def test_a_damaged_manifest_is_one_line(sealed: Path, content: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    (sealed / "manifest.json").write_text(content)
    monkeypatch.setattr(sys, "argv", ["sealing", "verify", str(sealed)])
    with pytest.raises(SystemExit) as stopped:
        run(sealing.main)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_run_that_is_not_sealed_is_not_verified(own: Path):
    with pytest.raises(BadInput, match="not sealed"):
        sealing.verify(own)
