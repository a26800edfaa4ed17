"""ServerlessLLM in an allocation of a real Slurm: where its parts run, and that nothing is left however it ends.

The first tests have fake programs in place of ServerlessLLM's environment; the others are of the real one, on nodes without a GPU.
"""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rag.models import locate
from rag.serverlessllm import convert, environment
from tests.cluster.drive import ROOT
from tests.needs import require
from tests.rag import fake_serverlessllm as fake
from tests.rag import left


class Job:
    """A job that launches ServerlessLLM on two nodes and goes through some steps."""

    def __init__(self, slurm, folder: Path, parts: dict, *steps: str, options: tuple[str, ...] = ()):
        self.env, self.parts, self.output = os.environ | slurm | {"PYTHONPATH": str(ROOT)}, parts, folder / "output"
        command = [sys.executable, "-m", "tests.cluster.serve_serverlessllm", json.dumps(parts), *steps]
        script = folder / "job.sh"
        script.write_text("#!/bin/sh\nexec " + " ".join(f"'{word}'" for word in command) + "\n")
        batch = ["sbatch", "--parsable", "--nodes=2", "--ntasks-per-node=1", "--gres=gpu:1", "--mem=6000", f"--chdir={ROOT}", *options]
        self.id = self.slurm(*batch, f"--output={self.output}", "--open-mode=append", str(script)).strip()

    def slurm(self, *command: str) -> str:
        return subprocess.run(command, env=self.env, capture_output=True, text=True, check=True).stdout

    def said(self) -> dict[str, dict]:
        lines = self.output.read_text().splitlines() if self.output.exists() else []
        return {said["step"]: said for said in map(json.loads, filter(lambda line: line.startswith("{"), lines))}

    def until(self, step: str, seconds: float = 240) -> dict:
        """What it says of a step, once it does."""
        deadline = time.monotonic() + seconds
        while step not in self.said():
            assert time.monotonic() < deadline, self.output.read_text()
            assert self.state() not in ("FAILED", "COMPLETED"), self.output.read_text()
            time.sleep(0.2)
        return self.said()[step]

    def state(self) -> str:
        return self.slurm("squeue", "--noheader", "--states=all", f"--jobs={self.id}", "--format=%T").strip()

    def end(self, seconds: float = 120) -> str:
        """The state in which it ended, once Slurm has nothing more to do for it."""
        deadline = time.monotonic() + seconds
        while self.state() in ("PENDING", "RUNNING", "COMPLETING"):
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.2)
        return self.state()

    def clean(self) -> bool:
        """Nothing of it runs, listens or lies about, and Slurm has its GPUs back."""
        ready = self.said()["ready"]
        nodes = self.slurm("scontrol", "show", "nodes", "--oneliner")
        busy = [word for line in nodes.splitlines() for word in line.split() if word.startswith("AllocTRES=") and "gpu" in word]
        return not (left.gone(self.parts["home"]) or left.listeners(set(ready["ports"])) or Path(ready["scratch"]).exists() or busy)


@pytest.fixture
def faked(tmp_path):
    """Fake programs, and a store's port that no other test takes."""
    model = tmp_path / "store" / "transformers" / "tiny"
    model.mkdir(parents=True)
    (model / "model.safetensors").touch()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return {"home": str(fake.environment(tmp_path / "env")), "store": str(tmp_path / "store"), "logs": str(tmp_path / "logs"), "port": port}


def test_each_node_has_its_worker_and_the_end_leaves_nothing(slurm, tmp_path, faked):
    job = Job(slurm, tmp_path, faked, "deploy", "chat")
    assert job.end() == "COMPLETED", job.output.read_text()
    said = job.said()
    assert said["chat"]["text"] == fake.SAYS and "gone" in said
    first, second = said["ready"]["nodes"]
    logs = {path.relative_to(tmp_path / "logs").as_posix(): path.read_text() for path in (tmp_path / "logs").rglob("*.log")}
    for node in (first, second):
        assert logs[f"{node}/ray-worker.log"].startswith(f"ray-worker on {node} with 0")
    assert f"{first}/ray-head.log" in logs and f"{first}/sllm.log" in logs and f"{second}/sllm.log" not in logs
    assert sum(name.endswith("store.log") for name in logs) == 1  # the nodes share a machine, and the store's port is fixed
    assert job.clean()


