"""Every figure, drawn from made-up records: what is plotted is what the records give."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex

from analysis.cli import BadInput, run
from analysis.figures import blocks, latency, scaling, speedup, throughput, timeline
from analysis.records import write_parquet
from analysis.style import save
from tests.analysis import synthetic

SPEEDUP, SCALING, SWEEP, RAG = (
    *("bench/distance_speedup.cpu.parquet", "bench/knn_scaling.cpu.parquet"),
    *("sweep/knn.cpu.parquet", "rag/batching.parquet"),
)


def lines(axis: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """x and y of every labelled series of error bars."""
    return {bars.get_label(): (bars.lines[0].get_xdata(), bars.lines[0].get_ydata()) for bars in axis.containers}


def head(figure: Any) -> str:
    return figure._suptitle.get_text()


def stored(folder: Path, rows: list[dict[str, Any]]) -> Path:
    write_parquet(folder / "records.parquet", rows)
    return folder / "records.parquet"


def test_speedups_are_ratios_of_the_medians(written: Path):
    figure = speedup.draw(written / SPEEDUP)
    assert [axis.get_title() for axis in figure.axes] == ["L2", "L1 (Manhattan)"]
    for axis in figure.axes:
        x, y = lines(axis)["torch"]
        assert x.tolist() == [1, 8, 64, 512, 4096, 32768]
        assert y == pytest.approx([2.0] * 6)
        assert lines(axis)["triton"][1] == pytest.approx([8 * (1 + d / 4096) for d in x])
        assert "numpy" not in lines(axis)
        assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
        assert axis.get_ylabel() == "speed over NumPy"


def test_the_head_names_device_problem_samples_and_interval(written: Path):
    text = head(speedup.draw(written / SPEEDUP))
    for part in (synthetic.CPU, "n=1000", "31 samples", "95 % bootstrap interval"):
        assert part in text


def test_problems_without_a_baseline_are_left_out_and_counted(tmp_path: Path):
    rows = [row for row in synthetic.speedups() if not (row["backend"] == "numpy" and "32768" in row["problem"])]
    figure = speedup.draw(stored(tmp_path, rows))
    assert "4 points without a numpy time left out" in head(figure)
    assert max(lines(figure.axes[0])["torch"][0]) == 4096


def test_without_any_baseline_the_figure_says_so(tmp_path: Path):
    rows = [row for row in synthetic.speedups() if row["backend"] != "numpy"]
    (axis,) = speedup.draw(stored(tmp_path, rows)).axes
    assert "No speed-up" in axis.texts[0].get_text()


def test_one_point_alone_is_drawn(tmp_path: Path):
    rows = [row for row in synthetic.scalings() if '"n": 1000,' in row["problem"]]
    figure = scaling.draw(stored(tmp_path, rows))
    assert lines(figure.axes[0])["torch"][1] == pytest.approx([0.2])
    save(figure, tmp_path / "one")
    assert (tmp_path / "one.png").stat().st_size > 5000


def test_scaling_plots_medians_and_the_limit(written: Path):
    (axis,) = scaling.draw(written / SCALING).axes
    n = [1e3, 1e4, 1e5, 1e6]
    assert lines(axis)["torch"][1] == pytest.approx([0.05 + 1.5e-4 * each for each in n])
    assert set(lines(axis)) == {"numpy", "torch", "faiss"}
    limit = next(line for line in axis.lines if line.get_linewidth() > 2)
    assert limit.get_ydata() == pytest.approx([3e-5 * each for each in n])


def test_a_field_that_is_no_number_is_refused(written: Path):
    with pytest.raises(BadInput, match="--against metric: not a positive number"):
        scaling.draw(written / SCALING, against="metric")


@pytest.mark.parametrize("draw", [speedup.draw, scaling.draw, blocks.draw], ids=["speedup", "scaling", "blocks"])
def test_two_gpus_share_no_figure(draw: Any, tmp_path: Path):
    rows = [row | {"device": f"GPU {number % 2}", "device_kind": "gpu"} for number, row in enumerate(synthetic.scalings())]
    with pytest.raises(BadInput, match=r"records of 2 devices \(GPU 0, GPU 1\)"):
        draw(stored(tmp_path, rows))


def test_a_gpu_beside_the_processor_of_its_host_is_one_machine(tmp_path: Path):
    rows = [row | ({} if row["backend"] == "numpy" else {"device": synthetic.GPU, "device_kind": "gpu"}) for row in synthetic.scalings()]
    assert f"{synthetic.GPU} and {synthetic.CPU}" in head(scaling.draw(stored(tmp_path, rows)))


def test_the_latest_attempt_counts(tmp_path: Path):
    first = [row for row in synthetic.scalings() if row["backend"] == "torch"]
    again = [row | {"attempt": 2, "samples_ms": [2 * value for value in row["samples_ms"]]} for row in first]
    (axis,) = scaling.draw(stored(tmp_path, [*again, *first])).axes
    assert lines(axis)["torch"][1] == pytest.approx([2 * (0.05 + 1.5e-4 * n) for n in (1e3, 1e4, 1e5, 1e6)])


def test_cells_are_the_best_medians_over_the_other_axes(written: Path):
    figure = blocks.draw(written / SWEEP)
    axis = next(axis for axis in figure.axes if axis.get_title() == "triton")
    cells = {text.get_position(): text.get_text() for text in axis.texts}
    assert cells[2, 2] == "0.500"  # BLOCK_Q 64, BLOCK_N 128, the better of two num_warps
    assert cells[0, 0] == "C"
    assert cells[3, 3] == "S"
    outlines = [patch for patch in axis.patches if not patch.get_fill()]
    assert [(round(patch.get_x() + 0.46), round(patch.get_y() + 0.46)) for patch in outlines] == [(2, 2)]
    assert "32 measured, 2 failed, 2 pruned" in head(figure)


def test_what_stopped_early_has_a_sign_before_the_median_of_its_samples(tmp_path: Path):
    stopped = {"status": "stopped", "samples_ms": [9.0, 7.0, 8.0]}
    rows = [row | (stopped if row["block"] == '{"ROWS": 256}' else {}) for row in synthetic.sweeps()]
    figure = blocks.draw(stored(tmp_path, rows))
    axis = next(axis for axis in figure.axes if axis.get_title() == "torch")
    assert [text.get_text() for text in axis.texts] == ["≈8.00", "2.30", "2.00", "2.30"]
    assert "31 measured, 2 failed, 2 pruned, 1 stopped" in head(figure)
    assert "≈: stopped early, surely slower" in [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_a_space_of_one_axis_is_a_row(written: Path):
    axis = next(axis for axis in blocks.draw(written / SWEEP).axes if axis.get_title() == "torch")
    assert axis.get_xlabel() == "ROWS"
    assert [label.get_text() for label in axis.get_xticklabels()] == ["256", "512", "1Ki", "2Ki"]
    assert not axis.get_yticks().size


def test_of_many_problems_some_are_drawn_spread_evenly(tmp_path: Path):
    its = [row for row in synthetic.sweeps() if row["backend"] == "torch"]
    rows = [row | {"problem": json.dumps(json.loads(row["problem"]) | {"n": 1000 * number})} for number in range(1, 101) for row in its]
    figure = blocks.draw(stored(tmp_path, rows))
    maps = [axis for axis in figure.axes if axis.get_title()]
    assert len(maps) == blocks.MOST_MAPS
    assert [axis.get_title() for axis in (maps[0], maps[-1])] == ["torch\nn=1000", "torch\nn=100k"]
    assert f"{blocks.MOST_MAPS} of 100 maps, spread evenly" in head(figure)


def test_a_backend_of_which_nothing_was_measured_is_hatched(tmp_path: Path):
    failed = {"status": "failed", "reason": "launch failed", "samples_ms": []}
    rows = [row | (failed if row["backend"] == "torch" else {}) for row in synthetic.sweeps()]
    figure = blocks.draw(stored(tmp_path, rows))
    axis = next(axis for axis in figure.axes if axis.get_title() == "torch")
    assert len([patch for patch in axis.patches if patch.get_hatch()]) == 4


@pytest.mark.parametrize(
    ("reason", "letter"),
    [
        ("shared memory 1 B over the limit", "S"),
        ("255 registers and 8 B of spills", "R"),
        ("OutOfMemoryError: CUDA out of memory", "M"),
        ("CompilationError: at 3:1", "C"),
        ("error 3.1 tolerances from the oracle", "W"),
        (None, "V"),
    ],
)
def test_reasons_have_classes(reason: str | None, letter: str):
    assert blocks.reason_class(reason)[0] == letter


def test_latency_curves_end_at_the_share_that_was_answered(written: Path):
    rows = synthetic.requests()
    figure = latency.draw(written / RAG, slo_ms=500)
    assert [axis.get_title() for axis in figure.axes] == [f"{rate} requests/s offered" for rate in (2, 8, 32)]
    mine = [row for row in rows if row["arm"] == "baseline" and row["rate"] == 32]
    share = sum(row["status"] == "ok" for row in mine) / len(mine)
    assert share < 0.5
    steps = [line for line in figure.axes[2].lines if line.get_drawstyle() == "steps-post"]
    assert min(max(line.get_ydata()) for line in steps) == pytest.approx(share)
    longest = max((row["end_s"] - row["scheduled_s"]) * 1000 for row in mine if row["status"] == "ok")
    assert max(steps[0].get_xdata()) == pytest.approx(longest)
    lost = sum(row["status"] == "rejected" for row in rows)
    assert f"{lost} rejected" in head(figure)
    assert "random weights" in head(figure)


def test_throughput_is_answers_over_the_seconds_of_the_load(written: Path):
    figure = throughput.draw(written / RAG, slo_ms=500)
    rows = [row for row in synthetic.requests() if row["arm"] == "batched" and row["rate"] == 32]
    expected = []
    for repeat in (0, 1):
        mine = [row for row in rows if row["repeat"] == repeat]
        seconds = max(max(row["end_s"] for row in mine) - min(row["scheduled_s"] for row in mine), len(mine) / 32)
        expected.append(sum(row["status"] == "ok" for row in mine) / seconds)
    assert lines(figure.axes[0])["batched"][1][-1] == pytest.approx(np.mean(expected))
    good, every = (lines(axis)["baseline"][1] for axis in reversed(figure.axes))
    assert (good <= every).all()
    assert good[-1] < every[-1]


def test_files_are_the_same_bytes_for_the_same_records(written: Path, tmp_path: Path):
    for stem in ("first", "second"):
        save(blocks.draw(written / SWEEP), tmp_path / stem)
    for ending in ("pdf", "png"):
        assert (tmp_path / f"first.{ending}").read_bytes() == (tmp_path / f"second.{ending}").read_bytes()
    assert b"CreationDate" not in (tmp_path / "first.pdf").read_bytes()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("content", [None, b"PAR1 torn"], ids=["missing", "corrupt"])
def test_bad_records_are_one_line_and_status_2(content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any):
    path = tmp_path / "knn.cpu.parquet"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["blocks", str(path), "--out", str(tmp_path / "figure")])
    with pytest.raises(SystemExit) as stopped:
        run(blocks.main)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(path) in error
    assert not (tmp_path / "figure.pdf").exists()


def test_records_of_which_nothing_was_measured_are_refused(tmp_path: Path):
    rows = [row | {"status": "failed", "samples_ms": []} for row in synthetic.scalings()]
    with pytest.raises(BadInput, match="none of its 12 points was measured"):
        scaling.draw(stored(tmp_path, rows))


def timed(folder: Path, *jobs: dict[str, Any]) -> list[Path]:
    write_parquet(folder / "timed.parquet", [{"point": "a"}], {"jobs": jobs})
    return [folder / "timed.parquet"]


def drawn(axis: Any) -> dict[str, list[tuple[float, float, float]]]:
    """Start, end and area in minutes of the boxes of each cause, a bar being 1 high."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    colors = {to_hex(look["facecolor"]): cause for cause, look in timeline._LOOKS.items()}
    for boxes in axis.collections:
        for path in boxes.get_paths():
            (left, bottom), (right, top) = path.vertices.min(axis=0), path.vertices.max(axis=0)
            area = (right - left) * (top - bottom) / 0.8
            found.setdefault(colors[to_hex(boxes.get_facecolor()[0])], []).append((left, right, area))
    return found


