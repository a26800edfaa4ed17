"""Which records count, whether they met the objective, and that they come back from the Parquet file as they went in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.cli import BadInput
from analysis.records import Journal, read_notes
from rag.columns import POINT, REQUEST
from rag.config import Experiment
from rag.kept import Kept
from rag.points import Series
from rag.rows import invalid, nothing_found, take_over, write

EXPERIMENT = Experiment("tiny", 1, {"slo_ms": 100}, "here")


def series(**load: Any) -> Series:
    return Series("arm", "poisson", 1, {"seconds": 10, **load}, {"what": "determines"})


def record(rate: float, late: int = 0, number: int = 100, trial: int = 1, attempt: int = 1, why: str = "") -> dict[str, Any]:
    """A record of `series` whose requests took 50 ms, but for the `late` last ones."""
    values = {"string": "", "json": {"a": [1.5]}, "int64": 1, "double": 0.5, "bool": True, "strings": ["a#0", "b#1"]}
    requests = {name: [values[kind]] * number for name, kind in REQUEST.items()}
    ends = [0.05] * (number - late) + [3.0] * late
    requests |= {"scheduled_s": [0.0] * number, "end_s": ends, "status": ["ok"] * number, "request": list(range(number))}
    header = {name: values[kind] for name, kind in POINT.items()}
    its = {"point": series().point(rate).id, "rate": float(rate), "attempt": attempt, "trial": trial, "valid": not why, "invalid": why}
    return {**header, **its, "arm": "arm", "requests": requests}


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "none", 100)


def share(kept: Kept, rate: float, attempt: int = 1, strict: bool = True) -> float | None:
    found = kept.counting(series().point(rate).id, attempt, strict)
    return found and kept.share(found)


def test_the_objective_is_met_by_99_of_100_requests_in_time(kept: Kept):
    for rate, late in ((1, 0), (2, 1), (4, 2)):
        kept.add(record(rate, late))
    assert [share(kept, rate) for rate in (1, 2, 4, 8)] == [1.0, 0.99, 0.98, None]
    progress = kept.progress(series(search={"start": 1, "most": 100, "precision": 2}), 1)
    assert [point.rate for point in progress.points] == [1, 2, 4] and progress.found == 2 and progress.next is None


def test_a_request_that_is_not_answered_is_late(kept: Kept):
    lost = record(1)
    lost["requests"]["status"][:10] = ["rejected"] * 4 + ["timeout"] * 3 + ["error"] * 3
    kept.add(lost)
    assert share(kept, 1) == 0.9


def test_an_invalid_point_is_measured_once_more_and_then_fails(kept: Kept):
    kept.add(record(1, why="late"))
    assert share(kept, 1) is None and kept.trials(series().point(1).id, 1) == 1
    kept.add(record(1, trial=2, why="late again"))
    assert share(kept, 1) == 0.0
    kept.add(record(2, why="late"))
    kept.add(record(2, trial=2))
    assert share(kept, 2) == 1.0


@pytest.mark.parametrize(("restarts", "counts"), [pytest.param(0, 0.0, id="it lived"), pytest.param(1, None, id="it ended")])
def test_an_invalid_rate_of_a_list_is_measured_once_more_only_if_its_service_ended(kept: Kept, restarts: int, counts: float | None):
    kept.add(record(1, why="late") | {"restarts": restarts})
    assert share(kept, 1, strict=False) == counts
    kept.add(record(1, trial=2))
    assert share(kept, 1, strict=False) == 1.0


def test_attempts_do_not_know_of_each_other(kept: Kept):
    kept.add(record(1))
    assert share(kept, 1, attempt=2) is None
    kept.add(record(1, late=50, attempt=2))
    assert (share(kept, 1), share(kept, 1, attempt=2)) == (1.0, 0.5) and kept.attempts == [1, 2]


def test_what_was_measured_twice_counts_once(kept: Kept):
    kept.add(record(1))
    kept.add(record(1, late=50))
    assert share(kept, 1) == 1.0 and kept.dropped == 1


def test_a_journal_of_another_format_is_refused(tmp_path: Path):
    with Journal(tmp_path) as journal:
        journal.append({"point": "a", "attempt": 1, "requests": []})
    with pytest.raises(BadInput, match=r"a record without trial, .* not of this version's format"):
        Kept(tmp_path, 100)


def test_records_survive_the_parquet_file(tmp_path: Path):
    plan = [series(search={"start": 1, "most": 100, "precision": 2}, times=[0.5, 3])]
    kept = Kept(tmp_path / "none", 100)
    for one in (record(1), record(2, why="odd"), record(2, trial=2), record(4, 50), record(6, 90), record(1, 90, attempt=2), record(9)):
        kept.add(one)
    headers = write(EXPERIMENT, plan, kept, tmp_path / "a.parquet")
    frame = pd.read_parquet(tmp_path / "a.parquet")
    points = frame.fillna({"multiple": 0}).drop_duplicates(["attempt", "rate"])
    assert list(points[["attempt", "rate", "trial", "probe", "multiple", "found_rps"]].itertuples(index=False, name=None)) == [
        (1, 1, 1, "search", 0.5, 2),
        (1, 2, 2, "search", 1, 2),
        (1, 4, 1, "search", 0, 2),
        (1, 6, 1, "multiple", 3, 2),
        (2, 1, 1, "search", 0, 0),
    ]
    assert len(frame) == 500
    assert len(headers) == 5 and set(frame["slo_ms"]) == {100.0} and set(frame["load"]) == {"poisson"}
    assert json.loads(frame["provenance"][0]) == {"a": [1.5]}

    again = Kept(tmp_path / "none", 100)
    with Journal(tmp_path / "journal") as journal:
        take_over(tmp_path / "a.parquet", plan, again, journal)
        take_over(tmp_path / "a.parquet", plan, again, journal)
    for each in (again, Kept(tmp_path / "journal", 100)):
        write(EXPERIMENT, plan, each, tmp_path / "b.parquet")
        pd.testing.assert_frame_equal(frame, pd.read_parquet(tmp_path / "b.parquet"))
    with Journal(tmp_path / "journal") as journal:
        take_over(tmp_path / "a.parquet", [Series("other", "poisson", 1, {"rates": [1]}, {"other": 1})], again, journal)
        assert not journal.used


def test_what_is_invalid_and_what_finds_nothing_is_named(tmp_path: Path, kept: Kept):
    plan = [series(search={"start": 1, "most": 100, "precision": 2})]
    kept.add(record(1, why="sent late"))
    kept.add(record(1, trial=2, why="sent late"))
    headers = write(EXPERIMENT, plan, kept, tmp_path / "a.parquet")
    assert invalid(headers) == ["arm under poisson at 1/s (repeat 1): not valid: sent late"]
    assert nothing_found(plan, kept) == ["arm under poisson (repeat 1): no rate passes; at 1/s not valid: sent late"]
    (search,) = read_notes(tmp_path / "a.parquet")["searches"]
    assert search["found_rps"] == 0 and search["reason"] == "no rate passes; at 1/s not valid: sent late"
    other = Kept(tmp_path / "none", 100)
    other.add(record(1, late=100))
    assert nothing_found(plan, other) == ["arm under poisson (repeat 1): no rate passes; at 1/s 0.0% are in time"]


def test_an_experiment_without_records_has_a_file_of_its_columns(tmp_path: Path, kept: Kept):
    write(EXPERIMENT, [series(rates=[1])], kept, tmp_path / "a.parquet")
    frame = pd.read_parquet(tmp_path / "a.parquet")
    assert frame.empty and {*POINT, *REQUEST, "load", "probe", "multiple", "found_rps", "slo_ms"} == set(frame.columns)
