"""Finds operators and backends: a folder with an OPERATOR is one, a file `<name>_impl.py` in it is the other."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import inspect
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.cli import BadInput
from kernels.contract import Arrays, Backend, Block, Operator, Problem, Space

ROOT = Path(__file__).parent


def operators(extra: Sequence[Path | str] = ()) -> dict[str, Path]:
    """The folder of every operator by name: this package's own, then those of `extra` (folders outside the tree)."""
    for folder in extra:
        if not (Path(folder) / "__init__.py").is_file():
            raise BadInput(f"operator folder {folder}: no __init__.py in it")
    own = {folder.name: folder for folder in sorted(ROOT.iterdir()) if (folder / "reference.py").is_file()}
    return own | {folder.name: folder for folder in (Path(each).resolve() for each in extra)}


def operator(name: str, extra: Sequence[Path | str] = ()) -> Operator:
    """The operator called `name`. Raises BadInput, naming those there are."""
    known = operators(extra)
    if name not in known:
        raise BadInput(f"operator {name!r}: unknown; one of {', '.join(known)}")
    module = _import(known[name])
    found = getattr(module, "OPERATOR", None)
    if not isinstance(found, Operator):
        raise BadInput(f"{known[name] / '__init__.py'}: no OPERATOR in it; define one (see kernels/contract.py)")
    return dataclasses.replace(found, name=name, folder=str(known[name]))


def backends(of: Operator) -> list[str]:
    """Names of the operator's backends, without importing them."""
    return sorted(path.name.removesuffix("_impl.py") for path in Path(of.folder).glob("*_impl.py"))


def declared(of: Operator, name: str, constant: str) -> Any:
    """The literal that a backend's module assigns to `constant` (DEVICES, say), read without importing its libraries."""
    path = Path(of.folder) / f"{name}_impl.py"
    found = _literals(path, path.stat().st_mtime_ns)
    if constant not in found:
        raise BadInput(f"{path}: no {constant}; a backend declares it (see kernels/contract.py)")
    return found[constant]


@functools.cache
def _literals(path: Path, changed: int) -> dict[str, Any]:
    """The constants of a file that are literals, as it was when it was `changed`."""
    found: dict[str, Any] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign):
            with contextlib.suppress(ValueError, TypeError):  # no literal
                found |= dict.fromkeys((each.id for each in node.targets if isinstance(each, ast.Name)), ast.literal_eval(node.value))
    return found


def space(of: Operator, name: str) -> Space:
    """The block space of a backend without importing its libraries: the constant of its upper-case name in `space.py`, if any."""
    module = f"{package(of).__name__}.space"
    if importlib.util.find_spec(module) is None:
        return Space()
    return getattr(importlib.import_module(module), name.upper(), Space())


def backend(of: Operator, name: str) -> Backend:
    """The backend called `name` of an operator. Raises BadInput, naming those there are; imports its libraries."""
    if name not in backends(of):
        raise BadInput(f"backend {name!r} of {of.name}: unknown; one of {', '.join(backends(of))}")
    module = importlib.import_module(f"{package(of).__name__}.{name}_impl")
    return Backend(name, module.ARRAYS, tuple(module.DEVICES), module.SPACE, module.run, module)


def outside(of: Operator, implementation: str) -> Backend:
    """A user's own function as a backend of `of`: `file.py:function`, called by the signature that its parameters match."""
    path, _, name = implementation.rpartition(":")
    if not path or not Path(path).is_file():
        raise BadInput(f"--impl {implementation}: no such file; write it as path/to/file.py:function")
    module = _load(Path(path).resolve(), f"impl_{Path(path).stem}")
    function = getattr(module, name, None)
    if not callable(function):
        raise BadInput(f"--impl {implementation}: no function {name} in {path}")
    parameters = tuple(inspect.signature(function).parameters)
    for signature in of.signatures:
        if parameters[: len(signature.parameters)] == signature.parameters:
            break
    else:
        known = "; ".join(f"{name}({', '.join(s.parameters)})" for s in of.signatures)
        raise BadInput(f"--impl {implementation}: parameters ({', '.join(parameters)}) fit none of: {known or 'none'}")

    def run(problem: Problem, inputs: Arrays, block: Block) -> Arrays:
        return signature.call(function, problem, inputs)

    space = Space(rule=lambda problem, block: signature.accepts(problem))
    return Backend(f"{Path(path).stem}:{name}", "numpy", ("cpu", "cuda"), space, run, module)


def package(of: Operator) -> types.ModuleType:
    """The operator's package itself."""
    return _import(Path(of.folder))


def _import(folder: Path) -> types.ModuleType:
    """Import an operator's folder as a package: `kernels.<name>` for our own, by its path for one outside the tree."""
    if folder.parent == ROOT:
        return importlib.import_module(f"kernels.{folder.name}")
    return _load(folder / "__init__.py", f"operators_{folder.name}", [str(folder)])


def _load(path: Path, name: str, submodules: list[str] | None = None) -> types.ModuleType:
    if name in sys.modules and getattr(sys.modules[name], "__file__", None) == str(path):
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=submodules)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    for stale in [loaded for loaded in sys.modules if loaded.startswith(f"{name}.")]:
        del sys.modules[stale]  # modules of another folder of this name
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]  # the next import must fail as well, not find half a module
        raise
    return module
