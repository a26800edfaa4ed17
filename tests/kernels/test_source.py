"""The digest of a backend's source: changes with what it computes, and with nothing else."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from kernels import registry
from kernels.source import digest, generator_digest
from tests.kernels.tiny import SOFTMAX, copy_softmax


def of(folder: Path, backend: str = "numpy") -> str:
    return digest(registry.backend(registry.operator("softmax", [folder]), backend))


def test_a_copy_elsewhere_has_the_same_digest(tmp_path: Path):
    assert of(copy_softmax(tmp_path)) == of(SOFTMAX)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        pytest.param("numpy_impl.py", 'x = inputs["x"]\n', 'x = inputs["x"]  # the rows\n', id="comment"),
        pytest.param("numpy_impl.py", '"""float32 on the CPU', '"""Single precision on the CPU', id="module-docstring"),
        pytest.param("numpy_impl.py", "-> Arrays:\n", '-> Arrays:\n    """Softmax."""\n', id="function-docstring"),
        pytest.param("numpy_impl.py", "range(0, len(x), block", "range(\n        0, len(x), block", id="formatting"),
        pytest.param("space.py", '(64, 1024)}, default={"ROWS": 64}', '(32, 64)}, default={"ROWS": 32}', id="block-space"),
        pytest.param("torch_impl.py", "dim=1", "dim=-1", id="another-backend"),
    ],
)
def test_what_computes_the_same_has_the_same_digest(tmp_path: Path, file: str, old: str, new: str):
    assert of(copy_softmax(tmp_path, {file: (old, new)})) == of(SOFTMAX)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        pytest.param("numpy_impl.py", "keepdims=True), out", "keepdims=True) * 1, out", id="arithmetic"),
        pytest.param("numpy_impl.py", "np.empty_like(x)", "np.zeros_like(x)", id="a-call"),
        pytest.param("numpy_impl.py", 'block["ROWS"])', 'block["ROWS"] * 2)', id="use-of-the-block"),
    ],
)
def test_what_computes_otherwise_has_another_digest(tmp_path: Path, file: str, old: str, new: str):
    assert of(copy_softmax(tmp_path, {file: (old, new)})) != of(SOFTMAX)


def test_a_kernels_arithmetic_counts(tmp_path: Path):
    edited = copy_softmax(tmp_path, {"triton_impl.py": ("tl.exp(x - top) / scale", "tl.exp(x - top) * (1 / scale)")})
    assert of(edited, "triton") != of(SOFTMAX, "triton")
    assert of(edited, "numpy") == of(SOFTMAX, "numpy")


def test_backends_of_one_operator_differ():
    found = [of(SOFTMAX, name) for name in ("numpy", "torch", "triton")]
    assert len(set(found)) == 3


@pytest.mark.parametrize("levels", [1, 2], ids=["imported", "imported-by-an-import"])
def test_an_imported_module_of_the_project_counts(tmp_path: Path, levels: int):
    chain = [f"import_{number}" for number in range(levels)]
    files = {name: f"from . import {after}\n" for name, after in itertools.pairwise(chain)} | {chain[-1]: "TWO = 2\n"}
    edits = {"numpy_impl.py": ("import numpy as np\n", f"import numpy as np\n\nfrom . import {chain[0]}\n")}
    folder = copy_softmax(tmp_path, edits, **files)
    before = of(folder)
    (folder / f"{chain[-1]}.py").write_text("TWO = 3\n")
    assert of(folder) != before


@pytest.mark.parametrize("backend", ["numpy", "torch", "triton", "cupy"])
def test_every_backend_of_ours_has_a_digest_of_its_own(backend: str):
    operator = registry.operator("knn")
    others = [digest(registry.backend(operator, name)) for name in registry.backends(operator) if name != backend]
    assert digest(registry.backend(operator, backend)) not in others


def test_the_generators_digest_is_that_of_what_makes_the_inputs(tmp_path: Path):
    inputs = """def inputs(problem, rng):
    return {"x": rng.random((problem.rows, problem.columns), "f") FACTOR
    }


OPERATOR = Operator(
    inputs=inputs,"""
    found = [generator_digest(registry.operator("softmax", [SOFTMAX]))]
    for number, factor in enumerate(("", "* 2", "* 2  # doubled")):
        folder = tmp_path / str(number)
        folder.mkdir()
        copied = copy_softmax(folder, {"__init__.py": ("OPERATOR = Operator(", inputs.replace("FACTOR", factor))})
        found.append(generator_digest(registry.operator("softmax", [copied])))
    assert len(set(found)) == 3
    assert found[2] == found[3]