@pytest.mark.parametrize("how", ["cancelled", "requeued"])
def test_a_job_that_slurm_ends_leaves_nothing(slurm, tmp_path, faked, how):
    """Cancelled as a time-out ends it: TERM, then KILL after KillWait. Requeued as preemption does."""
    job = Job(slurm, tmp_path, faked, "deploy", "wait")
    job.until("deploy")
    job.slurm(*(["scancel", job.id] if how == "cancelled" else ["scontrol", "requeuehold", job.id]))
    if how == "cancelled":
        assert job.end() == "CANCELLED"
    assert job.clean()
    job.slurm("scancel", job.id)


@pytest.fixture(scope="module")
def real(slurm, tmp_path_factory):
    """The real environment, and a model with random weights in the stand-in store."""
    require("serverlessllm")
    folder = tmp_path_factory.mktemp("serverlessllm")
    sizes = {"architecture": "opt", "hidden": 64, "layers": 2, "heads": 4, "prompt_tokens": 512, "new_tokens": 128}
    asked = {"settings": sizes, "seed": 1, "tokenizer": str(locate("minilm", "test")), "dtype": "float32"}
    convert.convert(environment.default(), folder / "store", "tiny", asked, stand_in=True)
    return {"home": str(environment.default()), "store": str(folder / "store")}


STEPS = ("deploy", "chat", "embed", "zero", "chat:cold", "chat:warm", "kill_worker", "chat:dead")


@pytest.fixture(scope="module")
def served(slurm, tmp_path_factory, real):
    """One job that goes through the steps, and its end."""
    folder = tmp_path_factory.mktemp("served")
    job = Job(slurm, folder, real | {"logs": str(folder / "logs")}, *STEPS)
    assert job.end(600) == "COMPLETED", job.output.read_text()
    return job


def test_the_real_one_chats_embeds_and_scales_to_zero_and_back(served):
    said = served.said()
    assert said["deploy"]["models"] == ["tiny"] and said["deploy"]["instances"] == 0
    assert said["chat"]["text"] and said["chat"]["tokens"] == 8 and said["chat"]["instances"] == 1
    assert said["embed"]["sizes"] == [64, 64]
    assert said["zero"]["instances"] == 0
    assert said["chat:cold"]["text"] == said["chat"]["text"] and said["chat:cold"]["instances"] == 1
    assert 1 < said["chat:warm"]["seconds"] < said["chat:cold"]["seconds"]  # the control plane waits a second before it dispatches


def test_a_worker_that_is_killed_is_said_with_its_log(served):
    said = served.said()
    assert said["kill_worker"]["failure"].startswith(f"ray-worker on node {said['kill_worker']['node']} ended")
    assert "ray-worker on node" in said["chat:dead"]["error"] and "ray-worker.log:" in said["chat:dead"]["error"]


def test_after_the_real_one_nothing_is_left(served):
    assert "gone" in served.said() and served.clean()
    assert not left.gone("ray::") and not left.gone("raylet/raylet") and not left.gone("gcs/gcs_server")
    assert list((served.output.parent / "logs").rglob("raylet.out"))  # Ray's own logs were kept


def test_a_head_that_is_killed_is_said_and_nothing_is_left(slurm, tmp_path, real):
    job = Job(slurm, tmp_path, real | {"logs": str(tmp_path / "logs")}, "deploy", "kill_head", "chat")
    assert job.end(400) == "COMPLETED", job.output.read_text()
    said = job.said()
    assert "ended" in said["kill_head"]["failure"] and "ended" in said["chat"]["error"]
    assert job.clean() and not left.gone("ray::") and not left.gone("raylet/raylet")


def test_the_time_limit_of_the_allocation_leaves_nothing(slurm, tmp_path, real):
    job = Job(slurm, tmp_path, real | {"logs": str(tmp_path / "logs")}, "deploy", "wait", options=("--time=1",))
    job.until("ready")
    assert job.end(300) == "TIMEOUT", job.output.read_text()
    assert job.clean() and not left.gone("ray::") and not left.gone("raylet/raylet") and not left.gone("gcs/gcs_server")
