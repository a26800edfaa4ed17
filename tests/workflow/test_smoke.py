"""The main job on the embedded default, as `make` runs it: every stage, nothing faked, and nothing to do afterwards."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

from analysis.records import read_parquet
from tests.needs import FEATURES
from tests.workflow.project import Project


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = Project.copy(tmp_path_factory.mktemp("smoke"))
    done = made.snakemake("--quiet", "rules", "--", "all", "report_html")
    assert done.returncode == 0, done.stdout
    return made


@pytest.fixture(scope="module")
def run(smoke: Project) -> Path:
    return smoke.root / "results/smoke"


def test_it_compiles_for_absent_gpus_within_its_budget(run: Path):
    table = pd.concat([read_parquet(path) for path in run.glob("compile/*.parquet")])
    assert set(table.architecture) == {"sm_75", "sm_80", "sm_86", "sm_90"}
    assert set(table[table.architecture == "sm_75"].backend) == {"cupy"}
    assert set(table[table.architecture == "sm_90"].backend) == {"cupy", "triton"}
    ok = table[table.verdict == "ok"]
    assert (ok.registers > 0).all()
    # CuPy compiles a module of several kernels at once: its compilations are the modules
    compiled = (
        ok[~ok.cached.astype(bool)].assign(unit=lambda rows: rows.hash.str.split("-").str[0]).drop_duplicates(["architecture", "unit"])
    )
    assert 0 < len(compiled) <= 200  # some 45 an architecture for Triton, at a sixth of a second each


def test_every_variant_agrees_with_the_oracle(run: Path):
    checked = pd.concat([read_parquet(path) for path in run.glob("validate/*.parquet")])
    assert checked.ok.all()
    assert {("knn", "triton", "interpreter"), ("distance", "torch", "native")} <= set(
        zip(checked.operator, checked.backend, checked["mode"], strict=True)
    )


def test_times_have_samples_a_noise_floor_and_a_limit(run: Path):
    for name in ("sweep/knn", "sweep/distance", "bench/knn_scaling", "bench/distance_speedup"):
        records = read_parquet(run / f"{name}.cpu.parquet")
        measured = records[records.status == "measured"]
        assert {len(samples) for samples in measured.samples_ms} == {30}, name
        assert measured.noise.notna().all(), name
        assert (measured.limit_ms > 0).all(), name
        ours = measured[measured.backend.isin(["numpy", "torch"])]
        assert name.startswith("sweep") or (ours.error <= 1).all(), name


def test_both_services_were_measured_under_the_same_load(run: Path):
    requests = read_parquet(run / "rag/batching.parquet")
    assert set(requests.arm) == {"course", "batched"}
    assert set(requests.weights) == {"random"}
    schedules = requests.groupby(["arm", "rate"]).scheduled_s.apply(lambda times: tuple(sorted(times)))
    assert all(schedules["course", rate] == schedules["batched", rate] for rate in requests.rate.unique())
    assert requests[requests.status == "ok"]["rank"].gt(0).mean() > 0.5  # real embeddings find most sources


def test_figures_tables_numbers_and_reports_are_there(run: Path):
    figures = {path.stem for path in (run / "figures").glob("*.pdf")}
    assert {
        "sweep_knn.cpu",
        "bench_knn_scaling.cpu",
        "bench_distance_speedup.cpu",
        "rag_batching_latency",
        "rag_batching_throughput",
    } <= figures
    assert {"compile", "validate", "environment", "rag_batching"} <= {path.stem for path in (run / "tables").glob("*.tex")}
    assert (run / "numbers.tex").read_text().count("\\newcommand") > 20
    assert (run / "report.html").stat().st_size > 1e6
    assert (run / "report.pdf").is_file() == (FEATURES["tex"]() is None)


def test_nothing_is_to_be_done_again(smoke: Project):
    done = smoke.snakemake()
    assert "Nothing to be done" in done.stdout, done.stdout


def test_without_tex_all_but_the_pdf_is_made_and_one_line_says_so(smoke: Project, tmp_path: Path):
    for folder in filter(os.path.isdir, os.environ["PATH"].split(os.pathsep)):
        for tool in Path(folder).iterdir():
            link = tmp_path / tool.name
            if "tex" not in tool.name and not link.exists():
                link.symlink_to(tool)
    (smoke.root / "results/smoke/report.pdf").unlink(missing_ok=True)
    everything = smoke.snakemake(PATH=str(tmp_path))
    assert everything.returncode == 0, everything.stdout
    paper = smoke.snakemake("paper", "--config", "run=smoke", PATH=str(tmp_path))
    assert paper.returncode == 1
    assert sum("latexmk" in line and "apt" in line for line in paper.stdout.splitlines()) == 1, paper.stdout
