"""k-means against scikit-learn and the definition: labels with ties, means, empty clusters, seeding, convergence, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans as ScikitLearn
from sklearn.cluster import kmeans_plusplus

from analysis.cli import BadInput
from kernels import registry
from kernels.distance.tolerance import allowed
from kernels.kmeans import METRICS, OPERATOR, KMeans, Metric, kmeans, on_numpy, on_torch, our_kmeans, peers, reference, seeding
from kernels.kmeans.space import CUPY, TRITON
from tests.needs import require

LIBRARIES = pytest.mark.parametrize("library", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def blobs(n: int, d: int, k: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points around k far centres, and the centre of each."""
    rng = np.random.default_rng(seed)
    centre = rng.integers(0, k, n)
    centre[:k] = np.arange(k)
    return normal(n, d, seed=seed) + 100 * normal(k, d, seed=seed + 1)[centre], centre


def host(array) -> np.ndarray:
    return np.asarray(array)


# the definition


def test_reference_agrees_with_scikit_learn() -> None:
    points = normal(300, 5).astype(np.float64)
    for iterations in (1, 4):
        found = reference.lloyd(points, points[:7], "l2", iterations)
        model = ScikitLearn(7, init=points[:7], n_init=1, max_iter=iterations, tol=0).fit(points)
        np.testing.assert_allclose(found.centroids, model.cluster_centers_, rtol=1e-12)
    again = reference.lloyd(points, found.centroids, "l2", 1)
    np.testing.assert_array_equal(again.labels, model.labels_)
    assert again.inertia == pytest.approx(model.inertia_, rel=1e-12)


def test_reference_for_cosine_is_l2_of_unit_vectors() -> None:
    points = normal(200, 6).astype(np.float64)
    found = reference.lloyd(points, points[:5], "cosine", 1)
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    same = reference.lloyd(unit, unit[:5], "l2", 1)
    np.testing.assert_array_equal(found.labels, same.labels)
    np.testing.assert_allclose(found.inertia, same.inertia / 2, rtol=1e-12)
    np.testing.assert_allclose(found.centroids, same.centroids / np.linalg.norm(same.centroids, axis=1, keepdims=True), rtol=1e-12)


# backends


@pytest.mark.parametrize("name", ["numpy", "torch"])
@pytest.mark.parametrize("problem", OPERATOR.awkward, ids=str)
def test_cpu_backends_on_awkward_problems(name: str, problem: KMeans) -> None:
    backend = registry.backend(registry.operator("kmeans"), name)
    inputs = OPERATOR.make_inputs(problem, 3)
    placed = {key: torch.from_numpy(array) for key, array in inputs.items()} if name == "torch" else inputs
    expected = OPERATOR.oracle(problem, inputs)
    for rows in (7, backend.space.default["ROWS"]):
        outputs = {key: np.asarray(array) for key, array in backend.run(problem, placed, {"ROWS": rows}).items()}
        verdict = OPERATOR.compare(problem, inputs, outputs, expected)
        assert verdict.ok, verdict
        assert outputs["labels"].dtype == np.int32 and outputs["centroids"].dtype == np.float32


@pytest.mark.parametrize("name", ["numpy", "torch"])
@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=15, deadline=None)
@given(n=st.integers(1, 90), d=st.integers(1, 40), seed=st.integers(0, 99), data=st.data())
def test_any_shape_agrees_with_the_definition(name: str, metric: Metric, n: int, d: int, seed: int, data) -> None:
    kind = data.draw(st.sampled_from(["normal", "offset", "duplicates", "nan", "zeros", "outliers"]), label="data")
    problem = KMeans(metric=metric, n=n, d=d, k=data.draw(st.integers(1, n), label="k"), data=kind)
    inputs = OPERATOR.make_inputs(problem, seed)
    placed = {key: torch.from_numpy(array) for key, array in inputs.items()} if name == "torch" else inputs
    backend = registry.backend(registry.operator("kmeans"), name)
    outputs = {key: np.asarray(array) for key, array in backend.run(problem, placed, dict(backend.space.default)).items()}
    verdict = OPERATOR.compare(problem, inputs, outputs, OPERATOR.oracle(problem, inputs))
    assert verdict.ok, verdict


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_close_calls_far_from_the_origin_are_float64s(name: str) -> None:
    """Clusters a thousand times as far as wide: products of float32 cannot tell their centroids apart, differences can."""
    points = (normal(400, 24) + 1000 * np.repeat(normal(4, 24, seed=1), 100, axis=0)).astype(np.float32)
    problem = KMeans(n=400, d=24, k=40)
    inputs = {"points": points, "centroids": points[::10].copy()}
    placed = {key: torch.from_numpy(array) for key, array in inputs.items()} if name == "torch" else inputs
    backend = registry.backend(registry.operator("kmeans"), name)
    labels = np.asarray(backend.run(problem, placed, dict(backend.space.default))["labels"])
    np.testing.assert_array_equal(labels, reference.assign(points, inputs["centroids"].astype(np.float64), "l2")[0])


