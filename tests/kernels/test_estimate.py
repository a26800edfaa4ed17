"""Estimates: what was measured is said again, what was not is scaled or assumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.records import write_parquet
from cluster.site import Gpu
from kernels.contract import Cost
from kernels.planning import earlier, estimate
from kernels.planning.estimate import ASSUMED, MEASURED, SCALED, Estimate, Known, Spent, total
from kernels.roofline import limit
from tests.kernels.tiny import CEILINGS

POSITIVE = st.floats(1e-3, 1e3)
COSTS = st.builds(Cost, st.integers(1, 10**12), st.integers(0, 10**12))
COUNTS = st.integers(1, 1000)


def spent(name: str, cost: Cost, points: int, seconds: float, beside: float = 0.0) -> Spent:
    return Spent(name, points, seconds, beside, limit(cost, CEILINGS)[0], CEILINGS)


KNOWN = st.lists(st.tuples(COSTS, COUNTS, POSITIVE, POSITIVE), min_size=1, max_size=8).map(
    lambda rows: [(cost, spent(str(number), cost, *rest)) for number, (cost, *rest) in enumerate(rows)]
)


@given(KNOWN, st.data())
def test_what_was_measured_takes_as_long_again(known: list[tuple[Cost, Spent]], data: st.DataObject):
    cost, its = data.draw(st.sampled_from(known))
    found = Known([each for _, each in known]).part(its.problem, cost, its.points)
    assert found.by.keys() == {MEASURED}
    assert found.seconds == pytest.approx(its.spent_s + its.beside_s)


@given(KNOWN, COSTS, COUNTS)
def test_another_problem_takes_the_nearest_by_the_limit_in_their_ratio(known: list[tuple[Cost, Spent]], cost: Cost, points: int):
    found = Known([each for _, each in known]).part("another", cost, points)
    ms = limit(cost, CEILINGS)[0]
    ratios = [max(ms / each.limit_ms, each.limit_ms / ms) for _, each in known]
    nearest = [each for (_, each), ratio in zip(known, ratios, strict=True) if ratio <= min(ratios) * (1 + 1e-9)]
    expected = [each.beside_s + points * each.spent_s / each.points * ms / each.limit_ms for each in nearest]
    assert found.by.keys() == {SCALED}
    assert any(found.seconds == pytest.approx(each) for each in expected)


@given(COSTS, COUNTS)
def test_what_nobody_measured_is_assumed(cost: Cost, points: int):
    for known in (Known([]), Known([spent("1", cost, 0, 0.0)])):
        found = known.part("1", cost, points)
        assert found.by == {ASSUMED: estimate.BESIDE_S + points * estimate.POINT_S}


@given(KNOWN, COSTS, COUNTS, COUNTS, st.sampled_from(["0", "another"]))
def test_more_points_never_take_less(known: list[tuple[Cost, Spent]], cost: Cost, points: int, more: int, problem: str):
    of = Known([each for _, each in known])
    assert 0 < of.part(problem, cost, points).seconds <= of.part(problem, cost, points + more).seconds


def test_the_latest_record_of_a_problem_counts():
    cost = Cost(10**9, 0)
    assert Known([spent("1", cost, 2, 8.0), spent("1", cost, 2, 4.0)]).part("1", cost, 2).seconds == 4.0


@given(st.lists(st.dictionaries(st.sampled_from([MEASURED, SCALED, ASSUMED]), POSITIVE).map(Estimate)), POSITIVE)
def test_a_sum_keeps_what_each_part_rests_on(parts: list[Estimate], factor: float):
    whole = total(parts)
    assert whole.seconds == pytest.approx(sum(part.seconds for part in parts))
    assert all(seconds == pytest.approx(sum(part.by.get(basis, 0.0) for part in parts)) for basis, seconds in whole.by.items())
    assert whole.times(factor).seconds == pytest.approx(factor * whole.seconds)


def test_a_jobs_fixed_cost_is_the_median_of_earlier_ones():
    jobs = [{"start-up": 5.0, "ceilings": 1.0, "measuring": 99.0}, {"start-up": 2.0}, {"start-up": 30.0}]
    assert estimate.fixed(jobs).by == {MEASURED: 6.0}
    assert estimate.fixed([]).by == {ASSUMED: estimate.FIXED_S}


ROW = {
    "operator": "o", "backend": "b", "problem": {"n": 1}, "status": "measured", "limit_ms": 0.5, "ceilings": CEILINGS, "device": "NVIDIA X",
    "device_kind": "gpu", "first_call_ms": 100.0, "started": "2026-01-01T00:00:10+00:00", "samples_ms": [1.0, 2.0], "aa_samples_ms": [],
}  # fmt: skip
GPU = Gpu("x", "NVIDIA X", "sm_90", 80, "cuda13", None, None, None)


def job(ended: float, **seconds: float) -> dict[str, object]:
    return {"job": str(ended), "ended": ended, "seconds": seconds}


def test_what_earlier_runs_spent_is_read_from_their_records(tmp_path: Path):
    begun = 1767225610.0
    rows = [
        {**ROW, "spent_s": 2.0, "aa_samples_ms": [1.0]},  # the default, measured twice
        {**ROW, "spent_s": 1.0, "status": "stopped"},
        {**ROW, "spent_s": None, "status": "pruned", "samples_ms": []},
    ]
    notes = {"jobs": [job(begun - 100, measuring=500.0), job(begun + 9, **{"start-up": 4.0, "measuring": 6.0, "inputs": 3.0})]}
    write_parquet(tmp_path / "old/sweep/e.x.parquet", rows, notes)
    write_parquet(tmp_path / "own/sweep/e.x.parquet", rows)
    write_parquet(tmp_path / "old/sweep/f.x.parquet", [{**ROW, "device": "NVIDIA Y", "spent_s": 9.0}])
    (tmp_path / "old/sweep/g.x.parquet").write_text("no Parquet")
    found = earlier.read(tmp_path, "own", "x", GPU)
    (its,) = found.spent["sweep", "o", "b"]
    assert (its.problem, its.points, its.spent_s, its.beside_s) == (json.dumps({"n": 1}), 3, 5.0, 4.0)
    assert found.jobs == {"sweep": [{"start-up": 4.0, "measuring": 6.0, "inputs": 3.0}]}


def test_records_without_spent_time_count_by_their_calls(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_parquet(tmp_path / "old/sweep/e.x.parquet", [ROW])
    (its,) = earlier.read(tmp_path, "own", "x", None).spent["sweep", "o", "b"]
    assert (its.points, its.spent_s, its.beside_s) == (1, pytest.approx(0.103), estimate.BESIDE_S)
    assert earlier.read(tmp_path, "old", "x", None).spent == {}
    (tmp_path / "old/sweep/e.x.parquet").write_text("no Parquet")
    assert earlier.read(tmp_path, "own", "x", None).spent == {}
    assert capsys.readouterr().err.startswith(f"note: {tmp_path}/old/sweep/e.x.parquet: not used for estimates (")
