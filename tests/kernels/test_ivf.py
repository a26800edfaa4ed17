"""The inverted file against the definition and scikit-learn: search, recall, building, files, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import pairwise_distances

from analysis.cli import BadInput
from kernels import registry
from kernels.contract import Arrays
from kernels.ivf import OPERATOR, Index, Ivf, build, load, our_ann, recall
from kernels.ivf.index import SCHEMA
from kernels.ivf.space import CUPY, TRITON
from kernels.knn import knn
from kernels.metrics import METRICS, Metric
from tests.commands import run_module, run_python
from tests.kernels.neighbours import SPOILED, answer
from tests.needs import require

LIBRARIES = pytest.mark.parametrize("library", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])


def clustered(n: int, d: int, centres: int, seed: int = 0) -> np.ndarray:
    """Rows around centres from N(0, 1), the same for every seed."""
    rng = np.random.default_rng(seed)
    middle = np.random.default_rng(1000).standard_normal((centres, d), dtype=np.float32)
    return middle[rng.integers(centres, size=n)] + np.float32(0.6) * rng.standard_normal((n, d), dtype=np.float32)


def independent(problem: Ivf, inputs: Arrays) -> list[list[tuple[float, int]]]:
    """(distance, id) of what each query finds, nearest first, by scikit-learn's distances in float64 and a sort of tuples."""
    name = {"l2": "euclidean", "l1": "manhattan", "cosine": "cosine"}.get(problem.metric)
    queries, centroids, rows = (inputs[each].astype(np.float64) for each in ("queries", "centroids", "rows"))

    def keys(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return pairwise_distances(x, y, metric=name) if name else -(x @ y.T)

    to_lists, to_rows = keys(queries, centroids), keys(queries, rows)
    answers = []
    for lists, distances in zip(to_lists, to_rows, strict=True):
        probed = sorted(range(problem.lists), key=lambda each: (lists[each], each))[: problem.nprobe]
        positions = [at for each in probed for at in range(inputs["offsets"][each], inputs["offsets"][each + 1])]
        found = sorted((distances[at], int(inputs["ids"][at])) for at in positions)[: problem.k]
        answers.append(found)
    return answers


@pytest.mark.parametrize("metric", METRICS)
def test_reference_agrees_with_scikit_learn(metric: Metric) -> None:
    problem = Ivf(metric=metric, q=7, n=200, d=6, k=40, lists=9, nprobe=2)
    inputs = OPERATOR.make_inputs(problem, 0)
    found = OPERATOR.oracle(problem, inputs)
    for distances, ids, true in zip(found["distances"], found["ids"], independent(problem, inputs), strict=True):
        assert ids[: len(true)].tolist() == [each for _, each in true]
        keys = -distances if metric == "dot" else distances
        np.testing.assert_allclose(keys[: len(true)], [key for key, _ in true], rtol=1e-7)
        assert (ids[len(true) :] == -1).all() and (keys[len(true) :] == np.inf).all()


@pytest.mark.parametrize("name", ["numpy", "torch"])
@pytest.mark.parametrize("problem", OPERATOR.awkward, ids=str)
def test_cpu_backends_on_awkward_problems(name: str, problem: Ivf) -> None:
    backend = registry.backend(registry.operator("ivf"), name)
    inputs = OPERATOR.make_inputs(problem, 3)
    expected = OPERATOR.oracle(problem, inputs)
    placed = {key: torch.from_numpy(array) for key, array in inputs.items()} if name == "torch" else inputs
    for block in (dict.fromkeys(backend.space.axes, 7), dict(backend.space.default)):
        outputs = {key: np.asarray(array) for key, array in backend.run(problem, placed, block).items()}
        verdict = OPERATOR.compare(problem, inputs, outputs, expected)
        assert verdict.ok, verdict


def test_triton_in_the_interpreter() -> None:
    done = run_module("tests.kernels.interpret", "ivf", TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stdout + done.stderr


COMPILED = """
from kernels import registry
from kernels.arrays import meta
from kernels.cross import compiling
from kernels.ivf import Ivf
from kernels.resources import of_triton

operator = registry.operator("ivf")
backend = registry.backend(operator, "triton")
for problem in (Ivf(q=99, n=9999, d=64, lists=64), Ivf(q=99, n=9999, d=320, lists=64), Ivf(q=1, n=9999, d=64, lists=64, nprobe=4)):
    with compiling(90) as compiled:
        backend.run(problem, meta(operator.shapes(problem)), dict(backend.space.default))
    for each in compiled:
        words = ("wgmma.mma_async", "cp.async", "ld.global.v4")
        print(each.name, of_triton(each.kernel, 90).spills, *(int(word in each.kernel.asm["ptx"]) for word in words))
"""


def test_triton_compiles_to_wide_loads_and_tensor_cores() -> None:
    done = run_python("-c", COMPILED)
    assert done.returncode == 0, done
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines[-2:]] == ["ivf_few_lists", "ivf_few_rows"] and len(lines) == 12
    for name, spills, products, copies, wide in lines:
        assert int(spills) < 32
        assert (products == copies == "1") == name.endswith("_bounds")
        assert wide == "1" or name == "ivf_starts"


@pytest.mark.parametrize("architecture", ["sm_75", "sm_90"])
def test_cuda_sources_compile_without_a_gpu(architecture: str) -> None:
    pytest.importorskip("cupy")
    from kernels.cuda import compile_cubin

    backend = registry.backend(registry.operator("ivf"), "cupy")
    for problem in (Ivf(q=5, n=99, d=8, lists=4), Ivf(metric="cosine", q=5, n=9999, d=3, k=3000, lists=4)):
        for source in backend.module.sources(problem, dict(backend.space.default)):
            _, report = compile_cubin(source, architecture)
            assert set(report) == set(source.kernels) and all(used["spills"] == 0 for used in report.values())


@pytest.mark.parametrize("name", ["torch", "triton", "cupy"])
def test_gpu_backends_on_awkward_problems(name: str) -> None:
    require("gpu")
    from tests.kernels.gpu import check_awkward

    check_awkward("ivf", name)


def test_search_on_a_gpu_is_the_same_when_it_is_replayed() -> None:
    require("gpu")
    rows, queries = (torch.from_numpy(clustered(count, 32, 40, seed=count)).cuda() for count in (20000, 12))
    index = build(rows, 64)
    for batch in (queries[:1], queries):
        answers = [index.search(batch, 10, 8) for _ in range(5)]
        assert all(torch.equal(ids, answers[0][1]) for _, ids in answers)
        assert torch.equal(index.search(batch.flip(0), 10, 8)[1].flip(0), answers[0][1])


@LIBRARIES
@settings(max_examples=20, deadline=None)
@given(q=st.integers(1, 9), n=st.integers(1, 80), d=st.integers(1, 20), k=st.integers(1, 12), seed=st.integers(0, 99), data=st.data())
def test_any_index_gives_what_its_lists_hold(library, q: int, n: int, d: int, k: int, seed: int, data) -> None:
    lists, metric = data.draw(st.integers(1, min(n, 9)), label="lists"), data.draw(st.sampled_from(METRICS), label="metric")
    nprobe = data.draw(st.integers(1, lists), label="nprobe")
    index = build(library(clustered(n, d, 5, seed)), lists, metric, iterations=2)
    queries = clustered(q, d, 5, seed + 100)
    distances, ids = (np.asarray(array) for array in index.search(library(queries), k, nprobe))
    problem = Ivf(metric=metric, q=q, n=n, d=d, k=k, lists=lists, nprobe=nprobe)
    inputs = {"queries": queries, **{name: np.asarray(getattr(index, name)) for name in ("centroids", "rows", "ids", "offsets")}}
    verdict = OPERATOR.compare(problem, inputs, {"distances": distances, "ids": ids}, OPERATOR.oracle(problem, inputs))
    assert verdict.ok, verdict
    assert distances.dtype == np.float32 and ids.dtype == np.int64


@LIBRARIES
@pytest.mark.parametrize("metric", METRICS)
def test_recall_is_high_on_clustered_data_and_one_with_all_lists(library, metric: str) -> None:
    rows, queries = library(clustered(6000, 24, 60)), library(clustered(80, 24, 60, seed=1))
    index, true = build(rows, 48, metric), knn(queries, rows, 10, metric)[1]
    found = [recall(index.search(queries, 10, nprobe)[1], true) for nprobe in (1, 2, 4, 48)]
    assert found[0] > 0.7 and found == sorted(found)
    assert found[-1] == 1.0


@LIBRARIES
@pytest.mark.parametrize("metric", METRICS)
def test_an_index_holds_each_row_once_and_near_its_centroid(library, metric: str) -> None:
    rows = clustered(900, 7, 20)
    index = build(library(rows), 20, metric, iterations=50)
    ids, offsets, centroids = (np.asarray(getattr(index, name)) for name in ("ids", "offsets", "centroids"))
    assert sorted(ids.tolist()) == list(range(900))
    np.testing.assert_array_equal(np.asarray(index.rows), rows[ids])
    assert offsets[0] == 0 and offsets[-1] == 900 and (np.diff(offsets) >= 0).all()
    scaled = rows / np.linalg.norm(rows, axis=1, keepdims=True) if metric == "cosine" else rows
    for number, centroid in enumerate(centroids):
        members = scaled[ids[offsets[number] : offsets[number + 1]]]
        assert (np.diff(ids[offsets[number] : offsets[number + 1]]) > 0).all()
        if len(members):
            mean = members.astype(np.float64).mean(axis=0)
            np.testing.assert_allclose(centroid, mean / np.linalg.norm(mean) if metric == "cosine" else mean, atol=1e-5)
    labels = np.repeat(np.arange(20), np.diff(offsets))
    nearest = pairwise_distances(rows, centroids, metric="cosine" if metric == "cosine" else "euclidean").argmin(axis=1)
    assert (nearest[ids] == labels).mean() > 0.98  # centroids have moved once more since rows were given to lists


def test_the_seed_decides_the_index() -> None:
    rows = clustered(500, 5, 9)
    first, same, other = (build(rows, 8, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.centroids, same.centroids)
    assert not np.array_equal(first.centroids, other.centroids)


@LIBRARIES
def test_rows_that_are_not_finite_lie_in_the_first_list_and_come_last(library) -> None:
    rows = clustered(300, 6, 10)
    rows[::50, 1], rows[7, 0] = np.nan, np.inf
    index = build(library(rows), 6)
    assert set(np.asarray(index.ids)[: int(index.offsets[1])]) >= {0, 7, 50, 100, 150, 200, 250}
    assert np.isfinite(np.asarray(index.centroids)).all()
    distances, ids = (np.asarray(array) for array in index.search(library(clustered(2, 6, 10, seed=5)), 300, 6))
    assert all(set(row[293:]) == {0, 7, 50, 100, 150, 200, 250} for row in ids)
    assert np.isfinite(distances[:, :293]).all() and np.isinf(distances[:, 293:]).all()


@LIBRARIES
@pytest.mark.parametrize(("metric", "far"), [("l2", np.inf), ("l1", np.inf), ("cosine", np.inf), ("dot", -np.inf)])
@pytest.mark.parametrize("q", [2, 9])
def test_lists_that_hold_too_few_rows_are_padded(library, metric: str, far: float, q: int) -> None:
    index = build(library(clustered(40, 4, 8)), 8, metric)
    distances, ids = (np.asarray(array) for array in index.search(library(clustered(q, 4, 8, seed=1)), 40, 1))
    sizes = set(np.diff(np.asarray(index.offsets)).tolist())
    for row, found in zip(ids, distances, strict=True):
        real = int((row >= 0).sum())
        assert real in sizes and (row[real:] == -1).all() and (found[real:] == far).all()
        assert np.isfinite(found[:real]).all()


@LIBRARIES
@pytest.mark.parametrize("q", [1, 9])
def test_ties_come_by_the_smaller_id_and_the_smaller_list(library, q: int) -> None:
    rows = np.repeat(np.rint(4 * clustered(6, 3, 6)), 20, axis=0)
    order = np.random.default_rng(1).permutation(120)
    index = Index(
        "l2",
        library(np.zeros((4, 3), np.float32)),
        library(rows[order]),
        library(order.astype(np.int64)),
        library(np.array([0, 30, 30, 80, 120])),
    )
    queries = np.rint(4 * clustered(q, 3, 6, seed=2))
    _, ids = index.search(library(queries), 25, 3)
    for query, found in zip(queries, np.asarray(ids), strict=True):
        distances = ((rows[order[:80]].astype(np.float64) - query) ** 2).sum(axis=1)
        assert found.tolist() == [each for _, each in sorted(zip(distances, order[:80].tolist(), strict=True))][:25]


def test_one_query_as_a_vector_and_no_query() -> None:
    index = build(clustered(200, 5, 9), 10)
    distances, ids = index.search(clustered(1, 5, 9, seed=1)[0], 4, 3)
    assert distances.shape == ids.shape == (4,)
    np.testing.assert_array_equal(ids, index.search(clustered(1, 5, 9, seed=1), 4, 3)[1][0])
    assert index.search(np.empty((0, 5), np.float32), 4)[1].shape == (0, 4)


def test_input_that_is_not_contiguous() -> None:
    wide = clustered(300, 12, 9)
    index, straight = build(wide[10:, ::2], 8), build(np.ascontiguousarray(wide[10:, ::2]), 8)
    np.testing.assert_array_equal(index.rows, straight.rows)
    np.testing.assert_array_equal(index.search(wide[:10, ::2], 3)[1], straight.search(np.ascontiguousarray(wide[:10, ::2]), 3)[1])


@pytest.mark.parametrize("d", [2, 8, 64])
def test_course_signature_finds_enough_in_data_without_clusters(d: int) -> None:
    rng = np.random.default_rng(d)
    rows, queries = rng.standard_normal((1000, d)), rng.standard_normal((20, d))
    found = np.stack([our_ann(1000, d, rows, query, 10) for query in queries])
    true = knn(queries.astype(np.float32), rows.astype(np.float32), 10)[1]
    assert recall(found, true) > 0.9
    with pytest.raises(BadInput, match=rf"A: shape \[1000, {d}\], but N = 999 and D = {d}"):
        our_ann(999, d, rows, queries[0], 1)


def test_recall_counts_what_is_found_and_not_padding() -> None:
    assert recall(np.array([[1, 2, 3], [4, 5, 6]]), torch.tensor([[3, 2, 9], [7, 8, -1]])) == pytest.approx(2 / 5)
    assert recall(np.array([5, 6]), np.array([6, 7])) == 0.5
    assert recall(np.array([[1], [2]]), np.array([[-1], [-1]])) == 1.0
    with pytest.raises(BadInput, match=r"found_ids: shape \[1, 2\] does not go with true_ids of shape \[2, 2\]"):
        recall(np.zeros((1, 2)), np.zeros((2, 2)))


@LIBRARIES
@pytest.mark.parametrize("metric", METRICS)
def test_a_saved_index_is_the_same_when_it_is_loaded(library, metric: str, tmp_path: Path) -> None:
    index = build(library(clustered(120, 5, 9)), 7, metric)
    path = tmp_path / "some.index"
    path.write_bytes(b"an older file")
    index.save(path)
    assert [each.name for each in tmp_path.iterdir()] == ["some.index"]
    for device, kind in ((None, np.ndarray), ("cpu", torch.Tensor)):
        again = load(path, device)
        assert again.metric == metric and isinstance(again.rows, kind)
        for name in ("centroids", "rows", "ids", "offsets"):
            np.testing.assert_array_equal(np.asarray(getattr(again, name)), np.asarray(getattr(index, name)))


def written(path: Path, **changes: Any) -> None:
    """A saved index with some arrays replaced; None leaves one out."""
    build(clustered(30, 3, 4), 4).save(path)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files} | changes
    with path.open("wb") as out:
        np.savez(out, **{name: array for name, array in arrays.items() if array is not None})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"schema": np.array(SCHEMA + 1)}, f"schema {SCHEMA + 1}, and this version reads {SCHEMA}", id="newer-schema"),
        pytest.param({"kind": np.array("other")}, "not an index", id="another-kind"),
        pytest.param({"kind": None}, "not an index", id="no-kind"),
        pytest.param({"rows": None}, "rows is missing", id="array-missing"),
        pytest.param({"ids": np.arange(30, dtype=np.int32)}, "ids is missing, or not int64", id="dtype"),
        pytest.param({"ids": np.arange(29)}, "its ids or centroids do not go", id="too-few-ids"),
        pytest.param({"offsets": np.array([0, 5, 3, 9, 30])}, "its offsets do not go", id="offsets-fall"),
        pytest.param({"centroids": np.zeros((4, 2), np.float32)}, "its ids or centroids do not go", id="another-width"),
    ],
)
def test_a_file_that_is_no_index_of_this_version_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    written(path, **changes)
    with pytest.raises(BadInput) as refusal:
        load(path)
    assert str(refusal.value).startswith(f"{path}: {message}") and "\n" not in str(refusal.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"text", "cut", "flipped", "npy", "pickle", None])