def test_areas_of_the_timeline_are_minutes(tmp_path: Path):
    (axis,) = timeline.draw(timed(tmp_path, synthetic.account())).axes
    boxes = drawn(axis)
    minutes = {cause: 60 * sum(area for *_, area in its) for cause, its in boxes.items()}
    assert minutes == pytest.approx(
        {"queued": 25, "start-up": 9, "loading": 6, "ceilings": 4, "inputs": 5, "kernels": 24, "checking": 2, "recording": 4, "other": 6}
    )
    assert boxes["queued"] == [pytest.approx((0, 25 / 60, 25 / 60))]
    assert boxes["kernels"] == [pytest.approx((45 / 60, 85 / 60, 24 / 60))]
    assert axis.get_xlim() == pytest.approx((0, 85 / 60))


def test_bars_stand_by_device_and_host_then_by_start(tmp_path: Path):
    jobs = [
        synthetic.account("late", 500),
        synthetic.account("early", 100),
        synthetic.account("elsewhere", 300, host="node8"),
        synthetic.account("gpu", 200, device=synthetic.GPU, stage="bench"),
    ]
    (axis,) = timeline.draw(timed(tmp_path, *jobs)).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["bench gpu", "sweep early", "sweep late", "sweep elsewhere"]
    assert [text.get_text() for text in axis.texts] == [
        *(f"{synthetic.GPU}, node7: 1", f"{synthetic.CPU}, node7: 2", f"{synthetic.CPU}, node8: 1"),
    ]


