"""Nearest neighbours against scikit-learn and the definition: ties, padding, NaN, offsets, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from analysis.cli import BadInput
from kernels import packing, registry
from kernels.knn import OPERATOR, Knn, knn, knn_streamed, our_knn, peers, reference
from kernels.knn.space import CUPY, TRITON
from kernels.metrics import METRICS, Metric
from tests.kernels.neighbours import SPOILED, answer
from tests.needs import require

LIBRARIES = pytest.mark.parametrize("library", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def independent(queries: np.ndarray, collection: np.ndarray, k: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's neighbours in float64; the dot product, which it lacks, by sorting."""
    queries, collection = queries.astype(np.float64), collection.astype(np.float64)
    if metric == "dot":
        products = queries @ collection.T
        ids = np.argsort(-products, axis=1)[:, :k]
        return np.take_along_axis(products, ids, axis=1), ids
    name = {"l2": "euclidean", "l1": "manhattan", "cosine": "cosine"}[metric]
    return NearestNeighbors(n_neighbors=k, metric=name, algorithm="brute").fit(collection).kneighbors(queries)


@pytest.mark.parametrize("metric", METRICS)
def test_reference_agrees_with_scikit_learn(metric: str) -> None:
    queries, collection = normal(5, 8), normal(40, 8, seed=1)
    distances, ids = reference.knn(queries, collection, 7, metric)
    true_distances, true_ids = independent(queries, collection, 7, metric)
    np.testing.assert_array_equal(ids, true_ids)
    np.testing.assert_allclose(distances, true_distances, rtol=1e-7)


@pytest.mark.parametrize("name", ["numpy", "torch"])
@pytest.mark.parametrize("problem", OPERATOR.awkward, ids=str)
def test_cpu_backends_on_awkward_problems(name: str, problem: Knn) -> None:
    backend = registry.backend(registry.operator("knn"), name)
    inputs = OPERATOR.make_inputs(problem, 3)
    placed = {key: torch.from_numpy(array) for key, array in inputs.items()} if name == "torch" else inputs
    for rows in (7, backend.space.default["ROWS"]):
        outputs = {key: np.asarray(array) for key, array in backend.run(problem, placed, {"ROWS": rows}).items()}
        verdict = OPERATOR.compare(problem, inputs, outputs, OPERATOR.oracle(problem, inputs))
        assert verdict.ok, verdict


@LIBRARIES
@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=15, deadline=None)
@given(q=st.integers(1, 12), n=st.integers(1, 60), d=st.integers(2, 40), seed=st.integers(0, 99), data=st.data())
def test_any_shape_agrees_with_scikit_learn(library, metric: str, q: int, n: int, d: int, seed: int, data) -> None:
    k = data.draw(st.integers(1, n), label="k")
    queries, collection = normal(q, d, seed=seed), normal(n, d, seed=seed + 100)
    distances, ids = (np.asarray(array) for array in knn(library(queries), library(collection), k, metric))
    true_distances, _ = independent(queries, collection, k, metric)
    np.testing.assert_allclose(distances, true_distances, rtol=1e-4, atol=1e-5 * np.sqrt(d))
    assert distances.dtype == np.float32 and ids.dtype == np.int64
    assert all(len(set(row)) == k for row in ids.tolist())


@LIBRARIES
def test_offset_data_has_exact_l2_neighbours(library) -> None:
    queries, collection = (normal(count, 32, seed=count) + np.float32(1e4) for count in (6, 300))
    _, ids = knn(library(queries), library(collection), 10, "l2")
    np.testing.assert_array_equal(ids, independent(queries, collection, 10, "l2")[1])


@LIBRARIES
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("q", [1, 9])
def test_ties_come_by_the_smaller_id(library, metric: str, q: int) -> None:
    """Of whole numbers: of others a matrix product may round equal rows differently, by where they stand, and they are no ties."""
    collection = np.repeat(np.rint(8 * normal(4, 6)), 25, axis=0)[np.random.default_rng(2).permutation(100)]
    queries = np.rint(8 * normal(q, 6, seed=3))
    _, ids = knn(library(queries), library(collection), 30, metric)
    np.testing.assert_array_equal(ids, reference.knn(queries, collection, 30, metric)[1])


@LIBRARIES
@pytest.mark.parametrize(("metric", "far"), [("l2", np.inf), ("l1", np.inf), ("cosine", np.inf), ("dot", -np.inf)])
def test_more_neighbours_than_rows_are_padded(library, metric: str, far: float) -> None:
    distances, ids = knn(library(normal(2, 3)), library(normal(2, 3, seed=1)), 5, metric)
    np.testing.assert_array_equal(np.asarray(ids)[:, 2:], -1)
    np.testing.assert_array_equal(np.asarray(distances)[:, 2:], far)
    assert np.isfinite(np.asarray(distances)[:, :2]).all()


