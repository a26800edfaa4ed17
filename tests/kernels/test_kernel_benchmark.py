"""The kernels' benchmark where there is no GPU: its cases, how answers are checked, what is recorded, and its tables."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from analysis.cli import BadInput
from kernels.knn import reference
from tests.commands import ROOT, one_line, run_python

sys.path.append(str(ROOT / "docs" / "benchmarks"))

import kernel_cases as cases
import kernel_exactness as exactness
import kernel_measure as measuring
import kernel_table as table
from kernel_measure import Contender, Row, Target

SCRIPT = Path("docs/benchmarks/kernels.py")
HERE = cases.Setting("cpu")
CEILINGS = {"bandwidth_gbs": 2210.0, "tflops": {"fp32": 51.0, "bf16": 679.0}, "link_gbs": 50.0}
"""Half the issue's memory bandwidth, its other rates, and a link."""


class Clock:
    """Times calls by the wall, without a flush."""

    def time_ms(self, call: Any, flush: bool = True) -> float:
        start = time.perf_counter()
        call()
        return (time.perf_counter() - start) * 1e3


def measured(case: cases.Case, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The records of a small case on the CPU, through JSON as in a file."""
    for name in ("SAMPLES", "FEWER", "FEWEST"):
        monkeypatch.setattr(measuring, name, 3)
    return json.loads(json.dumps([measuring.measure(row, {"cpu": Clock()}) for row in case.rows(HERE)]))


def by_name(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in record["contenders"]}


# cases


def test_every_case_is_listed_once() -> None:
    done = run_python(SCRIPT, "--list")
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert done.returncode == 0 and names == [case.name for case in cases.CASES] and len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["ivf_1"], ["ivf_1"]),
        (["ivf"], ["ivf_10k", "ivf_1", "ivf_build"]),
        (["gemm_bf16", "knn_1_"], ["knn_1_4m", "knn_1_1m_1024", "knn_1_4k", "gemm_bf16"]),
        (["report_*_2_4k"], ["report_distance_2_4k", "report_kmeans_2_4k"]),
    ],
)
def test_cases_by_name_beginning_and_pattern(words: list[str], names: list[str]) -> None:
    assert [case.name for case in cases.chosen(words)] == names


def test_an_unknown_case_is_refused() -> None:
    with pytest.raises(BadInput, match="--cases topk: no such case; one of knn_1_4m, "):
        cases.chosen(["topk"])


def test_the_command_refuses_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "there.json").touch()
    assert "there is such a file" in one_line(run_python(SCRIPT, "--out", tmp_path / "there.json"))
    assert "no such file" in one_line(run_python(SCRIPT, "--print", tmp_path / "absent.json"))
    assert "no NVIDIA GPU here" in one_line(run_python(SCRIPT, "--out", tmp_path / "new.json", CUDA_VISIBLE_DEVICES=""))
    assert not (tmp_path / "new.json").exists()


# exactness


@pytest.mark.parametrize("metric", cases.METRICS)
def test_nearest_in_pieces_is_the_oracle(metric: str) -> None:
    queries, collection = HERE.normal(5, 12), HERE.normal(70, 12, seed=1)
    pieces = [(start, collection[start : start + 16]) for start in range(0, 70, 16)]
    found = exactness.nearest(queries, pieces, 20, metric)
    distances, ids = reference.knn(queries.numpy(), collection.numpy(), 20, metric)
    np.testing.assert_array_equal(found.ids, ids)
    np.testing.assert_allclose(found.keys, -distances if metric == "dot" else distances, rtol=1e-12, atol=1e-13)
    assert found.longest == pytest.approx(float(collection.double().norm(dim=1).max()))


def graded(ids: torch.Tensor, metric: str = "l2", collection: torch.Tensor | None = None) -> dict[str, float]:
    """What is said of neighbours found among 50 rows for 4 queries."""
    queries, rows = HERE.normal(4, 8), HERE.normal(50, 8, seed=1) if collection is None else collection
    truth = exactness.nearest(queries, [(0, rows)], ids.shape[1], metric)
    return exactness.neighbours(queries, lambda some: rows[some], ids, truth, metric, len(rows))


def true_ids(metric: str = "l2") -> torch.Tensor:
    return exactness.nearest(HERE.normal(4, 8), [(0, HERE.normal(50, 8, seed=1))], 6, metric).ids


@pytest.mark.parametrize("metric", cases.METRICS)
def test_right_ids_in_any_order_are_exact(metric: str) -> None:
    assert graded(true_ids(metric).flip(1), metric) == {"exact": 1.0, "recall": 1.0, "checked": 4}


@pytest.mark.parametrize("metric", cases.METRICS)
def test_a_farther_row_is_not_exact(metric: str) -> None:
    ids = true_ids(metric)
    ids[2, 5] = exactness.nearest(HERE.normal(4, 8), [(0, HERE.normal(50, 8, seed=1))], 50, metric).ids[2, 40]
    found = graded(ids, metric)
    assert found["exact"] == 0.75 and found["recall"] == pytest.approx(23 / 24)


@pytest.mark.parametrize("wrong", [-1, 50, "twice"])
def test_ids_that_are_none_are_not_exact(wrong: int | str) -> None:
    ids = true_ids()
    ids[0, 3] = ids[0, 0] if wrong == "twice" else wrong
    assert graded(ids)["exact"] == 0.75


def test_ties_within_float32_rounding_are_exact() -> None:
    rows = HERE.normal(25, 8, seed=1).repeat(2, 1)
    rows[25:] *= 1 + 1e-8
    ids = exactness.nearest(HERE.normal(4, 8), [(0, rows)], 5, "l2").ids
    assert graded((ids + 25) % 50, collection=rows)["exact"] == 1.0


def test_labels_and_means_of_clusters() -> None:
    points = HERE.normal(200, 3)
    before, part = points[:7].clone(), exactness.spread(200, 100, "cpu")
    labels = torch.cdist(points.double(), before.double()).argmin(1)
    after = torch.stack([points[labels == one].double().mean(0) for one in range(7)]).float()
    found = exactness.clusters(points, before, labels.int(), after, part)
    assert found["exact"] == 1.0 and found["update"] < 1e-6 and found["checked"] == 100
    labels[part[:10]] = (labels[part[:10]] + 1) % 7
    found = exactness.clusters(points, before, labels, after, part)
    assert found["exact"] == 0.9 and found["update"] > 1e-3


def test_products_and_distances_are_told_in_tolerances() -> None:
    a, b = HERE.normal(40, 30), HERE.normal(30, 50, seed=1)
    assert exactness.product("fp32", a, b, a @ b)["exact"] == 1.0
    assert exactness.product("fp32", a, b, (a @ b) * 1.001)["error"] > 1
    found = torch.cdist(a, b.T[:, :30].contiguous())
    assert exactness.distances(a, b.T.contiguous(), found, "l2")["exact"] == 1.0
    assert exactness.distances(a, b.T.contiguous(), found + 0.01, "l2")["exact"] == 0.0


# measuring


def test_neighbours_of_small_data_through_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    case = cases.knn("small", "small", 5, 300, 16, 4, dict.fromkeys(cases.METRICS, Target("bandwidth", 1, 2, 1)))
    records = measured(case, monkeypatch)
    assert [record["row"] for record in records] == [f"small_{metric}" for metric in cases.METRICS]
    for record in records:
        found = by_name(record)
        for name in {"ours"} | {name for name in found if name.startswith("torch")}:
            assert found[name]["exact"] == 1.0 and len(found[name]["samples_ms"]) == 3, found[name]
    assert "torch, norms precomputed" in by_name(records[0]) and "FlashLib" not in by_name(records[1])


def test_clusters_of_small_data_through_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    [record] = measured(cases.kmeans("small", "small", 500, 5, 9, Target("peer", 1, 2, 1, "FlashLib")), monkeypatch)
    for name in ("ours", "torch"):
        entry = by_name(record)[name]
        assert entry["exact"] == 1.0 and entry["update"] < 1e-5 and len(entry["samples_ms"]) == 3


@pytest.mark.parametrize(("q", "nprobe"), [(50, None), (1, 4), (0, None)], ids=["batch", "one", "build"])
def test_a_small_index_through_the_whole(q: int, nprobe: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target("peer", 1, 2, 1, "FlashLib")
    [record] = measured(cases.ivf("small", "small", q, nprobe, target, n=1500, d=12, lists=8), monkeypatch)
    ours = by_name(record)["ours"]
    assert len(ours["samples_ms"]) == 3 and ours["checked"] == 1000 and ours["nprobe"] == (nprobe or ours["nprobe"])
    assert ours["recall"] >= (0.99 if q > 1 else 0.5) and record["needs"] == ["recall", 0.99]


def test_a_small_collection_streamed_through_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    [record] = measured(cases.streamed(n=3000, d=9, q=4, k=5), monkeypatch)
    [entry] = record["contenders"]
    assert entry["exact"] == 1.0 and record["target"]["base_ms"] == pytest.approx(1e3 * 4 * 3000 * 9 / 1e9)


def test_products_of_small_data_through_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    for precision in ("tf32", "fp16", "bf16"):
        [record] = measured(cases.gemm(precision, 96), monkeypatch)
        assert all(entry["exact"] == 1.0 for entry in record["contenders"]) and len(record["contenders"]) == 2


def test_report_rows_are_of_the_cpu_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    records = measured(cases.report_distance(3, 2000), monkeypatch) + measured(cases.report_kmeans(3, 2000), monkeypatch)
    assert len(records) == 5
    for record in records:
        [entry] = record["contenders"]
        assert entry["place"] == "cpu" and entry["exact"] == 1.0 and record["cost"]["bytes"] > 0


def test_what_does_not_fit_is_left_out_with_the_reason() -> None:
    [case] = cases.chosen(["report_distance_32768_4m"])
    [row] = case.rows(cases.Setting("cuda"))
    assert row.left_out == "the collection takes 524 GB" and not row.contenders


def fails(message: str) -> Any:
    def call(_: Any) -> None:
        raise ImportError(message)

    return call


def test_a_contender_that_fails_is_recorded_and_the_others_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    good = Contender("ours", lambda prepared: prepared + 1, lambda out, prepared: {"exact": float(out == 8)}, lambda: 7, "cpu")
    bad = Contender("FlashLib", fails("No module named 'flashlib'"), lambda out, _: {}, place="cpu")
    unready = Contender("torch", lambda _: 1, lambda out, _: {}, lambda: fails("no memory")(0), "cpu")
    [record] = measured(cases.Case("c", "c", lambda setting: iter([Row("r", "r", [bad, good, unready])])), monkeypatch)
    found = by_name(record)
    assert found["ours"]["exact"] == 1.0 and len(found["ours"]["samples_ms"]) == 3
    assert found["FlashLib"]["error"] == "ImportError: No module named 'flashlib'" and "samples_ms" not in found["FlashLib"]
    assert found["torch"]["error"] == "ImportError: no memory"


@pytest.mark.parametrize(("estimate", "samples"), [(1.0, 30), (25.0, 7), (5000.0, 3)])
def test_long_calls_are_sampled_less(estimate: float, samples: int) -> None:
    assert measuring._samples(estimate) == samples


def test_records_are_written_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A case whose data cannot be made is a row; what came before a kill is in the file."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("kernels_benchmark", ROOT / SCRIPT)
    assert spec and spec.loader
    command = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(command)
    monkeypatch.setattr(measuring, "SAMPLES", 3)
    ours = Contender("ours", lambda _: 1, lambda out, _: {"exact": 1.0, "checked": 1}, place="cpu")

    def rows(setting: cases.Setting):
        yield Row("first", "first", [ours])
        raise MemoryError("too large")

    def killed(setting: cases.Setting):
        yield Row("second", "second", [ours])
        raise KeyboardInterrupt

    record: dict[str, Any] = {"rows": []}
    chosen = [cases.Case("one", "one", rows), cases.Case("two", "two", killed)]
    with pytest.raises(KeyboardInterrupt):
        command.measure_all(chosen, HERE, record, {"cpu": Clock()}, tmp_path / "out.json")
    written = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [(row["row"], row["left_out"]) for row in written] == [("first", ""), ("one", "MemoryError: too large"), ("second", "")]
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


# tables


def entry(name: str, ms: float, place: str = "gpu", **more: Any) -> dict[str, Any]:
    return {"name": name, "place": place, "samples_ms": [ms] * 5, "prepare_ms": 0.0, "exact": 1.0, "checked": 100, **more}


def row_of(target: Target | None, *contenders: dict[str, Any], **more: Any) -> dict[str, Any]:
    record = {
        "row": "row",
        "title": "a case",
        "target": vars(target) if target else None,
        "cost": None,
        "needs": ["exact", 1.0],
        "left_out": "",
    }
    return {**record, "contenders": list(contenders), **more}


@pytest.mark.parametrize(("ms", "met"), [(0.9, "aim"), (1.1, "must"), (1.3, "no")], ids=["at-the-aim", "between", "too-slow"])
def test_targets_move_with_the_ceiling(ms: float, met: str) -> None:
    """Stated as 0.6 and 0.5 of a limit of 0.463 ms, at half the memory bandwidth they are 1.2 and 1.0."""
    record = row_of(Target("bandwidth", 0.463, 0.6, 0.5), entry("ours", ms))
    assert table.limit_ms(record, CEILINGS) == pytest.approx(0.926)
    assert table.verdict(record, CEILINGS) == met


def test_targets_move_with_the_peer() -> None:
    target = Target("peer", 1.0, 1 / 0.9, 1.0, "cuBLAS")
    assert table.verdict(row_of(target, entry("ours", 3.3), entry("cuBLAS", 3.0)), CEILINGS) == "must"
    assert table.verdict(row_of(target, entry("ours", 3.4), entry("cuBLAS", 3.0)), CEILINGS) == "no"


def test_without_its_peer_a_target_is_the_issues_and_says_so() -> None:
    record = row_of(
        Target("peer", 0.72, 0.4, 0.15, "FlashLib"), entry("ours", 0.3), {"name": "FlashLib", "place": "gpu", "error": "absent"}
    )
    assert table.verdict(record, CEILINGS) == "must *"
    assert "was not measured in this run" in "\n".join(table.targets([record], CEILINGS))


def test_the_link_sets_the_limit_of_a_stream() -> None:
    target = Target("link", 20_000.0, 20_000 / 0.85, 20_000 / 0.95)
    record = row_of(target, entry("ours", 450.0))
    assert table.limit_ms(record, CEILINGS) == pytest.approx(400) and table.verdict(record, CEILINGS) == "must"


@pytest.mark.parametrize(
    ("ours", "met"),
    [
        (entry("ours", 0.1, exact=0.99), "no: exact 0.9900"),
        ({"name": "ours", "place": "gpu", "error": "OutOfMemoryError: x"}, "no: failed"),
    ],
)
def test_wrong_or_failed_answers_meet_nothing(ours: dict[str, Any], met: str) -> None:
    assert table.verdict(row_of(Target("bandwidth", 0.463, 0.6, 0.5), ours), CEILINGS) == met


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0312, "0.0312"), (0.463, "0.463"), (3.8, "3.80"), (28.51, "28.5"), (524.2, "524"), (12345.0, "12,345")],
)
def test_numbers(value: float | None, text: str) -> None:
    assert table.number(value) == text


def test_the_whole_page_from_a_file(tmp_path: Path) -> None:
    host = {"host_ms": [0.02] * 3, "waited_ms": [0.05] * 3}
    flash = entry("FlashLib", 17.5, exact=0.0, recall=0.284)
    rows = [
        row_of(
            Target("fp32", 1.2, 6.0, 3.0), entry("ours", 2.0), flash, {"name": "torch", "place": "gpu", "error": "OutOfMemoryError: big"}
        ),
        row_of(Target("peer", 0.032, 0.03, 0.015, "torch"), entry("ours", 0.014, **host), entry("torch", 0.028), title="small"),
        row_of(
            None,
            entry("ours", 2.0, error=0.3),
            entry("ours", 50.0, "cpu", error=0.2),
            title="both",
            cost={"bytes": 2.21e9, "operations": 1, "rate": "fp32"},
        ),
        row_of(None, title="large", left_out="the collection takes 524 GB"),
    ]
    record = {
        "device": "NVIDIA H200", "gpu": {"driver": "580.1"}, "started": "2026-11-24T12:00:00+00:00", "versions": {"torch": "2.11.0"},
        "environment": {"commit": "0123456789abcdef", "dirty": False}, "ceilings": CEILINGS, "rows": rows,
    }  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(record))
    done = run_python(SCRIPT, "--print", tmp_path / "a.json")
    assert done.returncode == 0, done
    lines = done.stdout.splitlines()
    assert lines[0] == "NVIDIA H200, driver 580.1, 2026-11-24T12:00:00+00:00, commit 0123456789ab"
    [first] = [line for line in lines if line.startswith("| a case")]
    assert first == (
        "| a case | 1.20 | FlashLib 17.5 (0.0000 of 100, recall 0.2840) | 2.00 [2.00, 2.00] | 1.67 | 8.75 | 5.00 × limit | 2.50 × limit |"
        " aim | 1.0000 of 100 |"
    )
    [small] = [line for line in lines if line.startswith("| small")]
    assert "0.0140 [0.0140, 0.0140] (host: call 0.0200, with wait 0.0500)" in small and "0.94 × torch" in small and "| must |" in small
    [both] = [line for line in lines if line.startswith("| both")]
    assert both.startswith(
        "| both | 1.00 | 2.00 [2.00, 2.00] | 2.00 | 50.0 [50.0, 50.0] | 25.00 | gpu 1.0000 of 100, error 0.3 tolerances;"
    )
    assert any(line.startswith("| large | – | left out: the collection takes 524 GB") for line in lines)
    assert "- a case: torch on the gpu failed: OutOfMemoryError: big" in lines
