"""The project's files behind a module, read from its source."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from analysis.modules import ROOT, closure, imported, locate


def names(files: list[Path]) -> set[str]:
    return {str(file.relative_to(ROOT)) for file in files}


@pytest.mark.parametrize(
    ("module", "file"),
    [
        ("kernels.sweep", "kernels/sweep.py"),
        ("kernels.knn", "kernels/knn/__init__.py"),
        ("kernels.knn.peers", "kernels/knn/peers.py"),
        ("kernels.absent", None),
        ("numpy.random", None),
    ],
)
def test_a_module_is_located_in_the_project_alone(module: str, file: str | None):
    assert locate(module) == (ROOT / file if file else None)


@pytest.mark.parametrize("module", ["kernels.sweep", "kernels.bench", "kernels.tune", "kernels.validate", "analysis.records"])
def test_whatever_running_a_module_imports_of_the_project_is_in_its_closure(module: str):
    script = f"import sys, {module}; print(*(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] in ('analysis', 'kernels')))"
    loaded = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    found = names(closure(ROOT / f"{module.replace('.', '/')}.py"))
    packages = {"analysis/__init__.py", "kernels/__init__.py"}  # empty, and run before anything in them
    assert {str(Path(file).relative_to(ROOT)) for file in loaded} - packages <= found


def test_a_closure_has_what_functions_import_too():
    assert "kernels/cross.py" in names(closure(ROOT / "kernels" / "job.py"))  # imported inside Job.prepared


def test_a_backend_does_not_depend_on_another():
    found = names(closure(ROOT / "kernels" / "knn" / "triton_impl.py"))
    assert {"kernels/packing/__init__.py", "kernels/distance/triton_metric.py", "kernels/knn/__init__.py"} <= found
    assert not found & {"kernels/knn/cupy_impl.py", "kernels/knn/torch_impl.py", "kernels/sweep.py"}


def tree(folder: Path) -> Path:
    """A package outside the project whose modules import each other in every relative way, in a circle; its start."""
    for name, text in {
        "__init__.py": "",
        "start.py": "from . import plain\nfrom .below import thing\nfrom .below.deep import other\nimport numpy.linalg as la\n",
        "plain.py": "def late():\n    from .start import nothing\n",
        "unused.py": "",
        "below/__init__.py": "from ..shared import x\n",
        "below/thing.py": "",
        "below/deep.py": "from .. import hidden\n",
        "shared.py": "",
        "hidden.py": "from xml.dom import minidom\n",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "start.py"


def test_relative_imports_are_followed_and_circles_end(tmp_path: Path):
    found = {str(file.relative_to(tmp_path)) for file in closure(tree(tmp_path))}
    assert found == {
        "__init__.py",
        "start.py",
        "plain.py",
        "below/__init__.py",
        "below/thing.py",
        "below/deep.py",
        "shared.py",
        "hidden.py",
    }


@pytest.mark.parametrize(
    ("skip", "gone"),
    [
        pytest.param({"hidden.py"}, {"hidden.py"}, id="by-name"),
        pytest.param({"deep.py"}, {"below/deep.py", "hidden.py"}, id="with-what-only-it-imports"),
    ],
)
def test_skipped_files_are_left_out(tmp_path: Path, skip: set[str], gone: set[str]):
    start = tree(tmp_path)
    assert set(closure(start)) - set(closure(start, skip)) == {tmp_path / name for name in gone}


def test_the_start_itself_is_never_skipped():
    start = ROOT / "kernels" / "knn" / "peers.py"
    assert start in closure(start, {"peers.py"})


def test_a_file_is_skipped_by_its_path_from_the_root():
    start = ROOT / "kernels" / "registry.py"
    gone = names(closure(start)) - names(closure(start, {"kernels/contract.py"}))
    assert "kernels/contract.py" in gone and "kernels/registry.py" not in gone


def test_imported_names_are_those_of_absolute_imports(tmp_path: Path):
    start = tree(tmp_path)
    assert imported(start) == {"numpy"}
    assert imported(tmp_path / "hidden.py") == {"xml"}
    assert imported(tmp_path / "plain.py") == set()
