"""The documentation of Python's standard library as documents: the docstrings in the interpreter's own source files.

Real text that exists on every machine. The files are parsed, never imported, so that nothing runs and every platform's
modules are read alike.
"""

from __future__ import annotations

import ast
import inspect
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

_LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "idlelib", "lib2to3", "turtledemo"}


def docstrings(root: Path | None = None) -> Iterator[tuple[str, str]]:
    """(qualified name, cleaned docstring) of every public module, class and function, in order of file and line.

    `root` is the library's folder, the running interpreter's unless given. A name defined twice (per platform) counts once.
    """
    root = root or Path(sysconfig.get_paths()["stdlib"])
    seen: set[str] = set()
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if _LEFT_OUT & set(parts) or any(_private(part) for part in parts):
            continue
        module = ".".join(part for part in parts if part != "__init__")
        for name, text in _of(_parse(path), module):
            if text and name not in seen:
                seen.add(name)
                yield name, text


def _parse(path: Path) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old escapes in the library's own strings
        return ast.parse(path.read_bytes(), filename=str(path))


def _of(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> Iterator[tuple[str, str]]:
    """The docstring of `node` and of the public classes and functions in its body, however nested in `if` and `try`."""
    text = ast.get_docstring(node, clean=False)
    yield name, inspect.cleandoc(text).strip() if text else ""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return  # a function's inner functions are nobody's interface
    pending: list[ast.AST] = list(node.body)
    while pending:
        child = pending.pop(0)
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if not _private(child.name):
                yield from _of(child, f"{name}.{child.name}")
        elif isinstance(child, ast.If | ast.Try):
            pending = list(ast.iter_child_nodes(child)) + pending


def _private(name: str) -> bool:
    return name.startswith("_") and name != "__init__"
