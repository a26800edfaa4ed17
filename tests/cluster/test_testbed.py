"""What the testbed says where it cannot start; that it starts and ends is the Slurm tests' fixture."""

import pytest

from analysis.cli import BadInput
from cluster.testbed import daemons


def test_missing_packages_are_one_line_with_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(daemons.os, "geteuid", lambda: 0)
    monkeypatch.setattr(daemons, "PROGRAMS", {"slurmctld-of-no-one": "slurmctld"})
    with pytest.raises(BadInput, match=r"not installed: slurmctld; run: apt-get install .*slurmctld.*munge") as caught:
        daemons.up(tmp_path / "state")
    assert "\n" not in str(caught.value) and not (tmp_path / "state").exists()


def test_without_root_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(daemons.os, "geteuid", lambda: 1000)
    with pytest.raises(BadInput, match="needs root"):
        daemons.up(tmp_path / "state")


def test_down_removes_nothing_that_is_not_its_own(tmp_path):
    (tmp_path / "thesis.tex").touch()
    assert daemons.down(tmp_path) == []
    assert (tmp_path / "thesis.tex").exists()


def test_a_pid_file_whose_number_went_to_a_stranger_is_no_daemon(tmp_path):
    (tmp_path / "slurmctld.pid").write_text("1\n")
    assert daemons.running(tmp_path) == {}
