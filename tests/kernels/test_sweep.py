"""The sweep, end to end on a CPU: every point once, whatever happens in between."""

from __future__ import annotations

import itertools
import json
import re
import signal
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pandas as pd
import pytest

from analysis.cli import BadInput
from analysis.records import read_journal, read_notes, read_parquet
from kernels import registry
from kernels.device import Device, libraries
from kernels.job import KEY, Place, with_noise
from kernels.sweep import of_architecture
from kernels.tune import winners
from tests.commands import one_line, run_module, run_python
from tests.kernels.tiny import CEILINGS, CONFIG, SOFTMAX, Stage, copy_softmax, write_config

BROKEN = """
from kernels.contract import Space
from .numpy_impl import run as sound

ARRAYS = "numpy"
DEVICES = ("cpu",)
RULE = lambda problem, block: "64 is too many" if block["ROWS"] == 64 else None
SPACE = Space(axes={"ROWS": (16, 32, 64)}, default={"ROWS": 16}, rule=RULE)


def run(problem, inputs, block):
    if block["ROWS"] == 32:
        raise ArithmeticError("no 32 rows today\\nnor tomorrow")
    return sound(problem, inputs, block)
"""
SLOW = """
import time
from kernels.contract import Space
from .numpy_impl import run as sound

ARRAYS = "numpy"
DEVICES = ("cpu",)
SPACE = Space(axes={"ROWS": (16, 32, 64)}, default={"ROWS": 16})


def run(problem, inputs, block):
    time.sleep({16: 0.02, 32: 0.06, 64: 0.0}[block["ROWS"]])  # stands for kernels whose times no noise of a machine confuses
    return sound(problem, inputs, block)
"""
KILLED_AT_THE_FOURTH_RECORD = """
import os, runpy, signal, sys
from analysis.records import Journal

append, done = Journal.append, []

def until_the_fourth(self, record):
    if self.folder.name == "jobs":  # a process's account of its time, no point's record
        return append(self, record)
    if len(done) == 3:
        self._file.write('{"point": "torn')
        self._file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    append(self, record)
    done.append(record)

Journal.append = until_the_fourth
sys.argv[0] = "sweep"
runpy.run_module("kernels.sweep", run_name="__main__")
"""


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stage:
    write_config(tmp_path)
    return Stage(monkeypatch, tmp_path)


def with_broken(folder: Path, edits: dict[str, tuple[str, str]] | None = None) -> Path:
    """A config whose operator has a third CPU backend: one block works, one raises, one is invalid."""
    operator = copy_softmax(folder, edits, broken_impl=BROKEN)
    entry = {"problems": [{"rows": 200, "columns": 40}], "backends": ["broken"]}
    return write_config(folder, operators=[str(operator)], sweep={"softmax": entry}, bench={})


def blocks(rows: pd.DataFrame) -> Counter[tuple[str, str, str]]:
    return Counter(zip(rows.backend, rows.problem, rows.block, strict=True))


def test_every_valid_block_of_every_backend_and_problem_has_a_record(sweep: Stage):
    rows = sweep.run()
    expected = [("numpy", '{"ROWS": 64}'), ("numpy", '{"ROWS": 128}'), ("torch", "{}")]
    assert blocks(rows) == Counter(
        (backend, json.dumps({"columns": columns, "dtype": "float32", "rows": 200}), block)
        for columns in (30, 40)
        for backend, block in expected
    )
    assert set(rows.status) == {"measured"}
    assert rows.point.is_unique
    assert (rows.samples_ms.map(len) == CONFIG["samples"]).all()
    assert (rows.first_call_ms > 0).all()


def test_a_record_says_what_it_is_of_and_what_its_limit_is(sweep: Stage):
    row = sweep.run().query("backend == 'numpy'").iloc[0]
    elements = 200 * json.loads(row.problem)["columns"]
    assert (row.bytes, row.operations) == (8 * elements, 5 * elements)
    assert (row.limit_ms, row.limit_by) == (pytest.approx(8 * elements / CEILINGS["bandwidth_gbs"] / 1e6), "memory")
    assert (row.stage, row.experiment, row.operator, row.device_kind, row.attempt, row.seed) == ("sweep", "softmax", "softmax", "cpu", 1, 7)
    assert json.loads(row.versions).keys() >= {"python", "numpy"}
    assert json.loads(row.provenance).keys() >= {"commit", "host", "command"}
    assert json.loads(row.ceilings) == CEILINGS


