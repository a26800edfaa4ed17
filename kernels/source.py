"""The digest of a backend's source with what it calls, so that editing one kernel invalidates that kernel's points alone."""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from analysis.modules import closure
from kernels.contract import Backend, Operator, as_bfloat16, standard_normal
from kernels.draw import normal

_NOT_COMPUTING = {
    "space.py",
    "reference.py",
    "compare.py",
    "peers.py",
    "analysis/cli.py",
    "kernels/contract.py",
    "kernels/registry.py",
    "kernels/tuned.py",
}
"""Files that cannot change what a backend computes or how fast: a block is part of a point's identity by itself."""


def digest(backend: Backend) -> str:
    """A digest (16 hex digits) of the backend's module and the project's modules that it imports, directly or not.

    Comments, formatting and docstrings do not count.
    """
    assert backend.module.__file__ is not None
    return digest_of([Path(backend.module.__file__)])


def digest_of(starts: Sequence[Path]) -> str:
    """The same of files and what they import."""
    files = sorted({path for start in starts for path in closure(start, skip=_NOT_COMPUTING)})
    return _hash("\n".join(_normal(path.read_text(encoding="utf-8")) for path in files))


def generator_digest(operator: Operator) -> str:
    """A digest of the functions that make an operator's inputs."""
    functions: list[Callable[..., Any]] = [normal, standard_normal, as_bfloat16, *([operator.inputs] if operator.inputs else [])]
    return _hash("\n".join(_normal(textwrap.dedent(inspect.getsource(function))) for function in functions))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@functools.cache
def _normal(source: str) -> str:
    """The source's syntax tree as text, without docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)