def test_the_timeline_says_jobs_devices_minutes_and_what_is_not_known(tmp_path: Path):
    figure = timeline.draw(timed(tmp_path, synthetic.account(), synthetic.account(after=300, queued=None)))
    for part in (synthetic.CPU, "2 jobs", "1.92 CPU minutes, 42 % of them in kernels", "1 without a time of submission"):
        assert part in head(figure)


def test_jobs_of_another_day_have_a_panel_and_a_clock_of_their_own(tmp_path: Path):
    figure = timeline.draw(timed(tmp_path, synthetic.account(), synthetic.account(after=150), synthetic.account(after=86_400)))
    first, second = figure.axes
    assert len(drawn(first)["kernels"]) == 2
    assert drawn(second)["queued"] == [pytest.approx((0, 25 / 60, 25 / 60))]
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["from 2026-11-18 11:07 UTC", "from 2026-11-19 11:06 UTC"]


def test_of_many_sittings_the_longest_are_drawn_and_the_others_counted(tmp_path: Path):
    jobs = [synthetic.account(after=day * 86_400, phases={"measuring": 60.0 * (1 + day % 6)}) for day in range(6)]
    figure = timeline.draw(timed(tmp_path, *jobs))
    assert len(figure.axes) == timeline.MOST_PANELS
    assert "not drawn: 2 jobs of shorter sittings, 3.17 min" in head(figure)


