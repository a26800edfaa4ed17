"""The bench, end to end on a CPU: backends and peers on the same data, checked and timed, or the reason why not."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from analysis.records import read_journal, read_notes
from kernels.device import find
from tests.kernels.tiny import CONFIG, Stage, copy_softmax, write_config

PEERS = """

def _absent(problem: Softmax, inputs: Arrays) -> Arrays:
    import a_library_nobody_has

    return a_library_nobody_has.softmax(inputs["x"])


def _refusing(problem: Softmax, inputs: Arrays) -> Arrays:
    raise BadInput("peer refusing: not for rows")


def _wrong(problem: Softmax, inputs: Arrays) -> Arrays:
    return {"y": _scipy(problem, inputs)["y"] * 1.01}


OPERATOR = Operator("""
NAMES = 'peers={"absent": Peer(_absent), "refusing": Peer(_refusing), "wrong": Peer(_wrong), "GPU": Peer(_absent, ("cuda",)), '


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stage:
    """The bench of a softmax with five peers: one right, one wrong, one not installed, one that refuses, one for GPUs."""
    operator = copy_softmax(tmp_path, {"__init__.py": ("\n\nOPERATOR = Operator(", PEERS)})
    path = operator / "__init__.py"
    path.write_text(path.read_text().replace("peers={", NAMES))
    write_config(tmp_path, operators=[str(operator)])
    return Stage(monkeypatch, tmp_path, "bench", "softmax_bench")


def test_backends_and_peers_of_the_device_have_a_record_each(bench: Stage):
    rows = bench.run().set_index("backend")
    assert sorted(rows.index) == ["absent", "numpy", "refusing", "scipy softmax", "torch", "wrong"]
    measured = rows[rows.status == "measured"]
    assert sorted(measured.index) == ["numpy", "scipy softmax", "torch", "wrong"]
    assert (measured.samples_ms.map(len) == CONFIG["samples"]).all()
    assert (measured.first_call_ms > 0).all()


def test_a_peer_that_is_not_installed_is_recorded_with_the_reason(bench: Stage):
    rows = bench.run().set_index("backend")
    assert rows.status["absent"] == "failed"
    assert rows.reason["absent"] == "ModuleNotFoundError: No module named 'a_library_nobody_has'"
    assert len(rows.samples_ms["absent"]) == 0


def test_a_peer_that_has_no_such_problem_is_left_out_with_the_reason(bench: Stage):
    rows = bench.run().set_index("backend")
    assert rows.status["refusing"] == "pruned"
    assert rows.reason["refusing"] == "peer refusing: not for rows"


def test_results_are_compared_with_the_oracle(bench: Stage):
    rows = bench.run().set_index("backend")
    assert (rows.error[["numpy", "torch", "scipy softmax"]] <= 1).all()
    assert rows.error["wrong"] > 1000
    assert rows.error[["absent", "refusing"]].isna().all()


def test_the_oracle_is_asked_once_a_problem(bench: Stage, monkeypatch: pytest.MonkeyPatch):
    path = bench.folder / "softmax" / "reference.py"
    log = bench.folder / "asked"
    path.write_text(
        path.read_text().replace(
            "    x = np.asarray(x, np.float64)\n", f"    x = np.asarray(x, np.float64)\n    open({str(log)!r}, 'a').write('.')\n"
        )
    )
    bench.run()
    assert log.read_text() == "."


def test_the_time_of_checking_results_is_told_apart(bench: Stage):
    bench.run()
    (job,) = read_notes(bench.out)["jobs"]
    assert job["seconds"]["checking"] > 0


def test_one_contender_is_measured_twice_and_gives_the_noise_of_the_problem(bench: Stage):
    rows = bench.run()
    assert rows.backend[rows.aa_samples_ms.map(len) > 0].tolist() == ["numpy"]
    assert rows.noise.nunique() == 1
    assert rows.noise.notna().all()


def test_a_second_run_measures_nothing(bench: Stage):
    first, before = bench.run(), bench.bytes_of_journal()
    second = bench.run()
    assert bench.bytes_of_journal() == before
    pd.testing.assert_frame_equal(first, second)


def test_a_problem_whose_noise_was_lost_is_measured_again_as_a_whole(bench: Stage):
    bench.run()
    (path,) = bench.journal.glob("*.jsonl")
    path.write_bytes(b"".join(line for line in path.read_bytes().splitlines(keepends=True) if json.loads(line)["role"] != "aa"))
    again = bench.run()
    assert len(read_journal(bench.journal)) == 13  # 6 of the first job, 7 of the second
    assert len(again) == 6
    (last,) = (
        json.loads(line)
        for line in sorted(bench.journal.glob("*.jsonl"))[-1].read_text().splitlines()
        if '"role": "candidate"' in line and '"backend": "numpy"' in line
    )
    assert again.samples_ms[again.backend == "numpy"].item().tolist() == last["samples_ms"]  # in one job with the twin


def test_the_tuned_block_is_the_one_that_is_measured(bench: Stage):
    entry = {"operator": "softmax", "backend": "numpy", "problem": {"rows": 1, "columns": 1}, "block": {"ROWS": 17}}
    table = bench.folder / "tuned.json"
    table.write_text(json.dumps({"schema": 1, "device": find("cpu").name, "entries": [entry]}))
    rows = bench.run("--tuned", table).set_index("backend")
    assert json.loads(rows.block["numpy"]) == {"ROWS": 17}
    untuned = Stage(bench.monkeypatch, bench.folder, "bench", "softmax_bench").run().set_index("backend")
    assert json.loads(untuned.block["numpy"]) == {"ROWS": 64}
    assert untuned.point["numpy"] != rows.point["numpy"]
    assert untuned.point["torch"] == rows.point["torch"]


def test_a_peer_of_other_code_is_another_point_and_ours_stay(bench: Stage):
    first = bench.run().set_index("backend").point
    path = bench.folder / "softmax" / "__init__.py"
    path.write_text(path.read_text().replace("* 1.01", "* 1.02"))
    bench.monkeypatch.delitem(sys.modules, "operators_softmax")
    second = bench.run().set_index("backend").point
    assert second["wrong"] != first["wrong"]
    assert second[["numpy", "torch"]].tolist() == first[["numpy", "torch"]].tolist()
