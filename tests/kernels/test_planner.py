"""What a run will take: what can be measured, its shards, what is recorded, and the bill."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from analysis.config import Run
from analysis.records import write_parquet
from cluster import site
from kernels import plan
from kernels.planning import bill
from kernels.planning.bill import Line
from kernels.planning.estimate import ASSUMED, BESIDE_S, FIXED_S, MEASURED, POINT_S, Estimate
from kernels.planning.feasible import feasible
from kernels.planning.parts import Parts
from kernels.planning.planner import Planner
from tests.kernels.tiny import CONFIG, Stage, copy_softmax, write_config

NEVER = """
from kernels.contract import Space

NUMPY = Space(axes={"ROWS": (64, 128)}, default={"ROWS": 64}, rule=lambda problem, block: "too wide" if problem.columns > 35 else None)
TORCH = TRITON = Space()
"""


def config(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(CONFIG), **changes}


def sweep_of(**changes: Any) -> dict[str, Any]:
    return {"softmax": {**copy.deepcopy(CONFIG["sweep"]["softmax"]), **changes}}


def planner(folder: Path, **changes: Any) -> Planner:
    return Planner(Run("tiny", folder / "tiny", config(**changes), ("cpu",), False))


def test_a_part_has_its_points_those_that_are_pruned_and_those_that_are_recorded():
    experiment = plan.experiment(CONFIG, "sweep", "softmax")
    parts = {part.backend: part for part in Parts(experiment, "cuda").of(experiment.problems[0])}
    assert set(parts) == {"torch", "triton"}
    # 128 and 512 with one warp, and the default of 256 and four: 512 is four times the 30 columns
    assert (parts["triton"].points, parts["triton"].pruned, parts["triton"].missing) == (3, 1, 2)
    text = '{"columns": 30, "dtype": "float32", "rows": 200}'
    keys = [("triton", text, f'{{"BLOCK_COLUMNS": {columns}, "num_warps": {warps}}}') for columns, warps in ((128, 1), (256, 4), (512, 1))]
    (part,) = [each for each in Parts(experiment, "cuda", keys[:1], keys[1:]).of(experiment.problems[0]) if each.backend == "triton"]
    assert (part.points, part.pruned, part.recorded, part.missing) == (3, 2, 1, 0)


def test_a_bench_has_a_point_a_contender():
    experiment = plan.experiment(CONFIG, "bench", "softmax_bench")
    assert [part.backend for part in Parts(experiment, "cpu").of(experiment.problems[0])] == ["numpy", "torch", "scipy softmax"]
    assert [part.backend for part in Parts(experiment, "cuda").of(experiment.problems[0])] == ["torch", "triton", "numpy"]


@pytest.mark.parametrize("stage", ["sweep", "bench"])
def test_what_the_journal_has_is_recorded_as_long_as_the_code_stays(stage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    name = {"sweep": "softmax", "bench": "softmax_bench"}[stage]
    operator = copy_softmax(tmp_path)
    write_config(tmp_path, operators=[str(operator)])
    Stage(monkeypatch, tmp_path, stage, name).run()
    journal = tmp_path / "tiny" / stage / "journal" / f"{name}.cpu"
    journal.parent.mkdir(parents=True)
    (tmp_path / "journal").rename(journal)

    def line(attempt: int = 1, **changes: Any) -> Line:
        return planner(tmp_path, operators=[str(operator)], **changes).line(stage, name, "cpu", attempt, [])

    count = line().points
    assert (line().recorded, line().jobs, line().left.seconds) == (count, 0, 0)
    assert line(attempt=2).recorded == line(seed=8).recorded == line(samples=6).recorded == 0
    source = operator / "torch_impl.py"
    source.write_text(source.read_text().replace("dim=1", "dim=-1"))
    per_backend = {"sweep": 2, "bench": 1}[stage]
    assert (line().recorded, line().jobs) == (count - per_backend, 1)


def test_points_of_the_run_that_this_one_starts_from_count_as_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    write_config(tmp_path)
    stage = Stage(monkeypatch, tmp_path)
    stage.run()
    assert planner(tmp_path).line("sweep", "softmax", "cpu", 1, [stage.out]).recorded == 6


def test_the_bill_of_a_sweep_that_nobody_measured(tmp_path: Path):
    line = planner(tmp_path).line("sweep", "softmax", "cpu", 1, [])
    # two problems: two blocks of numpy and the one of torch, the default of each twice
    assert (line.jobs, line.points, line.recorded, line.pruned) == (1, 6, 0, 0)
    assert line.left.by == {ASSUMED: pytest.approx(FIXED_S + 4 * BESIDE_S + 10 * POINT_S)}


def test_estimates_are_from_the_records_of_other_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    write_config(tmp_path)
    stage = Stage(monkeypatch, tmp_path)
    stage.run()
    for run in ("old", "tiny"):
        (tmp_path / run / "sweep").mkdir(parents=True)
    stage.out.rename(tmp_path / "tiny/sweep/softmax.cpu.parquet")
    assert set(planner(tmp_path).line("sweep", "softmax", "cpu", 1, []).left.by) == {ASSUMED}
    (tmp_path / "tiny/sweep/softmax.cpu.parquet").rename(tmp_path / "old/sweep/softmax.cpu.parquet")
    assert set(planner(tmp_path).line("sweep", "softmax", "cpu", 1, []).left.by) == {MEASURED}


def test_what_a_compile_table_rules_out_is_pruned(tmp_path: Path):
    experiment = plan.experiment(CONFIG, "sweep", "softmax")
    text = '{"columns": 40, "dtype": "float32", "rows": 200}'
    row = {
        "backend": "triton",
        "block": {"BLOCK_COLUMNS": 128, "num_warps": 1},
        "problems": [text],
        "verdict": "pruned",
        "reason": "spills",
    }
    before = planner(tmp_path).line("sweep", experiment.name, "a100", 1, [])
    write_parquet(tmp_path / "tiny/compile/softmax.sm_80.parquet", [row])
    after = planner(tmp_path).line("sweep", experiment.name, "a100", 1, [])
    assert (after.points, after.pruned) == (before.points, before.pruned + 1)
    assert after.left.seconds < before.left.seconds


def test_a_run_keeps_its_shards_and_others_measurements_do_not_reshuffle_them(tmp_path: Path):
    first = planner(tmp_path, shard_minutes=0.01)
    assert [[each["problem"]["columns"] for each in shard] for shard in first.cut("sweep", "softmax", "cpu").values()] == [[30], [40]]
    first.write()
    again = planner(tmp_path, shard_minutes=0.01)
    again._earlier = lambda device: pytest.fail("planned anew")
    assert again.cut("sweep", "softmax", "cpu") == first.cut("sweep", "softmax", "cpu")
    more = planner(tmp_path, shard_minutes=0.01, sweep=sweep_of(problems=[{"rows": 200, "columns": [50, 40]}]))
    assert {number: [each["problem"]["columns"] for each in shard] for number, shard in more.cut("sweep", "softmax", "cpu").items()} == {
        "2": [40],
        "3": [50],
    }
    assert list(planner(tmp_path).cut("sweep", "softmax", "cpu")) == ["1"]  # another length is another cut
    assert list(planner(tmp_path, shard_minutes=0.01).cut("bench", "softmax_bench", "cpu")) == ["1"]


def test_a_shard_asks_for_what_its_own_problems_need(tmp_path: Path):
    its = planner(tmp_path, shard_minutes=0.01, sweep=sweep_of(problems=[{"rows": [10, 200_000_000], "columns": 1}]))
    sizes = {its.problems("sweep", "softmax", "cpu", number)[0].fields()["rows"]: number for number in ("1", "2")}
    assert [its.memory_mb("sweep", "softmax", "cpu", sizes[rows]) for rows in (10, 200_000_000)] == [8000, 14000]
    assert its.minutes("sweep", "softmax", "cpu", "1") == 30


def test_what_no_gpu_holds_is_left_out_and_named(tmp_path: Path):
    large = config(sweep=sweep_of(problems=[{"rows": 10, "columns": [30, 2**30]}]))
    experiment = plan.experiment(large, "sweep", "softmax")
    found = feasible(experiment, "gtx1060", 6)
    assert [problem.fields()["columns"] for problem in found.problems] == [30]
    assert found.left_out == ["sweep.softmax.problems on gtx1060, a GPU of 6 GB: dtype=float32 rows=10 columns=1073741824 needs 80.0 GB"]
    assert feasible(experiment, "h200", 141).left_out == feasible(experiment, "cpu", None).left_out == []
    memory = site.gpu("gtx1060").memory_gb
    assert planner(tmp_path, sweep=large["sweep"]).feasible("sweep", "softmax", "gtx1060") == feasible(experiment, "gtx1060", memory)


def test_a_backend_without_a_valid_block_is_named_and_the_others_go_on(tmp_path: Path):
    operator = copy_softmax(tmp_path)
    (operator / "space.py").write_text(NEVER)
    outside = config(operators=[str(operator)], sweep=sweep_of(blocks={}))
    experiment = plan.experiment(outside, "sweep", "softmax")
    found = feasible(experiment, "cpu", None)
    assert found.problems == experiment.problems  # torch measures both
    assert found.left_out == ["sweep.softmax.blocks.numpy on cpu: no valid block for dtype=float32 rows=200 columns=40: too wide"]
    alone = plan.experiment(config(operators=[str(operator)], sweep=sweep_of(backends=["numpy"], blocks={})), "sweep", "softmax")
    assert [problem.fields()["columns"] for problem in feasible(alone, "cpu", None).problems] == [30]


def test_an_experiment_without_a_backend_for_the_device_is_left_out():
    experiment = plan.experiment(config(sweep=sweep_of(backends=["triton"])), "sweep", "softmax")
    found = feasible(experiment, "cpu", None)
    assert (found.problems, found.left_out) == ([], ["sweep.softmax on cpu: none of its backends (triton) runs there"])


def test_many_problems_are_counted_not_listed():
    large = config(sweep=sweep_of(problems=[{"rows": 2**30, "columns": list(range(1, 9))}]))
    (line,) = feasible(plan.experiment(large, "sweep", "softmax"), "gtx1060", 1).left_out
    assert line.endswith("rows=1073741824 columns=3 needs 24.0 GB; and 5 more")


LINES = [
    Line("sweep.a", "h200", 2, 100, 10, 5, Estimate({MEASURED: 300.0, ASSUMED: 100.0}), "gpu"),
    Line("bench.b", "h200", 1, 4, 0, 0, Estimate({MEASURED: 200.0})),
    Line("sweep.a", "cpu", 0, 50, 50, 0, Estimate({})),
]


def test_the_bill_is_an_aligned_line_an_experiment_and_a_total_a_device():
    rows = bill.table(LINES).splitlines()
    assert rows[:6] == [
        "experiment  device  partition  jobs  points  recorded  pruned  minutes  estimate",
        "sweep.a     h200    gpu           2     100        10       5      6.7  75% measured, 25% assumed",
        "bench.b     h200    -             1       4         0       0      3.3  measured",
        "sweep.a     cpu     -             0      50        50       0      0.0  -",
        "total       h200    -             3     104        10       5       10  83% measured, 17% assumed",
        "total       cpu     -             0      50        50       0      0.0  -",
    ]


def test_a_real_run_says_a_line_a_device_that_has_anything_to_measure():
    said = "h200: 89 points to measure in 3 jobs, about 10 minutes (83% measured, 17% assumed), partition gpu"
    assert bill.brief(LINES) == said
    assert bill.brief(LINES[2:]) == ""
