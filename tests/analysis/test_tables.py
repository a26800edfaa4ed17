"""Every table, from made-up records: its values are what the records give, in all three forms."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.accounts import CAUSES
from analysis.cli import BadInput
from analysis.records import write_parquet
from analysis.statistics import Summary
from analysis.tables import bench, capacity, compile, environment, escape, interval, rag, spent, sweep, validate, write
from tests.analysis import served, synthetic


def stored(folder: Path, rows: list[dict[str, Any]]) -> Path:
    write_parquet(folder / "records.parquet", rows)
    return folder / "records.parquet"


def test_compile_counts_verdicts_and_ranges(written: Path):
    table = compile.table(sorted(written.glob("compile/*.parquet")))
    assert table["architecture"].tolist() == ["sm_80", "sm_90"]
    first = table.iloc[0]
    assert (first["variants"], first["ok"], first["pruned"], first["failed"]) == (3, 2, 1, 0)
    assert first["registers"] == "150–250"
    assert first["with spills"] == 1
    assert first["shared memory, most (KiB)"] == pytest.approx(240_000 / 1024)
    assert first["compiling (s)"] == pytest.approx(4.5)


def test_compile_in_full_has_a_row_a_variant(written: Path):
    table = compile.table(sorted(written.glob("compile/*.parquet")), full=True)
    assert len(table) == 6
    assert table["block"].tolist()[:3] == ["BLOCK_N=64", "BLOCK_N=128", "BLOCK_N=192"]
    assert table["spills (B)"].tolist()[:3] == [0, 0, 128]


def test_an_operator_without_variants_gives_no_row(tmp_path: Path):
    assert compile.table([stored(tmp_path, [])]).empty


def test_validate_counts_failures_and_names_the_first(written: Path):
    table = validate.table([written / "validate/knn.torch.cpu.parquet"])
    row = table.iloc[0]
    assert (row["checks"], row["failed"]) == (3, 1)
    assert row["largest error"] == pytest.approx(0.3)
    assert "ids differ in row 0" in table.attrs["note"]


def test_sweep_names_the_fastest_block_beside_the_default(written: Path):
    table = sweep.table([written / "sweep/knn.cpu.parquet"]).set_index("backend")
    triton = table.loc["triton"]
    assert triton["fastest block"] == "BLOCK_Q=64, BLOCK_N=128, num_warps=4"
    assert triton["median (ms)"].median == pytest.approx(0.5)
    assert triton["default (ms)"].median == pytest.approx(0.5 * 2)
    assert triton["gain"].median == pytest.approx(2)
    assert triton["verdict"] == "faster"
    assert (triton["measured"], triton["pruned"], triton["failed"]) == (28, 2, 2)


def test_a_gain_inside_the_noise_is_no_gain(tmp_path: Path):
    rows = [row | {"noise": 1.5} for row in synthetic.sweeps()]
    assert set(sweep.table([stored(tmp_path, rows)])["verdict"]) == {"within noise"}


def test_bench_sets_times_beside_limit_and_numpy(written: Path):
    table = bench.table([written / "bench/distance_speedup.cpu.parquet"])
    row = table[(table["problem"] == "metric=l2, d=4096") & (table["backend"] == "triton")].iloc[0]
    assert row["median (ms)"].median == pytest.approx(1e-3 * 64 / 2)
    assert row["median (ms)"].n == 31
    assert row["limit (ms)"] == pytest.approx(2e-4 * 64)
    assert row["of the limit (%)"] == pytest.approx(40)
    assert row["over NumPy"].median == pytest.approx(16)
    assert len(table) == 36
    for part in (synthetic.CPU, "the kernel alone", "n=1000", "31 samples"):
        assert part in table.attrs["note"]


def test_what_could_not_run_stands_in_the_note_with_its_reason(tmp_path: Path):
    rows = synthetic.scalings()
    rows[2] |= {"status": "failed", "reason": "ModuleNotFoundError: No module named 'faiss'", "samples_ms": [], "limit_ms": None}
    table = bench.table([stored(tmp_path, rows)])
    assert "faiss: 1 failed (ModuleNotFoundError: No module named 'faiss')." in table.attrs["note"]
    assert table["backend"].tolist().count("faiss") == 3


def test_rag_counts_what_was_not_answered_as_infinite(written: Path):
    rows = [row for row in synthetic.requests() if row["arm"] == "baseline" and row["rate"] == 8]
    took = sorted((row["end_s"] - row["scheduled_s"]) * 1000 if row["status"] == "ok" else np.inf for row in rows)
    table = rag.table([written / "rag/batching.parquet"], slo_ms=500)
    row = table[(table["arm"] == "baseline") & (table["offered (1/s)"] == 8)].iloc[0]
    assert took[59] == pytest.approx(row["p50 (ms)"].median)
    assert row["p99 (ms)"].median == np.inf
    assert row["ok"] + row["rejected"] + row["timeout"] == 120
    answered = [row["rank"] for row in rows if row["status"] == "ok"]
    assert row["hit@2"] == pytest.approx(np.mean([rank > 0 for rank in answered]))
    assert "Weights: random." in table.attrs["note"]


def test_rag_has_multiples_of_the_highest_rate_and_no_rate_on_the_way_to_it(tmp_path: Path):
    table = rag.table([stored(tmp_path, served.searched({"course": 3.0, "batched": 40.0}, times=(2,)))], slo_ms=500)
    assert table["arm"].tolist() == ["course", "course", "batched", "batched"]
    assert table["times the highest"].tolist() == [1, 2, 1, 2]
    assert table["offered (1/s)"].tolist() == [factor * served.highest(limit) for limit in (3, 40) for factor in (1, 2)]
    assert "Weights: random, the embedder's pretrained." in table.attrs["note"]


def test_rag_marks_what_is_not_valid_with_the_reason(tmp_path: Path):
    rows = [*served.point("a", 4.0, 64.0), *served.point("a", 8.0, 64.0, valid=False, invalid="sent 60 ms late")]
    assert rag.table([stored(tmp_path, rows)])["not valid"].tolist() == ["", "sent 60 ms late"]
    assert "Not valid, all rows: sent 60 ms late." in rag.table([stored(tmp_path, rows[100:])]).attrs["note"]


def test_rag_leaves_out_repeats_that_are_not_valid_beside_one_that_is(tmp_path: Path):
    wrong = served.point("a", 8.0, 2.0, repeat=2, valid=False, invalid="sent 60 ms late")
    rows = [*served.point("a", 4.0, 64.0), *served.point("a", 8.0, 64.0), *wrong]
    _, row = rag.table([stored(tmp_path, rows)]).to_dict("records")
    assert (row["ok"], row["not valid"]) == (100, "1 of 2 repeats left out: sent 60 ms late")
    assert row["p99 (ms)"].median == pytest.approx(served.latency_ms(8, 64))
    assert row["achieved (1/s)"].n == 1


def test_rag_keeps_loads_apart(tmp_path: Path):
    rows = [*served.point("a", 4.0, 64.0, load="poisson"), *served.point("a", 4.0, 2.0, load="gamma")]
    table = rag.table([stored(tmp_path, rows)])
    assert table[["load", "ok"]].to_numpy().tolist() == [["poisson", 100], ["gamma", 50]]


def test_capacity_has_the_highest_rate_and_what_failed_above(tmp_path: Path):
    arms = {"course": 3.0, "batched": 40.0, "slow": 0.1}
    table = capacity.table([stored(tmp_path, served.searched(arms, repeats=(1.0, 1.2, 0.9)))])
    course, batched, slow = (row for _, row in table.iterrows())
    assert course["ratio"] is None
    highest = [served.highest(40 * factor) for factor in (1, 1.2, 0.9)]
    assert (batched["highest rate (1/s)"].median, batched["highest rate (1/s)"].n) == (highest[0], 3)
    assert batched["ratio"].median == highest[0] / served.highest(3)
    assert batched["p99 there (ms)"].median == pytest.approx(
        np.median([served.latency_ms(rate, 40 * by) for rate, by in zip(highest, (1, 1.2, 0.9), strict=True)])
    )
    assert highest[0] < batched["fails at (1/s)"].median <= 1.1 * highest[0]
    assert batched["why"].endswith("% not in time")
    assert slow["highest rate (1/s)"].median == 0
    assert slow["p99 there (ms)"] is None
    for part in (synthetic.CPU, "within 500 ms", "Weights: random, the embedder's pretrained.", "3 repeats", "ratio is to course"):
        assert part in table.attrs["note"]
    write(table, tmp_path / "capacity")


def test_capacity_names_points_that_are_not_valid_and_searches_that_are_not_over(tmp_path: Path):
    rows = served.distorted(served.searched({"batched": 40.0}), above=40)
    open_search = [row | {"found_rps": math.nan} for row in served.searched({"course": 3.0})]
    table = capacity.table([stored(tmp_path, rows + open_search)])
    assert table["why"].tolist() == ["not valid: sent 60 ms late"]
    assert "1 searches are not over." in table.attrs["note"]
    assert "1 lower bound (what failed above is not valid)." in table.attrs["note"]


def test_a_highest_rate_below_a_point_that_is_not_valid_is_a_lower_bound_and_no_denominator(tmp_path: Path):
    first, second = served.searched({"course": 3.0, "batched": 40.0}), served.searched({"course": 3.0}, load="bursts")
    second += served.searched({"batched": 40.0}, load="bursts")
    rows = [*(row for row in first if row["arm"] == "course"), *served.distorted([row for row in first if row["arm"] == "batched"], 40)]
    rows += [*served.distorted([row for row in second if row["arm"] == "course"], 3), *(row for row in second if row["arm"] == "batched")]
    table = capacity.table([stored(tmp_path, rows)]).set_index(["arm", "load"])
    assert table["bound"].to_dict() == {
        ("course", "poisson"): "",
        ("batched", "poisson"): "at least",
        ("course", "bursts"): "at least",
        ("batched", "bursts"): "",
    }
    assert table.loc[("batched", "poisson"), "ratio"].median == served.highest(40) / served.highest(3)
    assert table.loc[("batched", "bursts"), "ratio"] is None


def test_a_repeat_whose_search_is_not_over_is_left_out_of_the_capacity(tmp_path: Path):
    (row,) = capacity.table([stored(tmp_path, served.one_repeat_open("batched", 40.0))]).to_dict("records")
    assert (row["highest rate (1/s)"].median, row["highest rate (1/s)"].n) == (served.highest(48), 1)
    assert row["p99 there (ms)"].median == pytest.approx(served.latency_ms(served.highest(48), 48))
    assert row["why"].endswith("% not in time")


def test_capacity_without_a_search_that_is_over_says_so(tmp_path: Path):
    table = capacity.table([stored(tmp_path, served.point("a", 4.0, 64.0))])
    assert table.empty
    assert table.attrs["note"] == "Not one search is over."


def test_the_mean_reciprocal_rank_counts_misses_as_zero(tmp_path: Path):
    ranks = [1, 2, 4, 0]
    rows = [synthetic.request("a", 1.0, 0, number, number, number + 0.5, rank=rank) for number, rank in enumerate(ranks)]
    row = rag.table([stored(tmp_path, rows)]).iloc[0]
    assert row["MRR"] == pytest.approx((1 + 1 / 2 + 1 / 4) / 4)
    assert row["hit@2"] == pytest.approx(3 / 4)


def test_environment_has_a_row_a_device_driver_and_commit(written: Path):
    table = environment.table(sorted(written.glob("*/*.parquet")))
    assert set(table["device"]) == {synthetic.CPU}
    assert table["records"].sum() == 18 * 2 + 12 + 36 + 720 + 3
    assert "numpy 2.4.6" in table["versions"].iloc[0]


def test_two_devices_share_no_table(tmp_path: Path):
    rows = [row | {"device": f"GPU {number % 2}"} for number, row in enumerate(synthetic.scalings())]
    with pytest.raises(BadInput, match="2 devices"):
        bench.table([stored(tmp_path, rows)])


def test_the_three_forms_hold_the_same_values(written: Path, tmp_path: Path):
    table = sweep.table([written / "sweep/knn.cpu.parquet"])
    write(table, tmp_path / "sweep")
    values = pd.read_csv(tmp_path / "sweep.csv")
    assert values["median (ms)"].tolist() == [its.median for its in table["median (ms)"]]
    assert values["median (ms) low"].tolist() == [its.low for its in table["median (ms)"]]
    tex, markdown = ((tmp_path / f"sweep.{ending}").read_text() for ending in ("tex", "md"))
    for its in table["median (ms)"]:
        assert interval(its) in tex
        assert interval(its) in markdown
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"BLOCK\_Q=64"):
        assert rule in tex
    assert table.attrs["note"].rstrip(".") in markdown


def test_cells_are_escaped_for_latex():
    assert escape("50 % of a_b & {c} #1 ~ ^ \\ <é> 日 ∞") == (
        r"50 \% of a\_b \& \{c\} \#1 \textasciitilde{} \textasciicircum{} \textbackslash{} \textless{}é\textgreater{} ? $\infty$"
    )


@pytest.mark.parametrize(
    ("its", "text"),
    [
        (Summary(1.2345, 1.2, 1.3, 30), "1.23 [1.20, 1.30]"),
        (Summary(0.001, 0.0009996, 0.00101, 30), "0.00100 [0.00100, 0.00101]"),
        (Summary(1234.5, float("nan"), float("nan"), 1), "1234"),
        (Summary(float("inf"), 3.0, float("inf"), 9), "∞ [3.00, ∞]"),
    ],
    ids=["plain", "rounds up", "one sample", "infinite"],
)
def test_intervals_are_written_with_three_digits(its: Summary, text: str):
    assert interval(its) == text


def counted(folder: Path, name: str, statuses: dict[str, int], *jobs: dict[str, Any]) -> Path:
    """A record file with so many points of each status, `copied` among them, and the accounts of `jobs`."""
    rows = [
        {
            "status": "measured" if status == "copied" else status,
            "reason": "",
            "provenance": synthetic.provenance(**({"copied": True} if status == "copied" else {})),
        }
        for status, count in statuses.items()
        for _ in range(count)
    ]
    write_parquet(folder / f"{name}.parquet", rows, {"jobs": jobs})
    return folder / f"{name}.parquet"


def test_spent_counts_points_and_shares_minutes(tmp_path: Path):
    missed = "knn_kernel: the compile stage compiled no kernel of this name"
    one = counted(
        tmp_path,
        "knn.h200",
        {"measured": 5, "stopped": 4, "pruned": 3, "failed": 2, "copied": 7},
        synthetic.account(device=synthetic.GPU, compile_hits=9, compile_missed=[missed, missed]),
        synthetic.account(after=500, device=synthetic.GPU, queued=90.0, compile_hits=1),
    )
    two = counted(tmp_path, "gemm.h200", {"measured": 1}, synthetic.account("gemm", 60, device=synthetic.GPU, queued=None))
    counted_points = spent.table([one, two], points=True)
    knn, gemm, every = (row for _, row in counted_points.iterrows())
    assert [knn["experiment"], gemm["experiment"], every["experiment"]] == ["sweep knn", "sweep gemm", "all"]
    counts = {"jobs": 2, "measured": 5, "raced out": 4, "pruned": 3, "failed": 2, "copied": 7, "found compiled": 10, "compiled again": 2}
    assert {name: knn[name] for name in counts} == counts
    assert every["measured"] == 6
    assert counted_points.attrs["note"] == f"{synthetic.GPU}. Zero throughout: wrong. Compiled again: 2 × {missed}."
    knn, gemm, every = (row for _, row in spent.table([one, two]).iterrows())
    assert knn["queued (min)"] == pytest.approx((25 + 85) / 60)
    assert knn["GPU minutes"] == pytest.approx(2)
    assert knn["wall (min)"] == pytest.approx((85 + 145) / 60)
    assert math.isnan(gemm["queued (min)"])
    assert every["GPU minutes"] == pytest.approx(2 + 55 / 60)
    assert every["kernels"] == pytest.approx(100 * 72 / 175)
    assert sum(every[cause] for cause in CAUSES) == pytest.approx(100)


def test_spent_keeps_devices_apart_and_says_which_minutes(written: Path, tmp_path: Path):
    gpu = counted(tmp_path, "gemm.h200", {"measured": 1}, synthetic.account("gemm", device=synthetic.GPU))
    both = spent.table([written / "sweep/knn.cpu.parquet", written / "bench/knn_scaling.cpu.parquet", gpu])
    assert both[["experiment", "device", "minutes"]].to_numpy().tolist() == [
        ["sweep knn", synthetic.CPU, pytest.approx(2)],
        ["bench knn_scaling", synthetic.CPU, pytest.approx(1)],
        ["sweep gemm", synthetic.GPU, pytest.approx(1)],
        ["all", synthetic.CPU, pytest.approx(3)],
    ]
    assert "CPU minutes" in spent.table([written / "sweep/knn.cpu.parquet"])


def test_spent_of_jobs_by_hand_does_not_say_that_they_never_waited(tmp_path: Path):
    table = spent.table([counted(tmp_path, "knn.cpu", {"measured": 1}, synthetic.account(queued=None))])
    assert "queued (min)" not in table
    assert "Unknown: queued (min)." in table.attrs["note"]


def test_spent_of_old_records_says_that_they_hold_no_accounts(tmp_path: Path):
    write(spent.table([counted(tmp_path, "knn.cpu", {"measured": 1})]), tmp_path / "spent")
    for ending in ("md", "tex"):
        assert "no accounts of time" in (tmp_path / f"spent.{ending}").read_text()
