"""The docstrings of Python source files as (qualified name, text). The files are parsed, never imported, so that nothing of theirs runs."""

from __future__ import annotations

import ast
import inspect
import warnings
from collections.abc import Iterator
from pathlib import Path

Named = tuple[str, str]
_LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "idlelib", "lib2to3", "turtledemo"}


def files(root: Path) -> Iterator[tuple[Path, str]]:
    """The source files under `root`, tests left out, by path, each with the name of its module."""
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if path.is_file() and not (_LEFT_OUT & set(parts) or parts[-1].startswith("test_")):
            yield path, ".".join(part for part in parts if part != "__init__")


def read(file: tuple[Path, str]) -> list[Named]:
    """The cleaned docstrings of a module and its public classes and functions, in order of line; none of a file that is not Python's."""
    path, module = file
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old escapes in other people's strings
            tree = ast.parse(path.read_bytes(), filename=str(path))
        found = [(name, text.encode(errors="ignore").decode()) for name, text in _of(tree, module)]  # half a surrogate pair is no text
        return [(name, text) for name, text in found if text]
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):  # a template, say, or another version's syntax
        return []


def _of(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> Iterator[Named]:
    """The docstring of `node` and of the public classes and functions in its body, however nested in `if` and `try`."""
    text = ast.get_docstring(node, clean=False)
    yield name, inspect.cleandoc(text).strip() if text else ""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return  # a function's inner functions are nobody's interface
    pending: list[ast.AST] = list(node.body)
    while pending:
        child = pending.pop(0)
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if not child.name.startswith("_") or child.name == "__init__":
                yield from _of(child, f"{name}.{child.name}")
        elif isinstance(child, ast.If | ast.Try):
            pending = list(ast.iter_child_nodes(child)) + pending