def test_of_more_jobs_than_bars_can_show_it_is_drawn_how_many_are_at_what(tmp_path: Path):
    jobs = [synthetic.account(f"e{number}", 60 + number / 10) for number in range(timeline.MOST_BARS + 1)]
    (axis,) = timeline.draw(timed(tmp_path, *jobs)).axes
    minutes = {cause: 60 * _area(stairs.get_path().vertices) for cause, stairs in _stacked(axis).items()}
    assert minutes["kernels"] == pytest.approx(24 * len(jobs))
    assert minutes["queued"] == pytest.approx(25 * len(jobs))
    assert axis.get_ylabel() == "jobs"


def test_many_jobs_of_many_devices_fit_a_page(tmp_path: Path):
    def jobs(devices: int) -> list[dict[str, Any]]:
        return [synthetic.account("e", 60 + number, device=f"GPU {number % devices}") for number in range(2 * timeline.MOST_BARS)]

    apart = timeline.draw(timed(tmp_path, *jobs(3)))
    assert [axis.get_title(loc="left") for axis in apart.axes] == ["GPU 0", "GPU 1", "GPU 2"]
    assert len({axis.get_xlim() for axis in apart.axes}) == 1
    (axis,) = timeline.draw(timed(tmp_path, *jobs(9))).axes
    assert axis.get_title(loc="left") == "9 devices"


def _stacked(axis: Any) -> dict[str, Any]:
    colors = {to_hex(look["facecolor"]): cause for cause, look in timeline._LOOKS.items()}
    return {colors[to_hex(stairs.get_facecolor())]: stairs for stairs in axis.patches}


def _area(corners: np.ndarray) -> float:
    x, y = corners.T
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)


def test_a_run_without_accounts_says_so(tmp_path: Path):
    (axis,) = timeline.draw(timed(tmp_path)).axes
    assert "no accounts of time" in axis.texts[0].get_text()


def test_the_timeline_takes_several_files_on_its_command_line(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    files = [str(written / name) for name in (SWEEP, SCALING)]
    monkeypatch.setattr(sys, "argv", ["timeline", *files, "--out", str(tmp_path / "timeline")])
    with pytest.raises(SystemExit) as stopped:
        run(timeline.main)
    assert not stopped.value.code
    assert (tmp_path / "timeline.png").is_file()