def test_the_default_block_is_measured_twice_and_gives_the_noise_of_its_backend_and_problem(sweep: Stage):
    rows = sweep.run()
    twice = rows[rows.aa_samples_ms.map(len) > 0]
    assert sorted(zip(twice.backend, twice.block, strict=True)) == [("numpy", '{"ROWS": 64}')] * 2 + [("torch", "{}")] * 2
    for _, group in rows.groupby(["backend", "problem"]):
        first, second = (
            pd.Series(group[name][group.aa_samples_ms.map(len) > 0].item()).median() for name in ("samples_ms", "aa_samples_ms")
        )
        assert (group.noise == abs(first - second) / min(first, second)).all()


def test_noise_against_numbers_worked_out_by_hand():
    row = {"stage": "sweep", "backend": "b", "problem": {"n": 1}, "attempt": 1, "role": "candidate"}
    rows = [
        {**row, "point": "default", "samples_ms": [1.0, 2.0, 3.0]},
        {**row, "point": "default", "role": "aa", "samples_ms": [2.5, 2.5, 9.0]},
        {**row, "point": "other", "samples_ms": [1.0]},
        {**row, "point": "elsewhere", "samples_ms": [1.0], "problem": {"n": 2}},
    ]
    found = {each["point"]: each for each in with_noise(rows)}
    assert {name: each["noise"] for name, each in found.items()} == {"default": 0.25, "other": 0.25, "elsewhere": None}
    assert found["default"]["aa_samples_ms"] == [2.5, 2.5, 9.0]


def test_a_second_run_measures_nothing(sweep: Stage):
    first = sweep.run()
    before = sweep.bytes_of_journal()
    second = sweep.run()
    assert sweep.bytes_of_journal() == before
    pd.testing.assert_frame_equal(first, second)


def test_a_lost_record_file_is_made_again_from_the_journal(sweep: Stage):
    first = sweep.run()
    sweep.out.unlink()
    pd.testing.assert_frame_equal(sweep.run(), first)


def test_a_killed_sweep_goes_on_where_it_was(sweep: Stage):
    done = run_python("-c", KILLED_AT_THE_FOURTH_RECORD, *sweep.words())
    assert done.returncode == -signal.SIGKILL, done
    assert not sweep.out.exists()
    kept = read_journal(sweep.journal)
    assert len(kept) == 3
    before = sweep.bytes_of_journal()
    rows = sweep.run()
    assert {name: content for name, content in sweep.bytes_of_journal().items() if name in before} == before
    everything = read_journal(sweep.journal)
    assert set(Counter(tuple(record[name] for name in KEY) for record in everything).values()) == {1}
    assert len(everything) == 10  # 6 points, 4 of them twice
    assert set(blocks(rows).values()) == {1}
    assert len(rows) == 6


def test_a_damaged_line_of_the_journal_is_refused_in_one_line(sweep: Stage):
    sweep.run()
    path = next(iter(sweep.journal.glob("*.jsonl")))
    first, *rest = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([first[:-5], *rest]))
    line = one_line(run_module("kernels.sweep", *sweep.words()))
    assert line == f"error: {path}, line 1: not a JSON record; move the file away to measure its points again"


def test_a_record_of_an_older_format_is_refused_in_one_line(sweep: Stage):
    sweep.run()
    path = next(iter(sweep.journal.glob("*.jsonl")))
    first, second, *rest = path.read_bytes().split(b"\n")
    old = {name: value for name, value in json.loads(second).items() if name not in ("attempt", "samples_ms")}
    path.write_bytes(b"\n".join([first, json.dumps(old).encode(), *rest]))
    line = one_line(run_module("kernels.sweep", *sweep.words()))
    what = "a record without attempt, samples_ms, so not of this version's format"
    assert line == f"error: {path}, line 2: {what}; move the file away to measure its points again"


def test_a_further_attempt_stands_beside_the_first(sweep: Stage):
    first = sweep.run()
    both = sweep.run("--attempt", 2)
    assert both.groupby("point").attempt.apply(sorted).tolist() == [[1, 2]] * 6
    pd.testing.assert_frame_equal(both[both.attempt == 1].reset_index(drop=True), first)
    before = sweep.bytes_of_journal()
    sweep.run("--attempt", 2)
    assert sweep.bytes_of_journal() == before


