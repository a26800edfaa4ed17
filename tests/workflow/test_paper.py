"""The paper again from the shipped run: with the `paper` install group alone, no git, and nothing measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import needs
from tests.commands import ROOT
from tests.workflow.project import Project

SHIPPED = "h200"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python of an environment that holds what locks/paper.txt names and nothing else."""
    folder = tmp_path_factory.mktemp("paper") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    found = str(folder / "bin" / "python")
    install = [found, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(ROOT / "locks/paper.txt")]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode:
        needs.absent("index", f"pip could not install locks/paper.txt: {done.stderr.strip().splitlines()[-1]}")
    return found


def test_the_group_has_no_gpu_library(python: str):
    for name in ("torch", "triton", "cupy", "submitit", "transformers"):
        assert subprocess.run([python, "-c", f"import {name}"], capture_output=True).returncode != 0, name


def test_the_paper_is_made_again(python: str, tmp_path: Path):
    copied = Project.copy(tmp_path)
    assert not (tmp_path / ".git").exists()
    before = json.loads((tmp_path / "results" / SHIPPED / "manifest.json").read_text())
    has_tex = needs.FEATURES["tex"]() is None
    done = copied.snakemake("paper", "--quiet", "rules", python=python)
    assert done.returncode == (0 if has_tex else 1), done.stdout
    run = tmp_path / "results" / SHIPPED
    assert (run / "report.pdf").is_file() == has_tex
    assert len(list((run / "figures").glob("*.pdf"))) >= 4
    assert (run / "numbers.tex").read_text().count("\\newcommand") > 20
    assert json.loads((run / "manifest.json").read_text()) == before
