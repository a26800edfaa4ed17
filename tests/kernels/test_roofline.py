"""The limit of a problem, against numbers worked out by hand, and the ceilings of this machine."""

from __future__ import annotations

import pytest

from kernels import roofline
from kernels.contract import Cost
from kernels.device import Device
from kernels.knn import OPERATOR, Knn

MEASURED = {"bandwidth_gbs": 4000.0, "tflops": {"fp32": 50.0, "bf16": 500.0}}


@pytest.mark.parametrize(
    ("cost", "milliseconds", "by"),
    [
        pytest.param(Cost(4_000_000_000, 1), 1.0, "memory", id="4-GB-at-4-TB/s"),
        pytest.param(Cost(1, 50_000_000_000), 1.0, "compute", id="50-GFLOP-at-50-TFLOP/s"),
        pytest.param(Cost(1, 50_000_000_000, "bf16"), 0.1, "compute", id="at-the-rate-it-names"),
        pytest.param(Cost(4_000_000_000, 100_000_000_000), 2.0, "compute", id="the-longer-of-both"),
        pytest.param(Cost(4_000_000_000, 50_000_000_000), 1.0, "memory", id="memory-where-both-are-equal"),
        pytest.param(Cost(400_000_000, 10**15, "tf32"), 0.1, "memory", id="a-rate-that-was-not-measured"),
        pytest.param(Cost(0, 0), 0.0, "memory", id="nothing-to-do"),
    ],
)
def test_the_limit_is_the_longer_of_moving_and_computing(cost: Cost, milliseconds: float, by: str):
    found, what = roofline.limit(cost, MEASURED)
    assert found == pytest.approx(milliseconds)
    assert what == by


def test_one_query_against_four_million_rows_reads_the_collection():
    """4M x 128 float32 at 4.42 TB/s: 2.048 GB, 0.463 ms."""
    cost = OPERATOR.cost(Knn(q=1, n=4_000_000, d=128, k=10))
    limit, by = roofline.limit(cost, {"bandwidth_gbs": 4420.0, "tflops": {"fp32": 51.0}})
    assert by == "memory"
    assert limit == pytest.approx(0.463, abs=0.001)


def test_the_ceilings_follow_from_the_fastest_of_the_timed_calls(monkeypatch: pytest.MonkeyPatch):
    """A clock that gives 20, 19, … ms: 2^25 floats in 11 ms, and 2 x 1024^3 operations in 1 ms."""
    times = iter(range(20, 0, -1))

    class Clock:
        def time_ms(self, call: object, flush: bool = True) -> float:
            return float(next(times))

    found = roofline.ceilings(Device("cpu", "a CPU"), Clock())  # type: ignore[arg-type]
    assert found["bandwidth_gbs"] == pytest.approx(4 * 2**25 / 11 / 1e6)
    assert found["tflops"] == {"fp32": pytest.approx(2 * 1024**3 / 1 / 1e9)}