def test_unchanged_points_of_another_run_are_copied_and_changed_ones_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, edits in ((old, {}), (new, {"torch_impl.py": ("dim=1", "dim=-1")})):
        folder.mkdir()
        write_config(folder, operators=[str(copy_softmax(folder, edits, broken_impl=BROKEN))])
    first = Stage(monkeypatch, old).run()
    second = Stage(monkeypatch, new).run("--previous", old / "softmax.cpu.parquet")
    assert set(first.status) == {"measured", "failed", "pruned"}
    assert blocks(first) == blocks(second)
    copied = second.provenance.map(lambda text: json.loads(text).get("copied", False))
    assert set(second.backend[~copied]) == {"torch"}
    kept = first.set_index("point").loc[second.point[copied]]
    for name in ("samples_ms", "aa_samples_ms", "started", "status", "reason", "noise", "first_call_ms", "versions"):
        assert list(map(str, kept[name])) == list(map(str, second[name][copied])), name
    assert set(first.point[first.backend == "torch"]).isdisjoint(second.point)


def test_a_block_that_raises_is_recorded_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    with_broken(tmp_path)
    rows = Stage(monkeypatch, tmp_path).run().set_index("block")
    assert rows.status.to_dict() == {'{"ROWS": 16}': "measured", '{"ROWS": 32}': "failed", '{"ROWS": 64}': "pruned"}
    assert rows.reason['{"ROWS": 32}'] == "ArithmeticError: no 32 rows today"
    assert rows.reason['{"ROWS": 64}'] == "64 is too many"
    assert len(rows.samples_ms['{"ROWS": 32}']) == 0


def test_a_block_that_is_ruled_out_no_longer_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    with_broken(tmp_path)
    stage, space = Stage(monkeypatch, tmp_path), tmp_path / "softmax" / "broken_impl.py"
    backend, found = space.read_text(), {}
    for status, limit in (("pruned", 64), ("measured", 65)):
        (tmp_path / "softmax" / "space.py").write_text(
            "from kernels.contract import Space\n\n"
            f"RULE = lambda problem, block: 'too many' if block['ROWS'] >= {limit} else None\n"
            "BROKEN = Space(axes={'ROWS': (16, 64)}, default={'ROWS': 16}, rule=RULE)\n"
            "NUMPY = TORCH = TRITON = Space()\n"
        )
        space.write_text(re.sub(r"SPACE = .*", "from .space import BROKEN as SPACE", backend))
        monkeypatch.delitem(sys.modules, "operators_softmax", raising=False)
        found[status] = stage.run().set_index("block")
        assert found[status].status['{"ROWS": 64}'] == status
    assert found["pruned"].point['{"ROWS": 16}'] == found["measured"].point['{"ROWS": 16}']


def test_sure_losers_stop_early_and_the_default_does_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    asked = {"problems": [{"rows": 20, "columns": 40}], "backends": ["slow"]}
    same = {"operators": [str(copy_softmax(tmp_path, slow_impl=SLOW))], "bench": {}}
    write_config(tmp_path, sweep={"softmax": asked}, race=True, **same)
    stage = Stage(monkeypatch, tmp_path)
    rows = stage.run().set_index("block")
    assert rows.status.to_dict() == {'{"ROWS": 16}': "measured", '{"ROWS": 32}': "stopped", '{"ROWS": 64}': "measured"}
    assert rows.samples_ms.map(len).to_dict() == {'{"ROWS": 16}': 5, '{"ROWS": 32}': 3, '{"ROWS": 64}': 5}
    assert re.fullmatch(r"\S+ times as long as {'ROWS': 64} after 3 of 5 samples", rows.reason['{"ROWS": 32}'])
    assert len(rows.aa_samples_ms['{"ROWS": 16}']) == 5
    assert rows.spent_s['{"ROWS": 32}'] > 4 * 0.06
    (entry,) = winners(stage.run())
    assert (entry["block"], entry["default_block"], entry["candidates"]) == ({"ROWS": 64}, {"ROWS": 16}, 3)
    write_config(tmp_path, sweep={"softmax": {**asked, "race": False}}, race=True, **same)
    assert set(stage.run().status) == {"measured"}