# comparison


def answer(problem: KMeans, seed: int = 0):
    inputs = OPERATOR.make_inputs(problem, seed)
    expected = OPERATOR.oracle(problem, inputs)
    outputs = {name: np.array(expected[name]) for name in ("labels", "centroids", "counts", "inertia")}
    return inputs, expected, outputs | {"centroids": outputs["centroids"].astype(np.float32)}


def wrong_label(outputs: dict[str, np.ndarray]) -> None:
    outputs["labels"][4] = (outputs["labels"][4] + 1) % 6


def label_out_of_range(outputs: dict[str, np.ndarray]) -> None:
    outputs["labels"][0] = 6


def no_label(outputs: dict[str, np.ndarray]) -> None:
    outputs["labels"][0] = -1


def wrong_centroid(outputs: dict[str, np.ndarray]) -> None:
    outputs["centroids"][2, 1] += 1e-4


def wrong_count(outputs: dict[str, np.ndarray]) -> None:
    outputs["counts"][1] += 1


def wrong_inertia(outputs: dict[str, np.ndarray]) -> None:
    outputs["inertia"] *= 1.001


@pytest.mark.parametrize("spoil", [wrong_label, label_out_of_range, no_label, wrong_centroid, wrong_count, wrong_inertia])
@pytest.mark.parametrize("metric", METRICS)
def test_compare_finds_what_is_wrong(metric: Metric, spoil) -> None:
    problem = KMeans(metric=metric, n=50, d=8, k=6)
    inputs, expected, outputs = answer(problem)
    assert OPERATOR.compare(problem, inputs, outputs, expected).ok
    spoil(outputs)
    verdict = OPERATOR.compare(problem, inputs, outputs, expected)
    assert not verdict.ok and verdict.error > 1 and verdict.message


def test_compare_accepts_another_choice_between_ties() -> None:
    problem = KMeans(n=60, d=3, k=20, data="duplicates")
    inputs, expected, outputs = answer(problem)
    same = np.flatnonzero((inputs["centroids"] == inputs["centroids"][expected["labels"][0]]).all(axis=1))
    assert len(same) > 1
    labels = outputs["labels"]
    labels[labels == same[0]] = same[1]
    outputs["centroids"] = reference.update(inputs["points"], labels, inputs["centroids"].astype(np.float64), "l2")
    outputs["counts"] = np.bincount(labels, minlength=20)
    assert OPERATOR.compare(problem, inputs, outputs, expected).ok


@pytest.mark.parametrize("metric", METRICS)
def test_part_of_a_large_problem_is_checked_in_its_labels_and_whole_in_its_means(metric: Metric) -> None:
    assert OPERATOR.part is not None
    problem = KMeans(metric=metric, n=20000, d=64, k=300)
    whole = OPERATOR.make_inputs(problem, 0)
    run = registry.backend(registry.operator("kmeans"), "numpy").run
    outputs = run(problem, whole, {"ROWS": 1024})
    same, inputs, some = OPERATOR.part(problem, whole, outputs)
    expected = OPERATOR.oracle(same, inputs)
    assert len(inputs["rows"]) == len(expected["distances"]) == 3495
    assert OPERATOR.compare(same, inputs, some, expected).ok
    outputs["centroids"][7, 3] += 1e-3
    assert not OPERATOR.compare(same, inputs, outputs, expected).ok


