"""What a load test's requests say, against NumPy and by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.load import offered, percentile, rates
from analysis.measured import requests
from analysis.records import write_parquet
from tests.analysis import served, synthetic


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=400), st.sampled_from([0.5, 0.9, 0.99]))
def test_a_percentile_is_one_of_the_values_as_numpy_has_it(values: list[float], share: float):
    assert percentile(values, share) == np.quantile(values, share, method="inverted_cdf")


def test_a_percentile_is_infinite_where_more_than_the_rest_were_not_answered():
    assert percentile([1.0] * 98 + [math.inf] * 2, 0.99) == math.inf
    assert percentile([1.0] * 99 + [math.inf], 0.99) == 1


def read(folder: Path, rows: list[dict[str, object]]) -> pd.DataFrame:
    write_parquet(folder / "x.parquet", rows)
    frame: pd.DataFrame = requests(folder / "x.parquet")
    return frame


def test_time_outs_after_the_last_answer_take_no_answers_from_a_second(tmp_path: Path):
    rows = [synthetic.request("a", 10.0, 1, number, number / 10, number / 10 + 0.2) for number in range(10)]
    rows += [synthetic.request("a", 10.0, 1, number, number / 10, 0, "timeout") | {"end_s": number / 10 + 5} for number in range(10, 20)]
    (row,) = rates(read(tmp_path, rows), 1000).itertuples()
    assert (row.achieved, row.goodput, row.lost, row.rejected) == (5, 5, 0.5, 0)


def test_answers_after_the_schedule_are_counted_over_the_time_that_they_took(tmp_path: Path):
    rows = [synthetic.request("a", 10.0, 1, number, number / 10, (number + 1) * 0.4) for number in range(10)]
    (row,) = rates(read(tmp_path, rows), 1100).itertuples()
    assert row.achieved == pytest.approx(10 / 4)
    assert row.goodput == pytest.approx(3 / 4)


def test_offers_are_in_the_order_of_rates_and_multiples_without_what_a_search_tried(tmp_path: Path):
    rows = [row for rate in (16.0, 2.0) for row in served.point("b", rate, 64.0, load="steady")]
    rows += [row for arm, limit in (("b", 30.0), ("a", 90.0)) for row in served.searched({arm: limit}, times=(4, 0.5), load="searched")]
    found = offered(read(tmp_path, rows))[["load", "offer"]].drop_duplicates()
    assert found.to_numpy().tolist() == [
        *(["steady", f"{rate} requests/s"] for rate in (2, 16)),
        *(["searched", f"{multiple}the highest rate"] for multiple in ("0.5 × ", "", "4 × ")),
    ]


def test_a_later_attempt_at_a_search_replaces_all_its_rates_and_of_a_list_each_by_itself(tmp_path: Path):
    rows = [*served.searched({"a": 30.0}, attempt=1), *served.searched({"a": 90.0}, attempt=2)]
    rows += [*served.point("a", 2.0, 9.0, load="list", attempt=1), *served.point("a", 4.0, 9.0, load="list", attempt=1)]
    rows += served.point("a", 4.0, 9.0, load="list", attempt=2)
    found = read(tmp_path, rows)
    assert set(found[found["load"] == "poisson"]["attempt"]) == {2}
    kept = found[found["load"] == "list"][["rate", "attempt"]].drop_duplicates()
    assert kept.to_numpy().tolist() == [[2, 1], [4, 2]]