@LIBRARIES
@pytest.mark.parametrize("metric", METRICS)
def test_rows_with_nan_come_last(library, metric: str) -> None:
    collection = normal(20, 5)
    collection[::4, 2] = np.nan
    distances, ids = (np.asarray(array) for array in knn(library(normal(3, 5, seed=1)), library(collection), 20, metric))
    assert all(set(row[15:]) == {0, 4, 8, 12, 16} for row in ids)
    assert np.isfinite(distances[:, :15]).all() and np.isinf(distances[:, 15:]).all()


@LIBRARIES
def test_empty_inputs(library) -> None:
    distances, ids = knn(library(normal(0, 3)), library(normal(4, 3)), 2)
    assert tuple(distances.shape) == tuple(ids.shape) == (0, 2)
    distances, ids = knn(library(normal(2, 3)), library(normal(0, 3)), 2)
    assert (np.asarray(ids) == -1).all() and np.isinf(np.asarray(distances)).all()


def test_one_query_as_a_vector_and_course_signature() -> None:
    query, collection = normal(7), normal(50, 7, seed=1)
    distances, ids = knn(query, collection, 4)
    assert distances.shape == ids.shape == (4,)
    np.testing.assert_array_equal(our_knn(50, 7, collection.astype(np.float64), query.astype(np.float64), 4), ids)


