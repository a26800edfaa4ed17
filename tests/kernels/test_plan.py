"""What a config asks for, and each mistake in one clear line."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from analysis.cli import BadInput
from analysis.config import check as check_schema
from analysis.config import devices_of, load
from kernels import plan, registry
from tests.commands import ROOT
from tests.kernels.tiny import CONFIG, SOFTMAX


def changed(*path: str, value: Any) -> dict[str, Any]:
    """The tiny config with one value replaced."""
    config: dict[str, Any] = copy.deepcopy(CONFIG)
    *parents, last = path
    place = config
    for key in parents:
        place = place[key]
    place[last] = value
    return config


SWEEP = ("sweep", "softmax")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        pytest.param(
            changed(*SWEEP, "operator", value="sofmax"), "sweep.softmax: operator 'sofmax': unknown; one of distance", id="operator"
        ),
        pytest.param(
            changed("operators", value=[]), "sweep.softmax: operator 'softmax': unknown; one of distance", id="operator-by-the-name"
        ),
        pytest.param(changed("operators", value=["nowhere/softmax"]), "sweep.softmax: operator folder", id="operator-folder"),
        pytest.param(changed("validate", value={"operators": ["knm"]}), "operator 'knm': unknown; one of", id="validated-operator"),
        pytest.param(
            changed("sweep", value={"knn": {"problems": [{"n": 9, "d": 2, "metric": "l3"}]}}),
            "sweep.knn.problems[0].metric: 'l3' is not one of 'cosine', 'l2', 'dot', 'l1'",
            id="metric",
        ),
        pytest.param(
            changed(*SWEEP, "problems", value=[{"rows": 1, "colums": 2}]),
            "sweep.softmax.problems[0].colums: unknown field",
            id="problem-field",
        ),
        pytest.param(
            changed(*SWEEP, "problems", value=[{"rows": 1, "columns": 0}]),
            "sweep.softmax.problems[0]: columns: 0 is less than 1",
            id="size",
        ),
        pytest.param(
            changed(*SWEEP, "backends", value=["numpi"]), "sweep.softmax: backend 'numpi' of softmax is unknown; one of numpy", id="backend"
        ),
        pytest.param(
            changed(*SWEEP, "blocks", value={"numpi": {}}),
            "sweep.softmax: backend 'numpi' of softmax is unknown; one of numpy",
            id="blocks-of",
        ),
        pytest.param(
            changed(*SWEEP, "blocks", "numpy", value={"ROW": 1}),
            "sweep.softmax.blocks.numpy.ROW: unknown block axis; one of ROWS",
            id="axis",
        ),
        pytest.param(
            changed(*SWEEP, "blocks", "numpy", value={"ROWS": [0]}), "sweep.softmax.blocks.numpy.ROWS: 0 is not a positive", id="block"
        ),
        pytest.param(
            changed(*SWEEP, "blocks", "triton", "BLOCK_COLUMNS", value=[96]),
            "sweep.softmax.blocks.triton.BLOCK_COLUMNS: 96 is not a power of two",
            id="power-of-two",
        ),
        pytest.param(
            changed("architectures", value=["sm_80", "sm_91"]), "architecture 'sm_91': unknown; one of sm_50, ", id="architecture"
        ),
        pytest.param(
            changed("bench", "softmax_bench", "operator", value="gem"), "bench.softmax_bench: operator 'gem': unknown", id="bench"
        ),
    ],
)
def test_a_mistake_is_found_before_anything_runs_and_named_in_one_line(config: dict[str, Any], message: str):
    check_schema(config, "config")  # it is the operators that know better
    with pytest.raises(BadInput) as refusal:
        plan.check(config)
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_projects_configs_are_right(path: Path):
    config = load(path)
    check_schema(config, str(path))
    plan.check(config)


def test_an_unknown_experiment_names_those_there_are():
    with pytest.raises(BadInput, match=r"^sweep\.smax: no such experiment; one of softmax$"):
        plan.experiment(CONFIG, "sweep", "smax")
    with pytest.raises(BadInput, match=r"^sweep\.a: no such experiment; one of \(none\)$"):
        plan.experiment({}, "sweep", "a")


def test_an_experiment_is_what_its_entry_says():
    found = plan.experiment(changed(*SWEEP, "samples", value=9), "sweep", "softmax")
    assert [str(problem) for problem in found.problems] == ["dtype=float32 rows=200 columns=30", "dtype=float32 rows=200 columns=40"]
    assert (found.operator.name, found.samples) == ("softmax", 9)
    assert found.backends == ["numpy", "torch", "triton"]
    assert found.space(registry.backend(found.operator, "numpy")).axes == {"ROWS": (64, 128)}
    assert plan.experiment(CONFIG, "bench", "softmax_bench").samples == CONFIG["samples"]


def test_a_bench_is_compiled_for_the_blocks_that_its_operators_sweep_has():
    operator = registry.operator("softmax", [SOFTMAX])
    backend = registry.backend(operator, "numpy")
    assert plan.space(CONFIG, operator, backend).axes == {"ROWS": (64, 128)}
    assert plan.space({**CONFIG, "sweep": {}}, operator, backend).axes == backend.space.axes


def test_triton_is_validated_on_a_cpu_too_and_cupy_is_not():
    assert plan.validated_on(registry.operator("knn"), "cpu") == ["numpy", "torch", "triton"]
    assert plan.validated_on(registry.operator("knn"), "h200") == ["cupy", "torch", "triton"]


def test_the_devices_of_a_run_are_read_from_its_record_files(tmp_path: Path):
    for name in (
        "sweep/knn.cpu.parquet",
        "bench/knn_scaling.h200.parquet",
        "validate/knn.torch.cpu.parquet",
        "validate/knn.cupy.a100.failed.parquet",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert devices_of(tmp_path) == ("cpu", "h200")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(None, "No such file or directory; name a config", id="missing"),
        pytest.param("a: [", "not YAML", id="not-yaml"),
        pytest.param("", "holds no keys", id="empty"),
        pytest.param("- a", "holds no keys", id="a-list"),
    ],
)
def test_what_is_no_config_is_refused_in_one_line(tmp_path: Path, text: str | None, message: str):
    path = tmp_path / "c.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadInput, match=message) as refusal:
        load(path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert "\n" not in str(refusal.value)
