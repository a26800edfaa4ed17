"""Numbers of a run and the way back from each to its records."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import numbers, provenance
from analysis.cli import BadInput
from analysis.records import write_parquet
from tests.analysis import served, synthetic


@pytest.fixture
def made(own: Path) -> Path:
    numbers.write(numbers.collect(own).values(), own / "numbers.tex")
    return own


def test_macros_are_letters_alone_and_each_is_in_the_sidecar(made: Path):
    names = re.findall(r"^\\newcommand\{\\([^}]*)\}\{[^}]+\}%", (made / "numbers.tex").read_text(), re.MULTILINE)
    sidecar = json.loads((made / "numbers.json").read_text())
    assert names == list(sidecar)
    assert len(names) > 100
    assert all(re.fullmatch("[A-Za-z]+", name) for name in names)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KnnCpuTorchBestMs", 2.0),
        ("KnnCpuTritonGain", 2.0),
        ("DistanceSpeedupCpuTritonLTwoDFourZeroNineSixSpeedup", 16.0),
        ("KnnScalingCpuTorchNOneMMs", 150.05),
        ("KnnScalingCpuTorchNOneMLimitPercent", 100 * 30 / 150.05),
        ("KnnSmNineZeroCompiledPruned", 1),
        ("KnnTorchCpuValidatedFailed", 1),
        ("BatchingBatchedAtTwoHits", 0.75),
        ("TimeCpuMinutes", 3),
        ("TimeCpuKernelsPercent", 40),
        ("TimeCpuCompiledAgain", 0),
    ],
)
def test_values_are_those_of_the_records(made: Path, name: str, value: float):
    assert json.loads((made / "numbers.json").read_text())[name]["value"] == pytest.approx(value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SearchedCourseHighest", served.highest(3)),
        ("SearchedBatchedHighest", served.highest(40)),
        ("SearchedBatchedHighestOverFirst", served.highest(40) / served.highest(3)),
        ("SearchedBatchedTimesOneTailMs", served.latency_ms(1, 1)),
        ("SearchedBatchedTimesFourUnanswered", 75),
    ],
)
def test_values_of_searches_are_known(own: Path, name: str, value: float):
    write_parquet(own / "rag/searched.parquet", served.searched({"course": 3.0, "batched": served.highest(40)}, times=(4,)))
    assert numbers.collect(own)[name].value == pytest.approx(value, rel=1e-6)


def test_points_that_are_not_valid_are_in_no_number(own: Path):
    wrong = {"valid": False, "invalid": "sent 60 ms late"}
    rows = [
        *served.point("batched", 8.0, 64.0),
        *served.point("batched", 8.0, 2.0, repeat=2, **wrong),
        *served.point("batched", 16.0, 64.0, **wrong),
    ]
    write_parquet(own / "rag/searched.parquet", rows)
    found = {name: its for name, its in numbers.collect(own).items() if name.startswith("Searched")}
    assert not [name for name in found if "OneSix" in name]
    assert found["SearchedBatchedAtEightTailMs"].value == pytest.approx(served.latency_ms(8, 64))
    assert (found["SearchedBatchedAtEightUnanswered"].value, found["SearchedBatchedAtEightAchieved"].n) == (0, 1)
    assert found["SearchedBatchedAtEightTailMs"].records == {"rag/searched.parquet": ["batched-poisson-8.0-1"]}


def test_records_without_a_valid_point_give_no_numbers(own: Path):
    write_parquet(own / "rag/searched.parquet", served.point("batched", 8.0, 64.0, valid=False, invalid="sent 60 ms late"))
    assert not [name for name in numbers.collect(own) if name.startswith("Searched")]


def test_goodput_over_its_peak_is_of_valid_points(own: Path):
    found = served.highest(3)
    rows = served.searched({"course": found}, times=(2, 4))
    write_parquet(own / "rag/searched.parquet", served.distorted(rows, above=3 * found))
    names = {name for name in numbers.collect(own) if name.endswith("GoodputOverPeak")}
    assert names == {"SearchedCourseTimesOneGoodputOverPeak", "SearchedCourseTimesTwoGoodputOverPeak"}


def test_a_lower_bound_is_a_number_that_says_so(own: Path):
    rows = served.searched({"course": 3.0}) + served.distorted(served.searched({"batched": 40.0}), above=40)
    write_parquet(own / "rag/searched.parquet", rows)
    found = numbers.collect(own)
    assert [found[f"Searched{name}Highest"].at_least for name in ("Course", "Batched")] == [False, True]
    for name in ("SearchedBatchedHighest", "SearchedBatchedHighestOverFirst"):
        assert found[name].text.startswith("≥ ") and "a lower bound" in found[name].what
    numbers.write(found.values(), own / "numbers.tex")
    assert r"\newcommand{\SearchedBatchedHighest}{$\geq$ " in (own / "numbers.tex").read_text()


def test_goodput_in_overload_is_a_number_over_its_peak(own: Path):
    write_parquet(own / "rag/searched.parquet", served.searched({"course": served.highest(3)}, times=(4,)))
    found = numbers.collect(own)
    peak, overload = (found[f"SearchedCourseTimes{word}Achieved"].value for word in ("One", "Four"))
    assert found["SearchedCourseTimesFourGoodputOverPeak"].value == pytest.approx(overload / peak, rel=0.02)


def test_loads_are_named_where_there_are_several(own: Path):
    rows = [row for load in ("poisson", "gamma") for row in served.point("batched", 8.0, 64.0, load=load)]
    write_parquet(own / "rag/searched.parquet", rows)
    names = {name for name in numbers.collect(own) if name.startswith("Searched") and name.endswith("TailMs")}
    assert names == {"SearchedBatchedPoissonAtEightTailMs", "SearchedBatchedGammaAtEightTailMs"}


def test_an_entry_leads_to_the_records_that_give_its_value(made: Path):
    entry = provenance.lookup("KnnScalingCpuTorchNOneMMs", made)
    ((file, frame),) = provenance.records(entry, made).items()
    assert file == "bench/knn_scaling.cpu.parquet"
    assert np.median(frame["samples_ms"].iloc[0]) == pytest.approx(entry["value"])
    assert entry["n"] == len(frame["samples_ms"].iloc[0])


def test_a_number_of_time_names_the_files_that_hold_the_accounts(made: Path):
    entry = provenance.lookup("TimeCpuMinutes", made)
    assert entry["records"] == {"sweep/knn.cpu.parquet": [], "bench/knn_scaling.cpu.parquet": [], "bench/distance_speedup.cpu.parquet": []}
    assert (entry["n"], entry["unit"], entry["device"], entry["commit"]) == (3, "min", synthetic.CPU, [synthetic.COMMIT])
    assert "node7" in "\n".join(provenance.lines("TimeCpuMinutes", made))


def test_records_without_accounts_give_no_numbers_of_time(own: Path):
    write_parquet(own / "sweep/knn.cpu.parquet", synthetic.sweeps())
    write_parquet(own / "bench/knn_scaling.cpu.parquet", synthetic.scalings())
    assert not [name for name in numbers.collect(own) if name.startswith("Time")]


def test_a_speedup_names_both_of_its_records(made: Path):
    entry = provenance.lookup("KnnScalingCpuTorchNOneMSpeedup", made)
    (frame,) = provenance.records(entry, made).values()
    assert set(frame["backend"]) == {"numpy", "torch"}
    times = frame.set_index("backend")["samples_ms"].map(np.median)
    assert times["numpy"] / times["torch"] == pytest.approx(entry["value"])


def test_provenance_says_commit_host_job_and_device(made: Path):
    text = "\n".join(provenance.lines("KnnCpuTorchBestMs", made))
    for part in ("2.00 ms", synthetic.COMMIT, "node7", "Slurm job 4242", synthetic.CPU, "GPU-1", "kernels.sweep", "ROWS=1024"):
        assert part in text
    assert "stale" not in text


def test_a_number_that_the_records_no_longer_give_is_stale(made: Path):
    path = made / "sweep/knn.cpu.parquet"
    rows = [row | {"samples_ms": [3 * value for value in row["samples_ms"]]} for row in synthetic.sweeps()]
    write_parquet(path, rows)
    assert "stale: the records now give 6.00" in "\n".join(provenance.lines("KnnCpuTorchBestMs", made))


def test_a_misspelled_number_gets_the_nearest(made: Path):
    with pytest.raises(BadInput, match=r"KnnCpuTrchBestMs: no such number .* KnnCpuTorchBestMs"):
        provenance.lookup("KnnCpuTrchBestMs", made)


def test_without_numbers_the_command_that_makes_them_is_named(own: Path):
    with pytest.raises(BadInput, match=r"python -m analysis\.numbers"):
        provenance.lookup("KnnCpuTorchBestMs", own)


def test_two_numbers_of_one_name_are_refused(own: Path):
    frame = pd.read_parquet(own / "bench/knn_scaling.cpu.parquet")
    frame.to_parquet(own / "bench/knn-scaling.cpu.parquet")
    with pytest.raises(BadInput, match=r"knn_scaling.cpu.parquet: a second number called"):
        numbers.collect(own)


def test_a_folder_without_records_has_no_numbers(tmp_path: Path):
    with pytest.raises(BadInput, match="no records"):
        numbers.collect(tmp_path)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("knn_scaling", "cpu", "torch", "n", 20000, "Ms"), "KnnScalingCpuTorchNTwoZeroKMs"),
        (("a6000", "l1", "d", 4_000_000), "ASixZeroZeroZeroLOneDFourM"),
        (("at", 0.5), "AtZeroPointFive"),
        (("my_file:my_function",), "MyFileMyFunction"),
    ],
)
def test_names_spell_digits(words: tuple[object, ...], name: str):
    assert numbers.letters(*words) == name
