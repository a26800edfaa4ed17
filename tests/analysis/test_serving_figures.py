"""The figures of RAG experiments, from records of services whose capacity is known: what is drawn is what they answer."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis import catalog
from analysis.cli import BadInput
from analysis.figures import capacity, latency, loads, overload, policy, quality, stages, throughput, ttft
from analysis.records import write_parquet
from analysis.style import save
from tests.analysis import served, synthetic

ARMS = {"course": 3.0, "batched": 40.0, "overlapped": 380.0}
POLICIES = served.varied(max_batch=[1, 4, 16], wait_ms=[0, 20])


def stored(folder: Path, rows: list[dict[str, Any]]) -> Path:
    write_parquet(folder / "records.parquet", rows)
    return folder / "records.parquet"


def head(figure: Any) -> str:
    return figure._suptitle.get_text()


def lines(axis: Any) -> dict[str, tuple[list[float], list[float]]]:
    """x and y of every labelled series of error bars."""
    return {bars.get_label(): (list(bars.lines[0].get_xdata()), list(bars.lines[0].get_ydata())) for bars in axis.containers}


def cells(axis: Any) -> dict[tuple[float, float], str]:
    return {text.get_position(): text.get_text() for text in axis.texts}


def test_capacity_is_the_rate_that_the_search_found_beside_its_ratio_to_the_first(tmp_path: Path):
    figure = capacity.draw(stored(tmp_path, served.searched(ARMS)))
    (axis,) = figure.axes
    drawn = {bars.lines[0].get_ydata()[0]: bars.lines[0].get_xdata()[0] for bars in axis.containers}
    assert drawn == {row: served.highest(limit) for row, limit in enumerate(ARMS.values())}
    assert [label.get_text() for label in axis.get_yticklabels()] == list(ARMS)
    ratio = served.highest(380) / served.highest(3)
    assert [text.get_text() for text in axis.texts] == [
        "",
        *(f"{each:.1f} ×" for each in [served.highest(40) / served.highest(3)]),
        f"{ratio:.0f} ×",
    ]
    assert axis.get_xscale() == "log"
    for part in (
        synthetic.CPU,
        "within 500 ms",
        "right: ratio to course",
        "1 repeat (no interval)",
        "weights: random, the embedder's pretrained",
    ):
        assert part in head(figure)


def test_capacity_has_a_bracket_up_to_the_rate_that_failed(tmp_path: Path):
    (axis,) = capacity.draw(stored(tmp_path, served.searched({"batched": 40.0}, repeats=(1.0, 1.2)))).axes
    brackets = [
        tuple(line.get_xdata())
        for line in axis.lines
        if line.get_marker() == "|" and len(line.get_xdata()) == 2 and line.get_color() == "#555555"
    ]
    assert [low for low, _ in brackets] == [served.highest(40), served.highest(48)]
    assert all(low <= limit < high <= low * 1.1 for (low, high), limit in zip(brackets, (40.0, 48.0), strict=True))


def test_an_arm_that_meets_the_objective_at_no_rate_is_said_to(tmp_path: Path):
    figure = capacity.draw(stored(tmp_path, served.searched({"course": 3.0, "slow": 0.1})))
    assert [text.get_text() for text in figure.axes[0].texts] == ["", "none met it"]
    save(figure, tmp_path / "figure")


def test_a_search_that_is_not_over_is_left_out_and_counted(tmp_path: Path):
    rows = served.searched({"course": 3.0}) + [row | {"found_rps": math.nan} for row in served.searched({"batched": 40.0})]
    figure = capacity.draw(stored(tmp_path, rows))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["course"]
    assert "1 searches not over, left out" in head(figure)


def test_capacity_of_one_repeat_is_that_whose_search_is_over(tmp_path: Path):
    (axis,) = capacity.draw(stored(tmp_path, served.one_repeat_open("batched", 40.0))).axes
    assert [bars.lines[0].get_xdata()[0] for bars in axis.containers] == [served.highest(48)]


@pytest.mark.parametrize("against", [None, "instances"])
def test_a_lower_bound_is_hollow(against: str | None, tmp_path: Path):
    arms = served.varied(instances=[1, 2])
    first, second = ([row for row in served.searched(dict.fromkeys(arms, 40.0), arms) if row["arm"] == arm] for arm in arms)
    figure = capacity.draw(stored(tmp_path, first + served.distorted(second, above=40)), against=against)
    (axis,) = figure.axes
    hollow = [
        (line.get_xdata()[0], line.get_ydata()[0]) for line in axis.lines if line.get_markerfacecolor() == "white" and len(line.get_xdata())
    ]
    assert hollow == [(served.highest(40), 1) if against is None else (2, served.highest(40))]
    assert "hollow: 1 lower bound (what failed above is not valid)" in head(figure)
    assert "not valid, counted as not in time" in head(figure)
    if against is None:
        assert [text.get_text() for text in axis.texts] == ["", "≥ 1.00 ×"]


def test_capacity_over_instances_has_the_proportional_line(tmp_path: Path):
    arms = served.varied(instances=[1, 2, 4])
    rows = served.searched({arm: 30.0 * its["instances"] ** 0.5 for arm, its in arms.items()}, arms, repeats=(1.0, 1.1, 0.9))
    (axis,) = capacity.draw(stored(tmp_path, rows), against="instances").axes
    first = served.highest(30)
    assert lines(axis) == {"batched": ([1, 2, 4], [served.highest(30 * n**0.5) for n in (1, 2, 4)])}
    (ideal,) = (line for line in axis.lines if line.get_linestyle() == ":")
    assert list(ideal.get_ydata()) == [first, 2 * first, 4 * first]


def test_a_factor_that_no_arm_and_no_load_has_is_refused(tmp_path: Path):
    arms = served.varied(instances=[1, 2])
    with pytest.raises(BadInput, match=r"--against nprobe: no arm or load of .* has it as a number; one of chunks, instances"):
        capacity.draw(stored(tmp_path, served.searched(dict.fromkeys(arms, 30.0), arms)), against="nprobe")


def test_a_search_again_counts_instead_of_the_first_and_not_beside_it(tmp_path: Path):
    first, again = (served.searched({"batched": limit}, attempt=attempt) for attempt, limit in ((1, 40.0), (2, 90.0)))
    (axis,) = throughput.draw(stored(tmp_path, first + again)).axes
    assert set(lines(axis)["batched"][0]) == {row["rate"] for row in again}


def test_a_policy_map_has_the_highest_rate_of_each_arm(tmp_path: Path):
    limits = {arm: 10.0 * its["max_batch"] / (1 + its["wait_ms"]) for arm, its in POLICIES.items()}
    figure = policy.draw(stored(tmp_path, served.searched(limits, POLICIES)))
    axis = figure.axes[0]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("largest batch (requests)", "wait for a fuller batch (ms)")
    assert cells(axis)[2, 0] == f"{served.highest(160):.0f}"
    assert cells(axis)[1, 1] == f"{served.highest(40 / 21):.2f}"
    assert cells(axis)[0, 1] == "0"  # below a request a second
    outlines = [patch for patch in axis.patches if not patch.get_fill()]
    assert [(round(patch.get_x() + 0.46), round(patch.get_y() + 0.46)) for patch in outlines] == [(2, 0)]
    assert len([patch for patch in axis.patches if patch.get_hatch()]) == 1


def test_without_a_search_a_policy_map_is_of_the_tail_at_each_rate(tmp_path: Path):
    rows = []
    for arm, its in POLICIES.items():
        valid = its != {"service": "batched", "max_batch": 4, "wait_ms": 20}
        for rate in (20.0, 80.0):
            rows += served.point(
                arm, rate, 50.0 * its["max_batch"], arm_settings=json.dumps(its), valid=valid, invalid="" if valid else "late"
            )
    rows += served.point("course", 20.0, 3.0, arm_settings=json.dumps({"service": "course"}))
    figure = policy.draw(stored(tmp_path, rows))
    low, high = (next(axis for axis in figure.axes if f"{rate} requests/s" in axis.get_title()) for rate in (20, 80))
    assert cells(low)[0, 0] == f"{served.latency_ms(20, 50):.0f}"
    assert cells(high)[0, 0] == "∞"
    assert cells(high)[1, 1] == "?"
    assert "1 arms without these settings left out" in head(figure)
    assert "2 points not valid, left out" in head(figure)


def test_arms_that_differ_in_one_number_have_no_policy_map(tmp_path: Path):
    arms = served.varied(instances=[1, 2])
    (axis,) = policy.draw(stored(tmp_path, served.searched(dict.fromkeys(arms, 30.0), arms))).axes
    assert "fewer than two settings" in axis.texts[0].get_text()


def heights(axis: Any) -> dict[str, list[float]]:
    return {bars.get_label(): [bar.get_height() for bar in bars] for bars in axis.containers}


def test_stages_are_means_and_add_up_to_the_latency(tmp_path: Path):
    rates, limits = (4.0, 16.0, 64.0), {"course": 8.0, "batched": 64.0}
    rows = [row for arm, limit in limits.items() for rate in rates for row in served.point(arm, rate, limit)]
    figure = stages.draw(stored(tmp_path, rows))
    for axis, (arm, limit) in zip(figure.axes, limits.items(), strict=True):
        assert axis.get_title() == arm
        assert heights(axis)["queue"] == pytest.approx([served.queue_ms(rate, limit) for rate in rates])
        assert heights(axis)["generate"] == pytest.approx([80] * 3)
        assert heights(axis)["outside the service"] == pytest.approx([served.OUTSIDE_MS] * 3)
        assert np.sum(list(heights(axis).values()), axis=0) == pytest.approx([served.latency_ms(rate, limit) for rate in rates])


def test_stages_over_the_chunks_that_an_index_has(tmp_path: Path):
    arms = served.varied(chunks=[1000, 0])
    sizes = dict(zip(arms, (1000, 90_000), strict=True))
    rows = [
        row
        for arm, its in arms.items()
        for row in served.point(arm, 8.0, 64.0, arm_settings=json.dumps(its), chunks=sizes[arm], retrieve_ms=sizes[arm] / 10_000)
    ]
    (axis,) = stages.draw(stored(tmp_path, rows), against="chunks").axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ["1000", "90k"]
    assert heights(axis)["retrieve"] == pytest.approx([0.1, 9])


def burst(arm: str, limit: float, repeat: int = 1, **more: Any) -> list[dict[str, Any]]:
    rows = []
    for name, burstiness in (("poisson", None), ("gamma_low", 4), ("gamma", 13)):
        settings = json.dumps({"arrivals": name} | ({"burstiness": burstiness} if burstiness else {}))
        rows += served.point(arm, 16.0, limit / (burstiness or 1), repeat, name, load_settings=settings, **more)
    return rows


def test_loads_stand_side_by_side_with_latency_and_goodput(tmp_path: Path):
    figure = loads.draw(stored(tmp_path, burst("batched", 160.0) + burst("overlapped", 640.0)))
    median, tail, good = figure.axes
    assert [label.get_text() for label in tail.get_xticklabels()] == ["poisson", "gamma_low", "gamma"]
    assert lines(median)["overlapped"][1] == pytest.approx([served.latency_ms(16, 640 / burstiness) for burstiness in (1, 4, 13)])
    assert lines(tail)["batched"][1][:2] == pytest.approx([served.latency_ms(16, 160), served.latency_ms(16, 40)])
    assert math.isnan(lines(tail)["batched"][1][2])  # the service kept up with 160 / 13 requests a second
    assert "arrow: infinite" in head(figure)
    assert lines(good)["batched"][1][2] == pytest.approx(lines(good)["batched"][1][0] * 160 / 13 / 16, rel=0.02)
    save(figure, tmp_path / "figure")


def test_loads_over_burstiness_have_poisson_at_1_and_leave_out_those_without(tmp_path: Path):
    constant = served.point("overlapped", 16.0, 640.0, load="constant", load_settings=json.dumps({"arrivals": "constant"}))
    _, tail, _ = loads.draw(stored(tmp_path, burst("overlapped", 640.0) + constant), against="burstiness").axes
    x, y = lines(tail)["overlapped"]
    assert x == [1, 4, 13]
    assert y == pytest.approx([served.latency_ms(16, 640 / burstiness) for burstiness in (1, 4, 13)])


def test_loads_stand_side_by_side_where_the_factor_is_one_of_the_arms(tmp_path: Path):
    arms = served.varied(instances=[1, 2])
    rows = [row for arm, its in arms.items() for row in burst(arm, 640.0, arm_settings=json.dumps(its))]
    _, tail, _ = loads.draw(stored(tmp_path, rows), against="instances").axes
    assert set(lines(tail)) == set(arms)


def test_capacity_over_burstiness_is_one_line_an_arm(tmp_path: Path):
    rows = []
    for name, burstiness in (("poisson", 1), ("bursts", 8)):
        settings = json.dumps({"arrivals": "gamma", "burstiness": burstiness})
        rows += served.searched({"batched": 80 / burstiness}, load=name, load_settings=settings)
    (axis,) = capacity.draw(stored(tmp_path, rows), against="burstiness").axes
    assert lines(axis) == {"batched": ([1, 8], [served.highest(80), served.highest(10)])}


def test_overload_sets_goodput_against_its_peak(tmp_path: Path):
    rows = served.searched({"batched": 40.0}, times=(0.5, 2, 4), repeats=(1.0, 1.1))
    figure = overload.draw(stored(tmp_path, rows))
    good, refused, lost = figure.axes

    def goodput(rate: float, capacity: float) -> float:
        answered = sum(row["status"] == "ok" for row in served.point("batched", rate, capacity))
        last = max(row["end_s"] for row in served.point("batched", rate, capacity) if row["status"] == "ok")
        return answered / max(last, served.REQUESTS / rate)

    expected = []
    for multiple in (0.5, 1, 2, 4):
        shares = []
        for limit in (40.0, 44.0):
            tried = {row["rate"] for row in rows if row["found_rps"] == served.highest(limit)}
            shares.append(goodput(multiple * served.highest(limit), limit) / max(goodput(rate, limit) for rate in tried))
        expected.append(np.mean(shares))
    assert lines(good)["batched"] == ([0.5, 1, 2, 4], pytest.approx(expected))
    assert lines(refused)["batched"][1] == pytest.approx([0, 0, 0.5, 0.75], abs=0.06)
    assert lines(lost)["batched"][1] == [0] * 4
    assert "answers within 500 ms" in head(figure)


def test_records_without_multiples_have_no_overload(tmp_path: Path):
    rows = served.point("batched", 8.0, 40.0)
    (axis,) = overload.draw(stored(tmp_path, rows)).axes
    assert "No overload" in axis.texts[0].get_text()


def ranked(arm: str, misses: int, **more: Any) -> list[dict[str, Any]]:
    """Of 20 questions the first `misses` do not find their source, the others as the second."""
    rows = served.point(arm, 8.0, 64.0, **more)
    return [row | {"rank": 0 if number % 20 < misses else 2} for number, row in enumerate(rows)]


def test_quality_is_the_share_of_hits_and_the_reciprocal_rank(tmp_path: Path):
    rows = ranked("knn", 0, retrieve_ms=30.0) + ranked("ivf nprobe=1", 8, retrieve_ms=2.0) + ranked("ivf nprobe=4", 2, retrieve_ms=5.0)
    figure = quality.draw(stored(tmp_path, rows))
    hits, reciprocal = figure.axes
    (knn, ivf) = hits.containers
    assert ivf.lines[0].get_xdata() == pytest.approx([2, 5])
    assert ivf.lines[0].get_ydata() == pytest.approx([0.6, 0.9])
    assert knn.lines[0].get_ydata() == pytest.approx([1])
    assert reciprocal.containers[1].lines[0].get_ydata() == pytest.approx([0.3, 0.45])
    assert [text.get_text() for text in hits.texts] == ["", "1", "4"]
    assert hits.get_ylabel() == "hit@2"
    assert "20 questions an arm" in head(figure)


def test_hollow_marks_are_points_that_are_not_valid(tmp_path: Path):
    rows = [
        row
        for rate in (4.0, 8.0, 16.0)
        for row in served.point("batched", rate, 64.0, valid=rate != 16, invalid="" if rate != 16 else "sent 60 ms late")
    ]
    figure = throughput.draw(stored(tmp_path, rows), slo_ms=500)
    for axis in figure.axes:
        hollow = [line.get_xdata() for line in axis.lines if line.get_markerfacecolor() == "white"]
        assert np.concatenate(hollow).tolist() == [16]
    assert "1 point not valid, hollow" in head(figure)
    assert "1 point not valid, left out" in head(latency.draw(stored(tmp_path, rows)))


def test_latency_of_searches_is_drawn_at_multiples_of_each_arms_highest_rate(tmp_path: Path):
    figure = latency.draw(stored(tmp_path, served.searched(ARMS, times=(2,))))
    assert [axis.get_title() for axis in figure.axes] == ["at the highest rate", "at 2 × the highest rate"]
    ends = [line for line in figure.axes[0].lines if line.get_drawstyle() == "steps-post"]
    limits = [served.latency_ms(served.highest(limit), limit) for limit in ARMS.values()]
    assert [max(line.get_xdata()) for line in ends] == pytest.approx(limits)


def test_each_load_has_panels_of_its_own(tmp_path: Path):
    path = stored(tmp_path, burst("batched", 160.0))
    names = ("poisson", "gamma_low", "gamma")
    assert [axis.get_title() for axis in latency.draw(path).axes] == [f"{name}\n16 requests/s offered" for name in names]
    titles = [axis.get_title() for axis in throughput.draw(path, slo_ms=500).axes]
    assert titles == [f"{name}, {what}" for name in names for what in ("all answers", "answers within 500 ms")]


def test_of_many_rates_some_are_drawn_spread_evenly(tmp_path: Path):
    rows = [row for rate in range(1, 41) for row in served.point("batched", float(rate), 64.0)]
    figure = latency.draw(stored(tmp_path, rows))
    assert len(figure.axes) == latency.MOST_PANELS
    assert f"{latency.MOST_PANELS} of 40 panels, spread evenly" in head(figure)


def test_the_time_to_first_token_is_from_the_schedule(tmp_path: Path):
    rows = [row | {"first_token_s": row["scheduled_s"] + 0.03} for row in served.point("batched", 8.0, 64.0)]
    (axis,) = ttft.draw(stored(tmp_path, rows)).axes
    assert axis.get_xlabel() == "time to first token (ms)"
    assert axis.lines[0].get_xdata() == pytest.approx([30] * (served.REQUESTS + 1))


def test_without_streams_there_is_no_time_to_first_token(tmp_path: Path):
    rows = [row | {"first_token_s": math.nan} for row in served.point("batched", 8.0, 64.0)]
    (axis,) = ttft.draw(stored(tmp_path, rows)).axes
    assert "no answer was streamed" in axis.texts[0].get_text()


@pytest.fixture(scope="module")
def streamed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    arms = served.varied(instances=[1, 2], wait_ms=[0, 20])
    rows = served.searched(dict.fromkeys(arms, 30.0), arms, times=(2,))
    return stored(tmp_path_factory.mktemp("streamed"), [row | {"first_token_s": row["scheduled_s"] + 0.03} for row in rows])


@pytest.mark.parametrize("kind", catalog.RAG_FIGURES)
def test_each_kind_takes_the_options_that_the_catalog_gives_it(kind: str, streamed: Path, monkeypatch: pytest.MonkeyPatch):
    load = {"search": {"start": 4}, "times": [2], "stream": True}
    block = {"load": load, "arms": {}, "vary": {"instances": [1, 2]}, "against": "instances", "slo_ms": 500, "figures": [kind]}
    (item,) = catalog.figures({"rag": {"x": block}}, ["cpu"])
    drawn: list[Any] = []
    monkeypatch.setattr("analysis.style.save", lambda figure, stem: drawn.append(figure))
    monkeypatch.setattr("sys.argv", [kind, str(streamed), "--out", "figure", *item.options])
    assert importlib.import_module(f"analysis.figures.{kind}").main() == 0
    assert synthetic.CPU in head(drawn[0])


@pytest.mark.parametrize("draw", [capacity.draw, loads.draw, stages.draw], ids=lambda draw: draw.__module__.rpartition(".")[2])
def test_a_setting_without_a_name_for_the_axis_is_refused(draw: Any, tmp_path: Path):
    rows = served.searched({"batched": 40.0}, times=(2,), load_settings=json.dumps({"arrivals": "poisson", "seconds": 10}))
    with pytest.raises(BadInput, match=r"--against seconds: nothing is drawn over it; one of chunks, burstiness"):
        draw(stored(tmp_path, rows), against="seconds")


@pytest.mark.parametrize("draw", [latency.draw, throughput.draw], ids=["latency", "throughput"])
def test_many_arms_are_told_apart_and_their_names_fit(draw: Any, tmp_path: Path):
    arms = served.varied(max_batch=[1, 4, 16, 64], wait_ms=[0, 5, 20, 100])
    rows = [row for arm, its in arms.items() for row in served.point(arm, 8.0, 64.0, arm_settings=json.dumps(its))]
    figure = draw(stored(tmp_path, rows))
    figure.draw_without_rendering()
    (legend,) = figure.legends
    inside, frame = legend.get_window_extent(), figure.bbox
    assert inside.x0 >= frame.x0
    assert inside.x1 <= frame.x1
    looks = [(handle.get_color(), handle.get_linestyle(), handle.get_marker()) for handle in legend.get_lines()]
    assert len(set(looks)) == len(looks)
