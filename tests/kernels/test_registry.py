"""Finding operators, backends and functions from outside, and the commands that take such a function."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from analysis.cli import BadInput
from analysis.records import read_parquet
from kernels import registry
from kernels.knn import Knn
from tests.commands import one_line, run_module
from tests.kernels.tiny import CONFIG, SOFTMAX, copy_softmax

OUR_KNN = '''
import numpy as np


def our_knn(N, D, A, X, K):
    """The course's signature, in plain NumPy; ids -1 where there are fewer than K rows."""
    distances = np.sqrt(((A.astype(np.float64) - X) ** 2).sum(axis=1))
    ids = np.argsort(distances, kind="stable")[:K]
    return np.concatenate([ids, np.full(K - len(ids), -1)]) + SHIFT * (len(ids) > 0)
'''


@pytest.fixture
def knn_config(tmp_path: Path) -> Path:
    problems = [{"metric": ["l2", "dot"], "q": 3, "n": 200, "d": 8, "k": 5}]
    bench = {"small": {"operator": "knn", "problems": problems, "backends": ["numpy"], "figure": "scaling", "against": "n"}}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, "operators": [], "sweep": {}, "bench": bench}))
    return path


def written(folder: Path, shift: int) -> str:
    """A file with our_knn in it, whose ids are off by `shift`; as --impl takes it."""
    path = folder / "mine.py"
    path.write_text(OUR_KNN.replace("SHIFT", str(shift)))
    return f"{path}:our_knn"


@pytest.mark.parametrize("name", ["distance", "knn"])
def test_the_projects_own_operators_are_found(name: str):
    operator = registry.operator(name)
    assert operator.name == name
    assert {"numpy", "torch", "triton", "cupy"} <= set(registry.backends(operator))


def test_an_unknown_operator_names_those_there_are():
    with pytest.raises(BadInput, match=r"^operator 'kmn': unknown; one of .*distance, .*knn"):
        registry.operator("kmn")


def test_an_unknown_backend_names_those_there_are():
    with pytest.raises(BadInput, match=r"^backend 'cuda' of knn: unknown; one of cupy, numpy, torch, triton$"):
        registry.backend(registry.operator("knn"), "cuda")


def test_a_folder_outside_the_tree_is_an_operator():
    operator = registry.operator("softmax", [SOFTMAX])
    backend = registry.backend(operator, "numpy")
    problem = operator.problem.parse({"rows": 3, "columns": 5}, "here")
    inputs = operator.make_inputs(problem, 1)
    assert operator.compare(problem, inputs, backend.run(problem, inputs, {"ROWS": 2}), operator.oracle(problem, inputs)).ok


def test_the_operator_is_named_by_its_folder_whatever_the_file_was_copied_from(tmp_path: Path):
    folder = copy_softmax(tmp_path).rename(tmp_path / "mine")
    assert registry.operator("mine", [folder]).name == "mine"


def test_two_folders_of_one_name_do_not_share_modules(tmp_path: Path):
    registry.backend(registry.operator("softmax", [SOFTMAX]), "numpy")
    copied = copy_softmax(tmp_path, {"numpy_impl.py": ('DEVICES = ("cpu",)', 'DEVICES = ("cuda",)')})
    assert registry.backend(registry.operator("softmax", [copied]), "numpy").devices == ("cuda",)
    assert registry.backend(registry.operator("softmax", [SOFTMAX]), "numpy").devices == ("cpu",)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param({}, "no __init__.py in it", id="no-package"),
        pytest.param({"__init__.py": ""}, "no OPERATOR in it", id="no-operator"),
    ],
)
def test_a_folder_that_is_no_operator_is_refused(tmp_path: Path, files: dict[str, str], message: str):
    folder = tmp_path / "empty"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    with pytest.raises(BadInput, match=f"{folder}.*{message}"):
        registry.operator("empty", [folder])


def test_a_module_that_failed_to_load_fails_the_next_time_too(tmp_path: Path):
    folder = copy_softmax(tmp_path, {"__init__.py": ("EPSILON = float(", "EPSILON = undefined(")})
    for _ in range(2):
        with pytest.raises(NameError, match="undefined"):
            registry.operator("softmax", [folder])


def test_devices_are_read_without_importing_the_backends_libraries(tmp_path: Path):
    folder = copy_softmax(tmp_path, exotic_impl='import a_library_nobody_has\nDEVICES = ("cuda",)\nARRAYS = "torch"\n')
    operator = registry.operator("softmax", [folder])
    assert registry.declared(operator, "exotic", "DEVICES") == ("cuda",)
    with pytest.raises(BadInput, match=r"exotic_impl\.py: no SPACE; a backend declares it"):
        registry.declared(operator, "exotic", "SPACE")


def test_a_function_of_the_courses_signature_is_a_backend_for_l2_alone(tmp_path: Path):
    operator = registry.operator("knn")
    backend = registry.outside(operator, written(tmp_path, 0))
    assert backend.name == "mine:our_knn"
    assert backend.space.rule(Knn(n=5, d=2, k=5), {}) is None
    assert "does not define k = 6 of n = 5" in str(backend.space.rule(Knn(n=5, d=2, k=6), {}))
    assert "no metric" in str(backend.space.rule(Knn(n=5, d=2, metric="dot"), {}))
    inputs = {"queries": np.array([[0, 0], [9, 9]], "f"), "collection": np.array([[8, 8], [1, 1], [0, 1]], "f")}
    assert backend.run(Knn(q=2, n=3, d=2, k=2), inputs, {})["ids"].tolist() == [[2, 1], [0, 1]]


@pytest.mark.parametrize(
    ("implementation", "message"),
    [
        pytest.param("nowhere.py:our_knn", "no such file; write it as path/to/file.py:function", id="no-file"),
        pytest.param("our_knn", "no such file; write it as path/to/file.py:function", id="no-colon"),
        pytest.param("{path}", "no such file; write it as path/to/file.py:function", id="no-function-named"),
        pytest.param("{path}:your_knn", "no function your_knn in", id="no-such-function"),
        pytest.param("{path}:np", "no function np in", id="not-a-function"),
        pytest.param(
            "{path}:strange",
            r"parameters \(a, b\) fit none of: strange\(queries, collection, k, metric\); strange\(N, D, A, X, K\)",
            id="strange",
        ),
    ],
)
def test_what_names_no_function_is_refused(tmp_path: Path, implementation: str, message: str):
    path = tmp_path / "mine.py"
    path.write_text(OUR_KNN + "\n\ndef strange(a, b):\n    return a\n")
    with pytest.raises(BadInput, match=message):
        registry.outside(registry.operator("knn"), implementation.format(path=path))


def test_the_command_says_so_in_one_line(knn_config: Path):
    words = ("kernels.validate", "--config", knn_config, "--operator", "knn", "--device", "cpu")
    line = one_line(run_module(*words, "--impl", "nowhere.py:our_knn"))
    assert line == "error: --impl nowhere.py:our_knn: no such file; write it as path/to/file.py:function"


def test_a_right_function_from_outside_passes_validation(tmp_path: Path, knn_config: Path):
    words = ("kernels.validate", "--config", knn_config, "--operator", "knn", "--device", "cpu")
    done = run_module(*words, "--impl", written(tmp_path, 0), "--out", tmp_path / "v.parquet")
    assert done.returncode == 0, done
    rows = read_parquet(tmp_path / "v.parquet")
    assert len(rows) > 5
    assert rows.ok.all()
    assert set(rows["mode"]) == {"native"}


def test_a_function_from_outside_that_is_off_by_one_id_is_found_wrong(tmp_path: Path, knn_config: Path):
    words = ("kernels.validate", "--config", knn_config, "--operator", "knn", "--device", "cpu")
    done = run_module(*words, "--impl", written(tmp_path, 1), "--out", tmp_path / "v.parquet")
    assert done.returncode == 1, done
    assert "wrong: knn mine:our_knn" in done.stderr
    assert not (tmp_path / "v.parquet").exists()
    rows = read_parquet(tmp_path / "v.failed.parquet")
    # an empty collection has no ids to be wrong, and of equal rows any is right
    assert rows.ok.tolist() == ['"n": 0' in problem or '"constant"' in problem for problem in rows.problem]


def test_a_function_from_outside_is_measured_beside_ours_where_it_can_be_asked(tmp_path: Path, knn_config: Path):
    words = ("kernels.bench", "--config", knn_config, "--experiment", "small", "--device", "cpu", "--journal", tmp_path / "journal")
    done = run_module(*words, "--out", tmp_path / "small.cpu.parquet", "--impl", written(tmp_path, 0))
    assert done.returncode == 0, done
    rows = read_parquet(tmp_path / "small.cpu.parquet")
    mine = rows[rows.backend == "mine:our_knn"]
    assert len(mine) == 1  # of the two metrics, l2
    assert mine.error.item() <= 1
    assert len(mine.samples_ms.item()) == CONFIG["samples"]
    assert len(rows[(rows.backend == "numpy") & (rows.status == "measured")]) == 2
