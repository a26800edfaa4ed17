"""A Slurm that is played, and tasks to send to it."""

from __future__ import annotations

import os

import pytest
from played import Fake, job
from snakemake_executor_plugin_submitit.ledger import Ledger, Member
from snakemake_executor_plugin_submitit.request import Request
from snakemake_executor_plugin_submitit.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.slurm import Slurm
from snakemake_executor_plugin_submitit.task import Task


@pytest.fixture
def fake(tmp_path, monkeypatch) -> Fake:
    made = Fake(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return made


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def slurm(fake, said, tmp_path, monkeypatch) -> Slurm:
    """It waits for nothing."""
    monkeypatch.setattr("snakemake_executor_plugin_submitit.slurm.COMPLETED_S", 0)
    settings = ExecutorSettings(poll_s=0, result_s=0)
    return Slurm(tmp_path / "driver", settings, Ledger(tmp_path, "driver"), said.append)


@pytest.fixture
def tasks():
    """Makes tasks of equal requests."""

    def make(count: int, **asked: object) -> list[Task]:
        request = Request("sweep", 60, 1, **asked)
        return [Task(job(output=f"out{n}"), "true", request, (Member(f"key{n}", "same"),)) for n in range(count)]

    return make