def test_part_of_several_iterations_is_the_whole() -> None:
    assert OPERATOR.part is not None
    problem = KMeans(n=50, d=4, k=3, iterations=2, data="blobs")
    inputs = OPERATOR.make_inputs(problem, 0)
    assert OPERATOR.part(problem, inputs, {}) == (problem, inputs, {})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n": 3, "d": 2, "k": 4}, "k: 4 clusters of n = 3 points"),
        ({"n": 100000, "d": 2, "k": 65537}, "k: 65537 clusters of n = 100000 points; at most 65536"),
        ({"n": 3, "d": 0, "k": 1}, "d: 0 is less than 1"),
        ({"n": 3, "d": 1, "k": 1, "iterations": 0}, "iterations: 0 is less than 1"),
    ],
)
def test_problems_that_are_refused(fields: dict[str, int], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        KMeans(**fields)


def test_cost_counts_products_and_reading() -> None:
    cost = OPERATOR.cost(KMeans(n=4_000_000, d=128, k=1024, iterations=2))
    assert cost.operations == 2 * 2 * 4_000_000 * 1024 * 128 and cost.rate == "bf16"
    assert 2 * 4 * 4_000_000 * 128 < cost.bytes < 2.1 * 4 * 4_000_000 * 128
    assert OPERATOR.cost(KMeans(n=10, d=2, k=2)).rate == "fp32"


def test_outside_functions_and_scikit_learn_as_a_peer() -> None:
    problem = KMeans(n=120, d=6, k=7)
    inputs = OPERATOR.make_inputs(problem, 0)
    expected = OPERATOR.oracle(problem, inputs)

    def lloyd(points, centroids, metric, iterations):
        found = reference.lloyd(points, centroids, metric, iterations)
        return found.labels, found.centroids, found.inertia

    outputs = OPERATOR.signatures[0].call(lloyd, problem, inputs)
    assert OPERATOR.compare(problem, inputs, outputs, expected).ok
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    np.testing.assert_allclose(peers.sklearn(problem, tensors)["centroids"], expected["centroids"], rtol=1e-4, atol=1e-6)
    found = {name: array.numpy() for name, array in peers.torch_products(problem, tensors).items()}
    np.testing.assert_array_equal(found["labels"], expected["labels"])
    np.testing.assert_allclose(found["centroids"], expected["centroids"], rtol=1e-4, atol=1e-6)
    with pytest.raises(BadInput, match="has l2 alone"):
        peers.sklearn(replace(problem, metric="cosine"), tensors)


# the public function


@LIBRARIES
def test_the_same_clusters_as_scikit_learn_from_the_same_centroids(library) -> None:
    points = normal(3000, 12)
    found = kmeans(library(points), 20, init=library(points[:20].copy()), max_iterations=300)
    model = ScikitLearn(20, init=points[:20], n_init=1, max_iter=300, tol=1e-4).fit(points)
    assert found.iterations == model.n_iter_
    assert np.mean(host(found.labels) == model.labels_) > 0.999
    assert found.inertia == pytest.approx(model.inertia_, rel=1e-4)


@LIBRARIES
@pytest.mark.parametrize("metric", METRICS)
def test_labels_and_inertia_are_of_the_returned_centroids(library, metric: str) -> None:
    points = normal(500, 6)
    for limit in (2, 100):
        found = kmeans(library(points), 9, metric, max_iterations=limit, seed=3)
        assert found.iterations <= limit
        labels, distances = reference.assign(points, host(found.centroids).astype(np.float64), metric)
        np.testing.assert_array_equal(host(found.labels), labels)
        assert found.inertia == pytest.approx((distances**2 if metric == "l2" else distances).sum(), rel=1e-5)
        if metric == "cosine":
            np.testing.assert_allclose(np.linalg.norm(host(found.centroids), axis=1), 1, rtol=1e-6)


@LIBRARIES
@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_the_same_seed_gives_the_same_bits(library, init: str) -> None:
    points = library(normal(700, 10))
    first, second, other = (kmeans(points, 12, init=init, seed=seed) for seed in (5, 5, 6))
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(host(one), host(two))
    assert not np.array_equal(host(first.centroids), host(other.centroids))


@LIBRARIES
def test_well_separated_clusters_are_found(library) -> None:
    points, centre = blobs(2000, 8, 12)
    labels = host(kmeans(library(points), 12, seed=1).labels)
    assert len(set(zip(labels.tolist(), centre.tolist(), strict=True))) == 12


@LIBRARIES
def test_empty_clusters_take_the_farthest_points(library) -> None:
    points = np.array([[0], [1], [2], [50], [90]], np.float32)
    init = np.array([[1], [200], [300]], np.float32)  # the last two have no points: 90 and 0 are farthest from the mean, 28.6
    found = kmeans(library(points), 3, init=library(init), max_iterations=1)
    np.testing.assert_allclose(host(found.centroids), [[28.6], [90], [0]], rtol=1e-6)
    found = kmeans(library(points), 3, init=library(init))
    np.testing.assert_array_equal(host(found.centroids), [[50], [90], [1]])
    assert host(found.labels).tolist() == [2, 2, 2, 0, 1] and found.inertia == 2


@LIBRARIES
@pytest.mark.parametrize("metric", METRICS)
def test_fewer_distinct_points_than_clusters(library, metric: str) -> None:
    points = np.repeat(normal(3, 4), 5, axis=0)
    found = kmeans(library(points), 6, metric, tolerance=0)
    assert found.inertia == pytest.approx(0, abs=1e-5) and found.iterations < 100
    assert len(np.unique(host(found.labels))) == 3


@LIBRARIES
def test_one_point_and_as_many_clusters_as_points(library) -> None:
    point = normal(1, 3)
    found = kmeans(library(point), 1)
    np.testing.assert_array_equal(host(found.centroids), point)
    assert host(found.labels).tolist() == [0] and found.inertia == 0
    points = normal(9, 1)
    found = kmeans(library(points), 9)
    assert sorted(host(found.labels).tolist()) == list(range(9)) and found.inertia < 1e-12


@LIBRARIES
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_points_that_are_not_finite_belong_nowhere(library, metric: str, init: str) -> None:
    points = normal(60, 5)
    points[::4, 1], points[1::8, 0], points[2] = np.nan, np.inf, 3e19
    found = kmeans(library(points), 4, metric, init=init)
    bad = ~np.isfinite(on_numpy.squares(points))
    np.testing.assert_array_equal(host(found.labels) == -1, bad)
    assert np.isfinite(found.inertia)
    means = reference.update(points, host(found.labels), host(found.centroids).astype(np.float64), metric)
    np.testing.assert_allclose(host(found.centroids), means, atol=0.05 if metric == "l2" else 0.02)


@LIBRARIES
def test_zero_vectors_have_the_first_label_for_cosine(library) -> None:
    points = normal(40, 3)
    points[::5] = 0
    found = kmeans(library(points), 4, "cosine", init=library(points[1:5].copy()))
    assert (host(found.labels)[::5] == 0).all()


def test_tolerance_and_limit_end_the_iterations() -> None:
    points = normal(2000, 4)
    exact, loose = (kmeans(points, 30, init="random", tolerance=tolerance, max_iterations=400) for tolerance in (0.0, 1e-2))
    assert loose.iterations < exact.iterations < 400
    assert kmeans(points, 30, init="random", max_iterations=3, tolerance=0).iterations == 3
    again = kmeans(points, 30, init=exact.centroids, tolerance=0)
    assert again.iterations == 1
    np.testing.assert_array_equal(again.centroids, exact.centroids)


def test_course_signature_and_input_that_is_not_contiguous() -> None:
    points, _ = blobs(300, 4, 3)
    labels = our_kmeans(300, 4, points.astype(np.float64), 3)
    assert labels.shape == (300,) and set(labels.tolist()) <= {0, 1, 2}
    wide = np.repeat(points, 2, axis=1)
    np.testing.assert_array_equal(kmeans(wide[:, ::2], 3).labels, kmeans(points, 3).labels)
    with pytest.raises(BadInput, match=r"A: shape \[300, 4\], but N = 300 and D = 5"):
        our_kmeans(300, 5, points, 3)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((normal(4, 3), 5), {}, "k: 5 clusters of N = 4 points"),
        ((normal(4, 3), 0), {}, "k: 0 is not a whole number from 1 to 65536"),
        ((normal(4, 3), 1.5), {}, "k: 1.5 is not"),
        ((normal(4), 2), {}, r"points: shape \[4\]; give rows"),
        ((normal(0, 3), 1), {}, r"points: shape \[0, 3\]"),
        ((normal(4, 3).astype(np.float64), 2), {}, "points: dtype float64"),
        ((normal(4, 3), 2, "dot"), {}, "metric: 'dot' is not one of l2, cosine"),
        ((np.full((4, 3), np.nan, np.float32), 2), {}, "k: 2 clusters of N = 4 points, 0 of them finite"),
        ((normal(4, 3), 2), {"init": "best"}, "init: 'best' is not"),
        ((normal(4, 3), 2), {"init": normal(3, 3)}, r"init: shape \[3, 3\]; give k = 2 centroids of D = 3"),
        ((normal(4, 3), 2), {"init": torch.zeros(2, 3)}, "init is on torch cpu and points on numpy"),
        ((normal(4, 3), 1), {"init": np.full((1, 3), np.inf, np.float32)}, "init: a centroid is not finite"),
        ((normal(4, 3), 2), {"max_iterations": 0}, "max_iterations: 0 is not"),
        ((normal(4, 3), 2), {"tolerance": -1.0}, "tolerance: -1.0 is not"),
        ((normal(4, 3), 2), {"seed": -1}, "seed: -1 is not"),
        ((normal(4, 3), 2), {"block": {"WIDTH": 1}}, "block: axes WIDTH; the numpy backend has ROWS"),
    ],
)
def test_what_is_refused(arguments, options, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        kmeans(*arguments, **options)


# seeding


@pytest.mark.parametrize("library", [on_numpy, on_torch], ids=["numpy", "torch"])
def test_k_means_plus_plus_draws_as_well_as_scikit_learns(library) -> None:
    """The inertia of what is drawn, a mean over seeds: far below that of random points, near that of scikit-learn's greedy draw."""
    points, _ = blobs(1500, 5, 25)

    def cost(centroids: np.ndarray) -> float:
        return float(((points[:, None, :] - centroids) ** 2).sum(axis=2).min(axis=1).sum())

    given_points = torch.from_numpy(points) if library is on_torch else points
    ours = np.mean([cost(host(library.plus_plus(given_points, 25, seed))) for seed in range(8)])
    theirs = np.mean([cost(kmeans_plusplus(points, 25, random_state=seed)[0]) for seed in range(8)])
    random = np.mean([cost(points[np.random.default_rng(seed).choice(1500, 25)]) for seed in range(8)])
    assert ours < 0.5 * random and ours < 5 * theirs + 0.05 * random


@pytest.mark.parametrize("library", [on_numpy, on_torch], ids=["numpy", "torch"])
@pytest.mark.parametrize("k", [1, 40, 300, 600])
def test_k_means_plus_plus_draws_no_point_twice(library, k: int) -> None:
    points = normal(600, 3)
    points[300:] = points[:300]  # equal points have nothing to gain, yet all must be drawn in the end
    rows = np.hstack([points, np.arange(600, dtype=np.float32)[:, None] * 1e-6])
    drawn = host(library.plus_plus(torch.from_numpy(rows) if library is on_torch else rows, k, 0))
    assert len(np.unique(drawn, axis=0)) == len(drawn) == k


@pytest.mark.parametrize("k", [1, 2, 256, 257, 1024, 65536])
def test_rounds_draw_all_in_few(k: int) -> None:
    counts = seeding.rounds(k)
    assert sum(counts) == k and counts[0] == 1 and len(counts) <= seeding.ROUNDS + 1 and min(counts) >= 1


def test_seeding_draws_from_a_sample_of_many_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeding, "SAMPLE", 50)
    monkeypatch.setattr(seeding, "SHARE", 2)
    seen: list[int] = []
    draw = on_numpy.plus_plus
    monkeypatch.setattr(on_numpy, "plus_plus", lambda sample, k, seed: seen.append(len(sample)) or draw(sample, k, seed))
    assert kmeans(normal(400, 3), 7).centroids.shape == (7, 3)
    assert kmeans(normal(400, 3), 40).centroids.shape == (40, 3)
    assert seen == [50, 80]