def test_a_truncated_or_foreign_file_is_refused(content: bytes | str | None, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif content == "pickle":
        with path.open("wb") as file:
            np.savez(file, kind=np.array([{}], dtype=object))
    elif content is not None:
        build(clustered(30, 3, 4), 4).save(path)
        whole = bytearray(path.read_bytes())
        whole[len(whole) // 2] ^= 0xFF
        path.write_bytes(whole if content == "flipped" else whole[: len(whole) // 2])
    with pytest.raises(BadInput, match=rf"^{path}: "):
        load(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((4, 3)),), "collection: dtype float64"),
        ((np.zeros(3, np.float32),), r"collection: shape \[3\]"),
        ((np.zeros((0, 3), np.float32), 1), r"collection: shape \[0, 3\]"),
        ((np.zeros((4, 3), np.float32), 5), "lists: 5 is not a whole number from 1 to 4"),
        ((np.zeros((4, 3), np.float32), 0), "lists: 0 is not"),
        ((np.zeros((4, 3), np.float32), 1.5), "lists: 1.5 is not"),
        ((np.zeros((4, 3), np.float32), 2, "l3"), "metric: 'l3' is not one of"),
        ((np.full((4, 3), np.nan, np.float32), 2), "lists: 2, but of the 4 rows drawn from the collection only 0 are finite"),
    ],
)
def test_what_building_refuses(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        build(*arguments)


@pytest.mark.parametrize("options", [{"iterations": 0}, {"seed": -1}, {"sample": 2}, {"sample": 41}])
def test_options_of_building_are_checked(options: dict[str, int]) -> None:
    with pytest.raises(BadInput, match=f"^{next(iter(options))}: {next(iter(options.values()))} is not a whole number from"):
        build(clustered(40, 3, 4), 3, **options)


@pytest.mark.parametrize(
    ("queries", "k", "nprobe", "message"),
    [
        (np.zeros((2, 4), np.float32), 1, 1, r"queries: shape \[2, 4\]; give a vector \[3\] or rows \[Q, 3\]"),
        (np.zeros((2, 3), np.float16), 1, 1, "queries: dtype float16"),
        (torch.zeros(2, 3), 1, 1, "queries is on torch cpu and the index on numpy"),
        (np.zeros((2, 3), np.float32), 0, 1, "k: 0 is not a whole number of at least 1"),
        (np.zeros((2, 3), np.float32), 1, 5, "nprobe: 5 is not a whole number of at least 1 and at most 4"),
    ],
)
def test_what_searching_refuses(queries: Any, k: int, nprobe: int, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        build(clustered(30, 3, 4), 4).search(queries, k, nprobe)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"nprobe": 5}, "nprobe: 5 is more than the 4 lists"),
        ({"lists": 0}, "lists: 0 is less than 1"),
        ({"n": 1 << 31}, "more than 2\\^31 - 1"),
    ],
)
def test_problems_that_are_refused(fields: dict[str, int], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Ivf(**{"n": 9, "d": 2, "lists": 4, **fields})


@pytest.mark.parametrize("spoil", SPOILED)
@pytest.mark.parametrize("metric", METRICS)
def test_compare_finds_what_is_wrong(metric: Metric, spoil) -> None:
    problem = Ivf(metric=metric, q=2, n=60, d=6, k=5, lists=4, nprobe=2)
    inputs, expected, outputs = answer(OPERATOR, problem)
    assert OPERATOR.compare(problem, inputs, outputs, expected).ok
    spoil(outputs["ids"], outputs["distances"], problem.n)
    verdict = OPERATOR.compare(problem, inputs, outputs, expected)
    assert not verdict.ok and verdict.error > 1 and verdict.message


@pytest.mark.parametrize("k", [8, 40])
def test_compare_accepts_either_of_two_lists_that_tie_and_no_third(k: int) -> None:
    """The centroids of lists 1 and 2 are equally far; the oracle takes list 1. With k = 40 the answers are padded, and not alike."""
    problem = Ivf(q=1, n=30, d=2, k=k, lists=4, nprobe=2)
    centroids, offsets = np.array([[0, 1], [3, 0], [-3, 0], [9, 9]], np.float32), np.array([0, 4, 15, 21, 30])
    rows = np.repeat(centroids, np.diff(offsets), axis=0) + clustered(30, 2, 1) / 8
    inputs = {"queries": np.zeros((1, 2), np.float32), "centroids": centroids, "rows": rows, "ids": np.arange(30), "offsets": offsets}

    def of_lists(*lists: int) -> Arrays:
        at = np.concatenate([np.arange(offsets[each], offsets[each + 1]) for each in lists])
        distances = np.linalg.norm(rows[at].astype(np.float64), axis=1)
        order = np.argsort(distances)[:k]
        ids, found = np.full((1, k), -1), np.full((1, k), np.inf)
        ids[0, : len(order)], found[0, : len(order)] = at[order], distances[order]
        return {"ids": ids, "distances": found}

    expected = OPERATOR.oracle(problem, inputs)
    accepted = {lists: OPERATOR.compare(problem, inputs, of_lists(*lists), expected).ok for lists in ((0, 1), (0, 2), (0, 3), (1, 2))}
    assert accepted == {(0, 1): True, (0, 2): True, (0, 3): False, (1, 2): False}
    nearer = inputs | {"centroids": centroids * np.array([[1, 1], [1.01, 1], [1, 1], [1, 1]], np.float32)}  # list 1 is farther than list 2
    assert not OPERATOR.compare(problem, nearer, of_lists(0, 1), OPERATOR.oracle(problem, nearer)).ok


@pytest.mark.parametrize("problem", [Ivf(q=300, n=20000, d=64, k=5, lists=50, nprobe=2), Ivf(q=0, n=5, d=2, lists=1)], ids=str)
def test_part_of_a_large_problem_is_checked(problem: Ivf) -> None:
    assert OPERATOR.part is not None
    whole = OPERATOR.make_inputs(problem, 0)
    outputs = registry.backend(registry.operator("ivf"), "numpy").run(problem, whole, {"QUERIES": 256})
    smaller, inputs, some = OPERATOR.part(problem, whole, outputs)
    assert smaller.q == len(inputs["queries"]) == len(some["ids"]) and 0 <= smaller.q <= problem.q
    assert OPERATOR.compare(smaller, inputs, some, OPERATOR.oracle(smaller, inputs)).ok


@pytest.mark.parametrize("problem", OPERATOR.awkward[:15], ids=str)
def test_inputs_have_the_shapes_that_are_declared(problem: Ivf) -> None:
    inputs = OPERATOR.make_inputs(problem, 1)
    assert {name: (array.shape, str(array.dtype)) for name, array in inputs.items()} == OPERATOR.shapes(problem)
    assert sorted(inputs["ids"].tolist()) == list(range(problem.n))
    assert OPERATOR.cost(problem).bytes > 0 and OPERATOR.memory(problem).device > 0


def test_outside_functions_are_called_by_either_signature() -> None:
    problem = Ivf(q=3, n=400, d=4, k=5, lists=9, nprobe=3)
    inputs = OPERATOR.make_inputs(problem, 0)
    expected = OPERATOR.oracle(problem, inputs)
    native, course = OPERATOR.signatures

    def search(queries, centroids, rows, ids, offsets, k, nprobe, metric):
        return Index(metric, centroids, rows, ids, offsets).search(queries, k, nprobe)

    for outputs in (native.call(search, problem, inputs), course.call(our_ann, problem, inputs)):
        assert OPERATOR.compare(problem, inputs, outputs, expected).ok
    bad = course.call(lambda N, D, A, X, K: np.arange(K), problem, inputs)
    assert "recall" in OPERATOR.compare(problem, inputs, bad, expected).message
    assert course.accepts(problem) is None and "not dot" in str(course.accepts(replace(problem, metric="dot")))
    assert "does not define" in str(course.accepts(replace(problem, k=401)))


@pytest.mark.parametrize("space", [TRITON, CUPY], ids=["triton", "cupy"])
@pytest.mark.parametrize("q", [1, 99])
def test_default_block_is_valid_among_few(space, q: int) -> None:
    valid = [block for block, reason in space.blocks(Ivf(q=q, n=99, d=8, lists=9)) if reason is None]
    assert dict(space.default) in valid and len(valid) <= 40
