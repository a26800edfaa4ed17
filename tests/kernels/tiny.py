"""A config of the softmax operator that takes seconds, and its stages run in this process."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from analysis.records import read_parquet
from tests.commands import ROOT

SOFTMAX = ROOT / "tests" / "operators" / "softmax"
CONFIG = {
    "name": "tiny",
    "seed": 7,
    "devices": ["cpu"],
    "architectures": ["sm_80"],
    "samples": 5,
    "race": False,  # so that the times of the day decide nothing
    "operators": [str(SOFTMAX)],
    "sweep": {
        "softmax": {
            "problems": [{"rows": 200, "columns": [30, 40]}],
            "blocks": {"numpy": {"ROWS": [64, 128]}, "triton": {"BLOCK_COLUMNS": [128, 512], "num_warps": [1]}},
        }
    },
    "bench": {
        "softmax_bench": {"operator": "softmax", "problems": [{"rows": 200, "columns": 40}], "figure": "scaling", "against": "columns"}
    },
}
CEILINGS = {"bandwidth_gbs": 10.0, "tflops": {"fp32": 0.1}}


def write_config(folder: Path, **changes: Any) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, **changes}, sort_keys=False))
    return path


def copy_softmax(folder: Path, edits: dict[str, tuple[str, str]] | None = None, **files: str) -> Path:
    """A copy of the operator's folder with texts replaced, {file: (old, new)}, and further files, by their names without `.py`."""
    target = folder / "softmax"
    shutil.copytree(SOFTMAX, target, ignore=shutil.ignore_patterns("__pycache__"))
    for name, (old, new) in (edits or {}).items():
        text = (target / name).read_text()
        assert old in text
        (target / name).write_text(text.replace(old, new))
    for name, text in files.items():
        (target / f"{name}.py").write_text(text)
    return target


def call(monkeypatch: pytest.MonkeyPatch, main: Callable[[], int | None], *words: object) -> int | None:
    """A command's `main` with these arguments, in this process."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", ["command", *map(str, words)])
        return main()


class Stage:
    """Runs one stage, "sweep" or "bench", of a config in `folder`, in this process and with made-up ceilings."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, stage: str = "sweep", experiment: str = "softmax") -> None:
        self.monkeypatch, self.folder, self.stage, self.experiment = monkeypatch, folder, stage, experiment
        monkeypatch.setattr("kernels.roofline.ceilings", lambda device, clock: CEILINGS)
        monkeypatch.setattr("kernels.timing.WARMUP", 0)

    @property
    def journal(self) -> Path:
        return self.folder / "journal"

    @property
    def out(self) -> Path:
        return self.folder / f"{self.experiment}.cpu.parquet"

    def words(self, *more: object) -> tuple[object, ...]:
        """The command's arguments."""
        files = ("--journal", self.journal, "--out", self.out)
        return ("--config", self.folder / "config.yaml", "--experiment", self.experiment, "--device", "cpu", *files, *more)

    def run(self, *more: object) -> Any:
        """Run the stage; its record file as a frame."""
        import importlib

        call(self.monkeypatch, importlib.import_module(f"kernels.{self.stage}").main, *self.words(*more))
        return read_parquet(self.out)

    def bytes_of_journal(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.journal.glob("*.jsonl"))}
