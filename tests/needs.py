"""What a test needs of the machine. What is absent is a skip that says why, or a failure where REQUIRE lists it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from analysis.cli import BadInput
from rag.serverlessllm import environment


def _slurm() -> str | None:
    missing = [name for name in ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd") if not shutil.which(name, path=_PATH)]
    if missing:
        return f"no {', '.join(missing)} (cluster/testbed/README.md names the Debian packages)"
    return None if os.geteuid() == 0 else "the Slurm testbed needs root"


def _tex() -> str | None:
    missing = [name for name in ("latexmk", "pdflatex") if not shutil.which(name)]
    return f"no {', '.join(missing)} (README.md names the Debian packages)" if missing else None


def _gpu() -> str | None:
    found = shutil.which("nvidia-smi") and subprocess.run(["nvidia-smi", "-L"], capture_output=True).returncode == 0
    return None if found else "no NVIDIA GPU"


def _compiler() -> str | None:
    if not (shutil.which("gcc") or shutil.which("clang")):
        return "no C compiler"
    header = Path(sysconfig.get_paths()["include"], "Python.h")
    return None if header.is_file() else f"no {header} (Debian's python3-dev)"


def _serverlessllm() -> str | None:
    try:
        environment.programs(environment.default())
    except BadInput:
        return "ServerlessLLM's environment is not built (make serverlessllm; 1.7 GB)"
    return None


_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
FEATURES: dict[str, Callable[[], str | None]] = {
    "slurm": _slurm,
    "tex": _tex,
    "gpu": _gpu,
    "compiler": _compiler,
    "serverlessllm": _serverlessllm,
    "index": lambda: None,
}
"""What tests may need, and how to tell why it is absent (None: it is there, or, of the package index, only trying tells)."""


def required() -> set[str]:
    return {name.strip() for name in os.environ.get("REQUIRE", "").split(",") if name.strip()}


def require(feature: str) -> None:
    """Skip the test, with the reason, where the machine lacks `feature`; fail it where REQUIRE lists the feature."""
    reason = FEATURES[feature]()
    if reason:
        absent(feature, reason)


def absent(feature: str, reason: str) -> NoReturn:
    """Skip the test because `feature` is absent for `reason`, or fail it where REQUIRE lists the feature."""
    if feature in required():
        pytest.fail(f"REQUIRE={os.environ['REQUIRE']}: {reason}", pytrace=False)
    pytest.skip(f"needs {feature}: {reason}")
