"""The report: typeset from what a run has, and one line where it cannot be."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from analysis import catalog, numbers, report, style, tables, typeset
from analysis.cli import run
from analysis.figures import blocks, scaling
from analysis.tables import bench, sweep, validate
from tests.analysis import synthetic
from tests.needs import require


@pytest.fixture(scope="module")
def drawn(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with some of its figures and tables, and its numbers."""
    own = shutil.copytree(written, tmp_path_factory.mktemp("drawn") / "made-up")
    style.save(blocks.draw(own / "sweep/knn.cpu.parquet"), own / "figures/sweep_knn.cpu")
    style.save(scaling.draw(own / "bench/knn_scaling.cpu.parquet"), own / "figures/bench_knn_scaling.cpu")
    tables.write(sweep.table([own / "sweep/knn.cpu.parquet"]), own / "tables/sweep_knn.cpu")
    tables.write(bench.table([own / "bench/distance_speedup.cpu.parquet"]), own / "tables/bench_distance_speedup.cpu")
    tables.write(validate.table([own / "validate/knn.torch.cpu.parquet"]), own / "tables/validate")
    numbers.write(numbers.collect(own).values(), own / "numbers.tex")
    return own


@pytest.fixture
def made(drawn: Path, tmp_path: Path) -> Path:
    return shutil.copytree(drawn, tmp_path / "made-up")


def command(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["report", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        run(report.main)
    return int(stopped.value.code or 0)


def test_a_report_is_typeset_with_the_same_bytes_twice(made: Path, monkeypatch: pytest.MonkeyPatch):
    require("tex")
    for name in ("one", "two"):
        assert command(monkeypatch, "--run", made, "--out", made / f"{name}.pdf") == 0
    assert (made / "one.pdf").read_bytes() == (made / "two.pdf").read_bytes()
    assert (made / "one.pdf").read_bytes().startswith(b"%PDF")


def test_its_content_is_what_the_run_has(made: Path, tmp_path: Path):
    folder = tmp_path / "tex"
    folder.mkdir()
    figures, made_tables = sorted(made.glob("figures/*.pdf")), sorted(made.glob("tables/*.tex"))
    report.prepare(folder, made, figures, made_tables, made / "numbers.tex")
    content = (folder / "content.tex").read_text()
    assert len(re.findall(r"\\includegraphics", content)) == 2
    assert "Which block configuration is fastest" in content
    assert "Planned and not in this run: the figure \\emph{Latency of batching}" in content
    assert "\\textbackslash{}KnnCpuTorchBestMs & 2.00 & ms" in content
    assert "ids differ in row 0" in content
    for name in re.findall(r"\{((?:figures|tables)/[^}]+)\}", content):
        assert (folder / name).is_file()


def test_a_long_table_and_awkward_names_are_typeset(own: Path, monkeypatch: pytest.MonkeyPatch):
    require("tex")
    config = yaml.safe_load(synthetic.CONFIG)
    config["sweep"] = {"knn_50%_&": config["sweep"]["knn"]}
    (own / "config.yaml").write_text(yaml.safe_dump(config))
    (own / "sweep/knn.cpu.parquet").rename(own / "sweep/knn_50%_&.cpu.parquet")
    table = bench.table([own / "bench/distance_speedup.cpu.parquet"])
    long = pd.concat([table, table], ignore_index=True)
    tables.write(long, own / "tables/bench_distance_speedup.cpu")
    style.save(blocks.draw(own / "sweep/knn_50%_&.cpu.parquet"), own / "figures/sweep_knn_50%_&.cpu")
    assert command(monkeypatch, "--run", own, "--out", own / "report.pdf") == 0


@pytest.mark.parametrize(("flags", "status"), [([], 1), (["--if-possible"], 0)], ids=["wanted", "if possible"])
def test_without_latexmk_one_line_names_the_packages(
    made: Path, flags: list[str], status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command(monkeypatch, "--run", made, "--out", made / "report.pdf", *flags) == status
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no latexmk" in error
    assert "apt install latexmk" in error
    assert not (made / "report.pdf").exists()


def test_a_latex_error_is_one_line_with_the_kept_log(made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    require("tex")
    (made / "tables/sweep_knn.cpu.tex").write_text("\\undefinedcommand\n")
    assert command(monkeypatch, "--run", made, "--out", made / "report.pdf") == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "! Undefined control sequence" in error
    assert (made / "report.log").is_file()
    assert str(made / "report.log") in error
    assert not (made / "report.pdf").exists()


def test_a_missing_package_names_what_installs_it():
    log = "(./report.tex\n! LaTeX Error: File `adjustbox.sty' not found.\n\nType X to quit\n\nl.9 \\RequirePackage\n"
    assert "apt install" in typeset.first_error(log)
    assert "l.9" in typeset.first_error(log)


def test_a_figure_of_another_run_is_refused(made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    require("tex")
    (made / "figures/sweep_gemm.cpu.pdf").write_bytes(b"%PDF")
    assert command(monkeypatch, "--run", made, "--out", made / "report.pdf") == 2
    assert "not a figure or table of this run's config" in capsys.readouterr().err


def test_captions_become_latex():
    assert report.latex("Is *it* ``a_b``?\nYes & 5 %.") == r"Is \emph{it} \texttt{a\_b}? Yes \& 5 \%."
    for kind in ("speedup", "scaling", "blocks", "latency", "throughput", "compile", "validate", "sweep", "bench", "rag", "environment"):
        text = report.latex(catalog.caption(kind))
        assert "*" not in text
        assert "`" not in text
