"""Runs the project's commands as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run_module(*words: object, **env: str) -> subprocess.CompletedProcess[str]:
    """`python -m WORDS…` from the repository's root, with `env` added to the environment; its output is captured."""
    return run_python("-m", *words, **env)


def run_python(*words: object, **env: str) -> subprocess.CompletedProcess[str]:
    """`python WORDS…` from the repository's root, with `env` added to the environment; its output is captured."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    return subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, env=environment, capture_output=True, text=True)


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one line by which a command refuses bad input. Fails where it did anything else."""
    assert done.returncode == 2, done
    (line,) = done.stderr.splitlines()
    return line
