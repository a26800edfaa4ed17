"""A user's mistake in a config: one clear line, an exit status, and nothing written."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.workflow.project import TINY, Project

SWEEP, BENCH = ("sweep", "softmax"), ("bench", "scaling")
MISTAKES: dict[str, tuple[tuple[Any, ...], Any, str]] = {
    "unknown key": (("speed",), 1, "(top level): Additional properties are not allowed ('speed' was unexpected); known keys: name"),
    "unknown key of an experiment": ((*SWEEP, "problem"), [], "sweep.softmax: Additional properties"),
    "wrong type": (("seed",), "one", "seed: 'one' is not of type 'integer'"),
    "no minutes": (("shard_minutes",), 0, "shard_minutes: 0 is less than or equal to the minimum of 0"),
    "missing key": (("seed",), None, "'seed' is a required property"),
    "unknown operator": ((*SWEEP, "operator"), "softmin", "sweep.softmax: operator 'softmin': unknown; one of"),
    "unknown metric": (
        (*SWEEP,),
        {"operator": "knn", "problems": [{"metric": "l3", "n": 9, "d": 2}]},
        "problems[0].metric: 'l3' is not one of",
    ),
    "unknown problem field": ((*SWEEP, "problems"), [{"rows": 1, "cols": 2}], "sweep.softmax.problems[0].cols: unknown field; one of"),
    "unknown GPU model": (("devices",), ["h2000"], "h2000"),
    "unknown architecture": (("architectures",), ["sm_91"], "architecture 'sm_91': unknown; one of"),
    "unknown backend": ((*SWEEP, "backends"), ["jax"], "backend 'jax' of softmax is unknown; one of"),
    "unknown block axis": (
        (*SWEEP, "blocks"),
        {"numpy": {"COLS": [1]}},
        "sweep.softmax.blocks.numpy.COLS: unknown block axis; one of ROWS",
    ),
    "no power of two": (
        (*SWEEP, "blocks"),
        {"triton": {"BLOCK_COLUMNS": [100]}},
        "sweep.softmax.blocks.triton.BLOCK_COLUMNS: 100 is not a power of two",
    ),
    "unknown figure": ((*BENCH, "figure"), "pie", "bench.scaling.figure: 'pie' is not one of"),
    "a load of rates and a search": (
        ("rag",),
        {"x": {"arms": {"a": {"service": "echo"}}, "load": {"rates": [1], "search": {"start": 1}}}},
        "mistaken.yaml: rag.x.load: exactly one of rates, search is needed",
    ),
    "unknown operator folder": (("operators",), ["tests/operators/none"], "tests/operators/none"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_config(mistake: str, project: Project):
    where, value, line = MISTAKES[mistake]
    content: dict[str, Any] = {**copy.deepcopy(TINY), "name": "mistaken"}
    inside = content
    for key in where[:-1]:
        inside = inside[key]
    inside[where[-1]] = value
    if value is None:
        del inside[where[-1]]
    project.config(content, "mistaken.yaml")
    done = project.snakemake("--configfile", "config/mistaken.yaml")
    assert done.returncode == 2, done.stdout
    errors = [each for each in done.stdout.splitlines() if each.startswith("error: ")]
    assert len(errors) == 1, done.stdout
    assert line in errors[0]
    assert "Traceback" not in done.stdout
    assert not (project.root / "results/mistaken").exists()


def test_a_run_to_start_from_that_there_is_not(project: Project):
    done = project.snakemake("--configfile", "config/tiny.yaml", "--config", "run=new", "from=none")
    assert done.returncode == 2
    assert "error: --config from=none: no run of that name in results/" in done.stdout
