"""The check of the machine, told of machines that this one is not."""

import subprocess
import sys

import pytest

from cluster import doctor


def findings(check) -> dict[str, str]:
    return {finding.text: finding.level for finding in check()}


def test_one_line_a_check_and_what_to_do_for_each_that_fails(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "CHECKS", (lambda: [doctor.Finding("ok", "fine"), doctor.Finding("fail", "broken", "mend it")],))
    monkeypatch.setattr(sys, "argv", ["doctor"])
    assert doctor.main() == 1
    assert capsys.readouterr().out.splitlines() == ["ok    fine", "fail  broken; to do: mend it"]


def test_notes_alone_are_no_failure(monkeypatch):
    monkeypatch.setattr(doctor, "CHECKS", (lambda: [doctor.Finding("note", "no TeX", "install it")],))
    monkeypatch.setattr(sys, "argv", ["doctor"])
    assert doctor.main() == 0


def test_this_environment_passes_its_own_checks():
    assert {*findings(doctor.python).values(), *findings(doctor.snakemake).values()} == {"ok"}


def test_a_slurm_that_does_not_answer_is_a_failure(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(doctor, "_ask", lambda *command: subprocess.CompletedProcess(command, 1, "", "sinfo: error: Connection refused"))
    assert findings(doctor.slurm) == {"Slurm does not answer (sinfo: error: Connection refused)": "fail"}


def test_a_slurm_without_accounting_is_a_failure(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/usr/bin/{name}")
    answer = lambda *command: subprocess.CompletedProcess(command, int(command[0] == "sacct"), "gpu gpu:a100:4\n", "sacct: error: disabled")  # noqa: E731
    monkeypatch.setattr(doctor, "_ask", answer)
    assert "fail" in findings(doctor.slurm).values()


@pytest.mark.parametrize(
    ("torch", "cupy", "driver", "levels"),
    [
        ("13.0", "13", "13.0", ["ok", "ok"]),
        ("13.0", "13", "12.4", ["fail", "fail"]),
        ("12.6", "12", "13.0", ["fail", "fail"]),
        (None, None, "13.0", ["note", "note"]),
    ],
)
def test_wheels_are_held_against_gpu_and_driver(monkeypatch, torch, cupy, driver, levels):
    monkeypatch.setattr(doctor, "_torch_cuda", lambda: torch)
    monkeypatch.setattr(doctor, "_version", lambda name: "14" if name == f"cupy-cuda{cupy}x" else None)
    monkeypatch.setattr(doctor, "_ask", lambda *command: subprocess.CompletedProcess(command, 0, f"| CUDA Version: {driver}  |", ""))
    assert [finding.level for finding in doctor._wheels("cuda13")] == levels
