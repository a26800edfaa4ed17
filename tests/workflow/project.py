"""A copy of the project to run Snakemake in, as a fresh clone would be: no results but the committed ones, no git."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.commands import ROOT

TINY = {
    "name": "tiny",
    "seed": 1,
    "devices": ["cpu"],
    "samples": 5,
    "architectures": ["sm_90"],
    "operators": ["tests/operators/softmax"],
    "sweep": {
        "softmax": {"problems": [{"rows": 256, "columns": [40, 64]}], "blocks": {"triton": {"BLOCK_COLUMNS": [128], "num_warps": [1]}}}
    },
    "bench": {
        "scaling": {"operator": "softmax", "problems": [{"rows": 64, "columns": [64, 256]}], "figure": "scaling", "against": "columns"}
    },
}
"""An operator of another kind, from outside the tree: one folder and one block of config a stage."""


@dataclass(frozen=True)
class Project:
    root: Path

    @classmethod
    def copy(cls, to: Path) -> Project:
        """Copy what git would: by git where there is git, else everything but what is made."""
        listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True)
        if listed.returncode == 0:
            for name in filter(None, listed.stdout.split("\0")):
                if (ROOT / name).is_file():
                    (to / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(ROOT / name, to / name)
        else:
            made = shutil.ignore_patterns(".venv", ".snakemake", "__pycache__", ".cache", "smoke", "*.egg-info")
            shutil.copytree(ROOT, to, ignore=made, dirs_exist_ok=True)
        return cls(to)

    def snakemake(self, *words: object, python: str = sys.executable, **env: str) -> subprocess.CompletedProcess[str]:
        """Run `snakemake WORDS…` here; standard error and output come together."""
        command = [python, "-m", "snakemake", *map(str, words)]
        clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "REQUIRE")}
        return subprocess.run(command, cwd=self.root, env={**clean, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def config(self, content: dict, name: str = "tiny.yaml") -> Path:
        path = self.root / "config" / name
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    def planned(self, *words: object) -> set[str]:
        """The rules that a dry run of these words would execute."""
        done = self.snakemake("-n", *words)
        assert done.returncode == 0, done.stdout
        lines = done.stdout[done.stdout.find("Job stats:") :].splitlines() if "Job stats:" in done.stdout else []
        return {line.split()[0] for line in lines[3 : lines.index("") if "" in lines else None] if len(line.split()) == 2} - {"total"}