# GPU


@pytest.mark.parametrize("space", [TRITON, CUPY], ids=["triton", "cupy"])
@pytest.mark.parametrize("problem", [KMeans(n=99, d=d, k=9) for d in (2, 64, 300)], ids=str)
def test_default_block_is_valid_among_few(space, problem: KMeans) -> None:
    valid = [block for block, reason in space.blocks(problem) if reason is None]
    assert dict(space.default) in valid and 2 <= len(valid) <= 100


@pytest.mark.parametrize("name", ["torch", "triton", "cupy"])
def test_gpu_backends_on_awkward_problems(name: str) -> None:
    require("gpu")
    from tests.kernels.gpu import check_awkward

    check_awkward("kmeans", name)


@pytest.mark.parametrize("library", ["torch", "cupy"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_clusters_on_a_gpu(library: str, metric: Metric, init: str) -> None:
    require("gpu")
    from tests.kernels.gpu import off_gpu, on_gpu

    points, _ = blobs(5000, 24, 10)
    found, again = (kmeans(on_gpu(library, points), 10, metric, init=init) for _ in range(2))
    np.testing.assert_array_equal(off_gpu(found.labels), off_gpu(again.labels))
    np.testing.assert_array_equal(off_gpu(found.centroids), off_gpu(again.centroids))
    _, nearest = reference.assign(points, off_gpu(found.centroids).astype(np.float64), metric)
    own = off_gpu(found.centroids).astype(np.float64)[off_gpu(found.labels)]
    if metric == "l2":
        distances = np.linalg.norm(points - own, axis=1)
    else:
        distances = 1 - np.sum(reference.unit(points.astype(np.float64)) * reference.unit(own), axis=1)
    assert np.all(distances <= nearest + 2 * allowed(metric, 24, nearest, 1.0))
