"""What a config plans is what the modules can make: kinds, files and captions."""

from __future__ import annotations

import importlib

import pytest
import yaml

from analysis import catalog, factors
from analysis.cli import BadInput
from tests.analysis import synthetic

CONFIG = yaml.safe_load(synthetic.CONFIG)


def test_a_figure_for_each_experiment_and_device():
    found = {item.stem: item for item in catalog.figures(CONFIG, ["cpu", "h200"])}
    assert set(found) == {
        *("sweep_knn.cpu", "sweep_knn.h200", "bench_distance_speedup.cpu", "bench_distance_speedup.h200"),
        *("bench_knn_scaling.cpu", "bench_knn_scaling.h200", "rag_batching_latency", "rag_batching_throughput"),
        "timeline",
    }
    assert found["bench_knn_scaling.h200"].records == ("bench/knn_scaling.h200.parquet",)
    assert found["bench_knn_scaling.h200"].options == ("--against", "n")
    assert found["rag_batching_latency"].options == ("--slo-ms", "500")


def test_tables_of_all_stages():
    found = {
        item.stem: item for item in catalog.tables(CONFIG, ["cpu"], lambda operator, device: {"knn": ["numpy", "torch"]}.get(operator, []))
    }
    assert found["validate"].records == ("validate/knn.numpy.cpu.parquet", "validate/knn.torch.cpu.parquet")
    assert found["compile"].records == tuple(
        f"compile/{operator}.{architecture}.parquet" for operator in ("knn", "distance") for architecture in ("sm_80", "sm_90")
    )
    assert {"sweep_knn.cpu", "bench_knn_scaling.cpu", "rag_batching", "environment", "compile_variants", "spent", "spent_points"} <= set(
        found
    )
    assert "rag/batching.parquet" in found["environment"].records


def test_the_time_of_a_run_is_that_of_all_its_sweeps_and_benches():
    timeline = next(item for item in catalog.figures(CONFIG, ["cpu", "h200"]) if item.kind == "timeline")
    assert timeline.records == tuple(
        f"{name}.{device}.parquet" for name in ("sweep/knn", "bench/distance_speedup", "bench/knn_scaling") for device in ("cpu", "h200")
    )
    assert "timeline" not in {item.kind for item in catalog.figures({"rag": CONFIG["rag"]}, ["cpu"])}


def test_every_kind_has_a_module_a_caption_that_begins_with_a_question_and_a_stem_of_its_own():
    for items in (catalog.figures(CONFIG, ["cpu"]), catalog.tables(CONFIG, ["cpu"], lambda operator, device: ["torch"])):
        assert len({item.stem for item in items}) == len(items)
        for item in items:
            assert hasattr(importlib.import_module(f"analysis.{item.what}s.{item.kind}"), "main")
            assert "?" in catalog.caption(item.kind).partition("\n")[0]


def test_a_config_of_nothing_plans_nothing():
    assert catalog.figures({}, ["cpu"]) == []
    assert catalog.tables({"sweep": None, "rag": {}}, ["cpu"], lambda operator, device: []) == []


SEARCH = {
    "load": {"search": {"start": 4}, "times": [2]},
    "arms": {"a": {"service": "batched"}},
    "vary": {"instances": [1, 2]},
    "slo_ms": 500,
}


def test_a_rag_experiment_names_its_figures():
    config = {"rag": {"x": SEARCH | {"figures": ["capacity", "overload", "stages"], "against": "instances"}}}
    found = {item.stem: item.options for item in catalog.figures(config, ["cpu"])}
    assert found == {
        "rag_x_capacity": ("--against", "instances"),
        "rag_x_overload": (),
        "rag_x_stages": ("--against", "instances"),
    }
    assert {"rag_x", "rag_x_capacity"} <= {item.stem for item in catalog.tables(config, ["cpu"], lambda operator, device: [])}


def test_without_a_search_there_is_no_table_of_highest_rates():
    assert "capacity" not in {item.kind for item in catalog.tables(CONFIG, ["cpu"], lambda operator, device: [])}


@pytest.mark.parametrize("kind", catalog.RAG_FIGURES)
def test_every_kind_of_rag_figure_has_a_module_and_a_caption_that_begins_with_a_question(kind: str):
    assert hasattr(importlib.import_module(f"analysis.figures.{kind}"), "main")
    assert "?" in catalog.caption(kind).partition("\n")[0]


def test_the_schema_lists_the_kinds_and_factors_that_there_are():
    its = yaml.safe_load((catalog.CAPTIONS.parent / "schemas/rag.schema.yaml").read_text())["$defs"]["experiment"]["properties"]
    assert set(its["figures"]["items"]["enum"]) == set(catalog.RAG_FIGURES)
    assert tuple(its["figures"]["default"]) == catalog.RAG_DEFAULT
    assert set(its["against"]["enum"]) == set(factors.NAMES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"figures": ["pie"]}, r"rag\.x\.figures: 'pie' is not one of latency, ttft"),
        ({"figures": ["capacity"], "load": {"rates": [1]}}, r"rag\.x\.figures: capacity needs the key search in load"),
        ({"figures": ["ttft"]}, r"rag\.x\.figures: ttft needs the key stream in load"),
        ({"against": "nprobe"}, r"rag\.x\.against: no arm, vary or load has the key nprobe"),
    ],
    ids=["unknown", "no search", "no stream", "no factor"],
)
def test_a_rag_figure_that_would_have_no_records_is_refused(changes: dict[str, object], message: str):
    with pytest.raises(BadInput, match=message):
        catalog.figures({"rag": {"x": SEARCH | changes}}, ["cpu"])


def test_a_figure_that_there_is_not_is_refused():
    with pytest.raises(BadInput, match=r"bench.a.figure: 'pie' is not one of speedup, scaling"):
        catalog.figures({"bench": {"a": {"figure": "pie"}}}, ["cpu"])


def test_an_experiment_without_an_operator_is_named_after_its_own():
    assert catalog.operators({"sweep": {"knn": {}}, "bench": {"speed": {"operator": "gemm"}}}) == ["knn", "gemm"]