def test_a_device_that_breaks_ends_the_job_and_the_next_one_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    with_broken(tmp_path)
    stage = Stage(monkeypatch, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("kernels.timing.answers", lambda device: False)
        with pytest.raises(SystemExit, match=r"broken by broken \{'ROWS': 32\}.*no 32 rows today; run the same command again for the rest"):
            stage.run()
    assert not stage.out.exists()
    assert [record["reason"] for record in read_journal(stage.journal) if record["status"] == "failed"] == [
        "ArithmeticError: no 32 rows today"
    ]
    rows = stage.run()
    assert set(blocks(rows).values()) == {1}
    assert sorted(rows.status) == ["failed", "measured", "pruned"]


@pytest.mark.parametrize("change", [{"seed": 8}, {"samples": 6}], ids=["seed", "samples"])
def test_a_point_is_another_with_another(sweep: Stage, change: dict[str, int]):
    first = sweep.run()
    write_config(sweep.folder, **change)
    second = sweep.run()
    assert blocks(first) == blocks(second)
    assert set(first.point).isdisjoint(second.point)


def test_a_point_is_the_same_whatever_else_is_measured(sweep: Stage):
    first = sweep.run()
    softmax = {**CONFIG["sweep"]["softmax"], "backends": ["numpy"], "problems": [{"rows": 200, "columns": 40}]}  # type: ignore[index]
    write_config(sweep.folder, sweep={"softmax": softmax})
    assert set(sweep.run().point) < set(first.point)


def test_the_order_is_random_but_follows_from_the_seed(sweep: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The order of the journal is that of measuring."""
    sweep.run()
    orders = [[(record["point"], record["role"]) for record in read_journal(sweep.journal)]]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write_config(elsewhere)
    other = Stage(monkeypatch, elsewhere)
    other.run()
    orders.append([(record["point"], record["role"]) for record in read_journal(other.journal)])
    assert orders[0] == orders[1]


def test_no_backend_for_the_device_is_refused_in_one_line(tmp_path: Path):
    entry = {"problems": [{"rows": 2, "columns": 2}], "backends": ["triton"]}
    write_config(tmp_path, sweep={"softmax": entry})
    words = ("--config", tmp_path / "config.yaml", "--experiment", "softmax", "--device", "cpu")
    line = one_line(run_module("kernels.sweep", *words, "--journal", tmp_path / "j", "--out", tmp_path / "o.parquet"))
    assert line.startswith("error: sweep.softmax: none of its backends runs on ")


def test_a_compile_table_rules_out_on_its_own_architecture_alone(monkeypatch: pytest.MonkeyPatch):
    table = pd.DataFrame({"architecture": ["sm_75", "sm_90"], "verdict": ["pruned", "pruned"]})
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: (9, 0))
    assert of_architecture(table, Device("gpu", "NVIDIA H200")).architecture.tolist() == ["sm_90"]
    assert of_architecture(table, Device("cpu", "a CPU")).empty
    assert of_architecture(pd.DataFrame(), Device("gpu", "NVIDIA H200")).empty


def test_a_backend_is_identified_by_the_versions_of_its_libraries():
    operator = registry.operator("softmax", [SOFTMAX])
    assert set(libraries(registry.backend(operator, "torch"))) == {"torch", "numpy"}
    peer: Any = SimpleNamespace(name="scipy softmax", module=registry.package(operator))
    assert {"numpy", "scipy"} <= set(libraries(peer))


def test_ceilings_are_measured_once_a_place(monkeypatch: pytest.MonkeyPatch):
    measured = mock.Mock(return_value=CEILINGS)
    monkeypatch.setattr("kernels.roofline.ceilings", measured)
    place = Place(Device("cpu", "a CPU"))
    measured.assert_not_called()
    place.prepare()
    assert place.ceilings == CEILINGS
    measured.assert_called_once()


def test_a_gpu_that_was_planned_and_is_not_there_is_refused(sweep: Stage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("kernels.device.gpu_state", lambda: None)
    with pytest.raises(BadInput, match="--device h200: no NVIDIA GPU in this job"):
        sweep.run("--device", "h200")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"seed": None}, "config.yaml: seed: None is not of type 'integer'", id="no-seed"),
        pytest.param({"sweep": {"softmax": {}}}, "config.yaml: sweep.softmax: 'problems' is a required property", id="no-problems"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(sweep: Stage, change: dict[str, Any], message: str):
    write_config(sweep.folder, **change)
    with pytest.raises(BadInput) as refusal:
        sweep.run()
    assert message in str(refusal.value)


def test_a_record_file_can_be_read_by_its_columns(sweep: Stage):
    sweep.run()
    assert {"point", "attempt", "status", "samples_ms", "noise", "limit_ms"} <= set(read_parquet(sweep.out).columns)


def test_each_process_accounts_for_its_time(sweep: Stage):
    sweep.run()
    (job,) = read_notes(sweep.out)["jobs"]
    assert set(job["seconds"]) >= {"start-up", "planning", "ceilings", "inputs", "measuring", "recording"}
    assert sum(job["seconds"].values()) == pytest.approx(job["ended"] - job["started"], abs=0.01)
    assert job["segments"][0][:2] == ["start-up", 0.0]
    assert all(before[2] == after[1] for before, after in itertools.pairwise(job["segments"]))
    assert job["compile_missed"] == []