def test_input_that_is_not_contiguous() -> None:
    wide = normal(60, 9)
    _, ids = knn(wide[:5, ::2], wide[5:, ::2], 3)
    np.testing.assert_array_equal(ids, independent(wide[:5, ::2], wide[5:, ::2], 3, "l2")[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((normal(2, 3), normal(4, 3), 0), "k: 0 is not"),
        ((normal(2, 3), normal(4, 3), 1.5), "k: 1.5 is not"),
        ((normal(2, 3), normal(4, 5), 1), r"queries: shape \[2, 3\] does not go with collection of shape \[4, 5\]"),
        ((normal(2, 3), normal(4, 3), 1, "l3"), "metric: 'l3' is not one of"),
        ((normal(2, 3), normal(4, 3).astype(np.float16), 1), "collection: dtype float16"),
        ((normal(3), normal(3), 1), r"collection: shape \[3\]"),
        ((normal(2, 3), torch.zeros(4, 3), 1), "queries is on numpy and collection on torch cpu"),
    ],
)
def test_what_is_refused(arguments, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        knn(*arguments)


def test_course_signature_checks_its_sizes() -> None:
    with pytest.raises(BadInput, match=r"A: shape \[4, 3\], but N = 5 and D = 3"):
        our_knn(5, 3, normal(4, 3), normal(3), 1)


@pytest.mark.parametrize("spoil", SPOILED)
@pytest.mark.parametrize("metric", METRICS)
def test_compare_finds_what_is_wrong(metric: Metric, spoil) -> None:
    problem = Knn(metric=metric, q=2, n=50, d=6, k=5)
    inputs, expected, outputs = answer(OPERATOR, problem)
    assert OPERATOR.compare(problem, inputs, outputs, expected).ok
    spoil(outputs["ids"], outputs["distances"], problem.n)
    verdict = OPERATOR.compare(problem, inputs, outputs, expected)
    assert not verdict.ok and verdict.error > 1 and verdict.message


def test_compare_accepts_another_order_of_ties_and_ids_alone() -> None:
    problem = Knn(q=1, n=40, d=3, k=20, data="duplicates")
    inputs, expected, outputs = answer(OPERATOR, problem)
    distances = expected["distances"][0]
    first = int(np.flatnonzero(distances[1:] == distances[:-1])[0])
    outputs["ids"][0, [first, first + 1]] = outputs["ids"][0, [first + 1, first]]
    assert OPERATOR.compare(problem, inputs, {"ids": outputs["ids"]}, expected).ok


@pytest.mark.parametrize("problem", [Knn(q=100, n=30000, d=128, k=5), Knn(q=3, n=50, d=6, k=5), Knn(q=0, n=5, d=2)], ids=str)
def test_part_of_a_large_problem_is_checked(problem: Knn) -> None:
    assert OPERATOR.part is not None
    whole = OPERATOR.make_inputs(problem, 0)
    outputs = registry.backend(registry.operator("knn"), "torch").run(
        problem, {name: torch.from_numpy(array) for name, array in whole.items()}, {"ROWS": 8192}
    )
    smaller, inputs, some = OPERATOR.part(problem, whole, {name: array.numpy() for name, array in outputs.items()})
    assert smaller.q == len(inputs["queries"]) == len(some["ids"]) == min(problem.q, 17)
    assert OPERATOR.compare(smaller, inputs, some, OPERATOR.oracle(smaller, inputs)).ok


def test_outside_functions_are_called_by_either_signature() -> None:
    problem = Knn(q=3, n=30, d=4, k=5)
    inputs = OPERATOR.make_inputs(problem, 0)
    native, course = OPERATOR.signatures
    for outputs in (native.call(knn, problem, inputs), course.call(our_knn, problem, inputs)):
        assert OPERATOR.compare(problem, inputs, outputs, OPERATOR.oracle(problem, inputs)).ok
    assert course.accepts(problem) is None and "not dot" in str(course.accepts(Knn(metric="dot", n=3, d=3)))


@pytest.mark.parametrize("metric", ["l2", "l1", "cosine"])
def test_scikit_learn_as_a_peer(metric: Metric) -> None:
    problem = Knn(metric=metric, q=3, n=90, d=6, k=5)
    inputs = OPERATOR.make_inputs(problem, 0)
    outputs = peers.sklearn(problem, {name: torch.from_numpy(array) for name, array in inputs.items()})
    np.testing.assert_array_equal(outputs["ids"], OPERATOR.oracle(problem, inputs)["ids"])


def test_packed_candidates_sort_by_key_then_id() -> None:
    keys = np.array([np.inf, -3.5, 0.0, 2.0, -np.inf, 2.0, 1e-30, np.nan], np.float32)
    order = np.argsort(packing.pack_numpy(keys, np.arange(8)))
    assert order.tolist() == [4, 1, 2, 6, 3, 5, 0, 7]
    packed = np.sort(packing.pack_numpy(keys, np.arange(8)))[None]
    for found, ids in (packing.unpack_numpy(packed, 9), packing.unpack_torch(torch.from_numpy(packed), 9)):
        assert np.asarray(ids)[0].tolist() == [4, 1, 2, 6, 3, 5, 0, 7, -1]
        np.testing.assert_array_equal(np.asarray(found)[0], np.append(keys[[4, 1, 2, 6, 3, 5, 0]], [np.inf, np.inf]))
    torch_packed = packing.pack_torch(torch.from_numpy(keys), torch.arange(8))
    np.testing.assert_array_equal(torch_packed, packing.pack_numpy(keys, np.arange(8)))


@pytest.mark.parametrize("space", [TRITON, CUPY], ids=["triton", "cupy"])
@pytest.mark.parametrize("problem", [Knn(q=1, n=99, d=8), Knn(q=99, n=99, d=8), Knn(q=99, n=99, d=8, metric="dot")], ids=str)
def test_default_block_is_valid_among_few(space, problem: Knn) -> None:
    valid = [block for block, reason in space.blocks(problem) if reason is None]
    assert dict(space.default) in valid and 2 <= len(valid) <= 40


@pytest.mark.parametrize("name", ["torch", "triton", "cupy"])
def test_gpu_backends_on_awkward_problems(name: str) -> None:
    require("gpu")
    from tests.kernels.gpu import check_awkward

    check_awkward("knn", name)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("mapped", [False, True], ids=["array", "memory-mapped"])
def test_streamed_neighbours_are_those_of_the_whole(metric: str, mapped: bool, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernels.knn.streamed.SHARE", 1 << 12)  # chunks of few rows, and not all of one size
    queries, collection = torch.from_numpy(normal(5, 16)), normal(1001, 16, seed=1)
    expected = knn(queries, torch.from_numpy(collection), 20, metric)
    if mapped:
        np.save(tmp_path / "rows.npy", collection)
        collection = np.load(tmp_path / "rows.npy", mmap_mode="r")
    distances, ids = knn_streamed(queries, collection, 20, metric, memory=1 << 20)
    np.testing.assert_array_equal(ids, expected[1])
    np.testing.assert_allclose(distances, expected[0], rtol=1e-6, atol=1e-6)


def test_streamed_neighbours_are_padded_and_of_an_empty_collection_too() -> None:
    for count in (0, 3):
        distances, ids = knn_streamed(torch.from_numpy(normal(2, 4)), normal(count, 4, seed=1), 5)
        assert (ids[:, count:] == -1).all() and torch.isinf(distances[:, count:]).all() and (ids[:, :count] >= 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(2, 3), torch.zeros(4, 3), 1), r"collection: Tensor of shape \[4, 3\]; give a NumPy array"),
        ((normal(2, 3), normal(4, 3), 1), r"queries: ndarray of shape \[2, 3\]; give a torch tensor"),
        ((torch.zeros(2, 3), normal(4, 5), 1), r"queries: shape \[2, 3\] does not go with collection of shape \[4, 5\]"),
        ((torch.zeros(2, 3), normal(4, 3), 0), "k: 0 is not"),
        ((torch.zeros(2, 3), normal(4, 3), 1, "l2", 5), "memory: 5 bytes"),
    ],
)
def test_what_a_stream_refuses(arguments, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        knn_streamed(*arguments[:4], memory=(arguments[4:] or (1 << 30,))[0])
