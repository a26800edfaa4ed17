"""The configs that are shipped: each is sound, and the RAG experiments of the paper are to be had without a GPU too."""

from __future__ import annotations

import pytest

from analysis import catalog
from analysis.config import check, load
from kernels import plan
from rag import config as serving
from tests.commands import ROOT

CONFIGS = sorted((ROOT / "config").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_shipped_config_is_sound(path):
    config = load(path)
    check(config, path.name)
    plan.check(config)
    serving.check(config, path.name)
    assert catalog.figures(config, ["cpu"])
    assert catalog.tables(config, ["cpu"], lambda operator, device: [])


def test_the_paper_s_serving_experiments_run_on_a_cpu_as_well():
    paper, small = (set(load(ROOT / "config" / f"{name}.yaml")["rag"]) for name in ("paper", "serving"))
    assert paper - small == {"capacity_qwen"}  # whose point is the size of its model
    assert small <= paper
