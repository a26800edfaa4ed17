"""The project's own files behind a module: what it imports, and what those import, read from the source without running it."""

from __future__ import annotations

import ast
import functools
from collections.abc import Container
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("analysis", "kernels", "rag", "cluster")


def locate(module: str) -> Path | None:
    """The project's file of an absolute module name, or None for somebody else's."""
    if module.split(".")[0] not in PACKAGES:
        return None
    path = ROOT.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def closure(start: Path, skip: Container[str] = ()) -> list[Path]:
    """`start` and the project's files that it imports, directly or not, sorted; files named in `skip` (by name or by their
    path from the root) are left out with what only they import."""
    start = start.resolve()
    seen: set[Path] = set()
    todo = [start]
    while todo:
        path = todo.pop()
        inside = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
        if path not in seen and (path == start or (path.name not in skip and inside not in skip)):
            seen.add(path)
            todo += _imports(path)
    return sorted(seen)


@functools.cache
def _imports(path: Path) -> list[Path]:
    """The project's files that `path` imports by any import statement in it, in functions too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [locate(alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            folder = path.parents[node.level - 1]
            base = folder.joinpath(*(node.module or "").split(".")) if node.module else folder
            found += [_file(base), *(_file(base / alias.name) for alias in node.names)]
        elif isinstance(node, ast.ImportFrom):
            found += [locate(node.module or ""), *(locate(f"{node.module}.{alias.name}") for alias in node.names)]
    return [file for file in found if file]


def imported(path: Path) -> set[str]:
    """Top-level names of the modules, whoever's, that the file `path` imports by absolute names, in functions too."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    return {name.split(".")[0] for name in names}


def _file(path: Path) -> Path | None:
    return next((file.resolve() for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)
