"""The driver against fake programs: each way for ServerlessLLM to fail is one clear error, and nothing is left of it."""

import dataclasses
import re
import shutil
import signal
import socket
import subprocess
import sys

import pytest

from analysis.cli import BadInput
from rag.serverlessllm import driver, environment, ray
from rag.serverlessllm.deployment import Deployment, Scaling
from rag.servers.errors import ServerFailed
from rag.servers.server import Bounds
from tests.commands import ROOT
from tests.rag import fake_serverlessllm as fake
from tests.rag import left

TINY = Deployment("tiny")
PATIENT = Bounds()


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """A fake environment, a store with one model in the stand-in's form, and a port of the store that no other test takes."""
    monkeypatch.delenv("SLURM_JOB_NODELIST", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as free:
        monkeypatch.setattr(driver, "STORE_PORT", free.getsockname()[1])
    folder = tmp_path / "store" / "transformers" / "tiny"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").touch()
    return {"home": fake.environment(tmp_path / "env"), "store": tmp_path / "store", "logs": tmp_path / "logs", "scratch": tmp_path}


def made(parts, model=TINY, bounds=PATIENT, **changes):
    return driver.ServerlessLLM(models=[model], bounds=bounds, **({"stand_in": 1} | parts | changes))


def clean(parts, ports):
    """Nothing runs of the environment, listens on its ports, or lies in the scratch folder."""
    return not left.processes(parts["home"]) and not left.listeners(ports) and not list(parts["scratch"].glob("blockwise-*"))


def ports_of(server):
    """The ports that a server listens on."""
    return {int(server.address.rpartition(":")[2]), driver.STORE_PORT}


def test_deploys_answers_and_leaves_nothing(parts):
    with made(parts) as server:
        ports = ports_of(server)
        assert left.listeners(ports) == ports
        server.deploy("tiny")
        answer = server.probe("tiny")
        assert (answer.text, answer.tokens_out) == (fake.SAYS, 4) and answer.seconds > 0
        assert server.client.embeddings("tiny", ["a", "b"], 5) == [[1.0, 0.0]] * 2
        assert server.failure() is None and server.instances() == 0
        assert server.describe()["store"] == "stand-in store, no GPU"
        assert sum("daemon" in line for line in left.processes(parts["home"])) == 2  # which no process group or session holds
    assert clean(parts, ports)
    assert sorted(path.name for path in parts["logs"].rglob("*.log")) == [
        "agent.log",
        "ray-head.log",
        "ray-worker.log",
        "sllm.log",
        "store.log",
    ]


FAULTS = [  # what the programs do, the bound that is to be met, if any, and the error
    ("ray-head ends", None, r"failed before ray-head on node \S+ runs; ray-head on node \S+ ended \(code 1\); .*ray-head.log:\n.*a reason"),
    ("ray-head hangs", "process_s", r"not within 2 s: ray-head on node \S+ runs; the end of \S+ray-head.log:\nray-head on"),
    ("ray-worker hangs", "process_s", r"not within 2 s: ray-worker on node \S+ runs; the end of \S+ray-worker.log"),
    ("store ends", None, r"store on node \S+ ended \(code 1\); the end of \S+store.log:\n.*a reason"),
    ("store hangs", "ready_s", r"not within 2 s: the store of node \S+ opens port \d+; the end of \S+store.log"),
    ("sllm ends", None, r"failed before it answers /health; sllm on node \S+ ended \(code 1\); the end of \S+sllm.log:\n.*a reason"),
    ("never healthy", "ready_s", r"not within 2 s: it answers /health; the end of \S+sllm.log"),
    ("register fails", None, r"'tiny' was not deployed: .*/register: HTTP 500: .*Cannot register model.*; the end of \S+sllm.log"),
    ("registers nothing", None, r"'tiny' was not deployed: /register answered 200 but /v1/models does not list it; the end of"),
    ("no router", "deploy_s", r"not within 2 s: 'tiny' has its router; the end of \S+sllm.log"),
    ("chat hangs", "cold_s", r"/v1/chat/completions: no answer within 2 s; the end of \S+sllm.log"),
    ("error as 200", None, r"/v1/chat/completions: HTTP 200 with an error: Instance stopped; the end of \S+sllm.log"),
    ("empty answer", None, r"/v1/chat/completions: 'tiny' answered without content: "),
    ("sllm dies", None, r"/v1/chat/completions: .*; sllm on node \S+ ended \(signal 9\); the end of \S+sllm.log"),
]


@pytest.mark.parametrize(("fault", "bound", "says"), FAULTS, ids=[fault for fault, _, _ in FAULTS])
def test_each_fault_is_one_clear_error_with_the_right_log(parts, monkeypatch, fault, bound, says):
    monkeypatch.setenv("FAKE", fault)
    bounds = dataclasses.replace(PATIENT, **({bound: 2.0} if bound else {}))
    with pytest.raises(ServerFailed) as caught, made(parts, bounds=bounds) as server:
        server.deploy("tiny")
        server.probe("tiny")
    assert re.search(says, str(caught.value), re.DOTALL)
    assert clean(parts, {driver.STORE_PORT})


def test_what_does_not_heed_TERM_is_killed(parts, monkeypatch):
    monkeypatch.setenv("FAKE", "nothing heeds TERM")
    with made(parts) as server:
        ports = ports_of(server)
    assert clean(parts, ports)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT], ids=lambda number: number.name)
def test_nothing_is_left_when_the_driver_is_killed(parts, number):
    code = f"""
import sys
from pathlib import Path
from rag.serverlessllm import driver
driver.STORE_PORT = {driver.STORE_PORT}
from tests.rag.test_serverlessllm import made
with made({{name: Path(path) for name, path in { ({name: str(path) for name, path in parts.items()})!r}.items()}}) as server:
    print(server.address, flush=True)
    sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with process:
        port = int(process.stdout.readline().rpartition(b":")[2])
        process.send_signal(number)
        process.wait(30)
    assert not left.gone(parts["home"]) and not left.listeners({port, driver.STORE_PORT})


def test_a_taken_store_port_is_said_before_anything_starts(parts):
    with socket.create_server(("127.0.0.1", driver.STORE_PORT)):
        with pytest.raises(BadInput, match=r"port \d+ is taken .*: end it, or take another node") as caught, made(parts):
            pass
        assert "\n" not in str(caught.value) and not list(parts["logs"].rglob("ray*"))
    assert clean(parts, {driver.STORE_PORT})


def test_without_a_gpu_the_real_store_is_refused(parts, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (parts["store"] / "transformers" / "tiny" / "tensor_index.json").touch()
    server = made(parts, stand_in=0)
    with pytest.raises(BadInput, match=r"no GPU in the allocation; ask for one \(--gres=gpu:1\), or take the stand-in store"), server:
        pass
    assert clean(parts, set())


def test_a_store_that_does_not_load_is_one_line(parts, monkeypatch):
    monkeypatch.setenv("FAKE", "python ends")
    (parts["store"] / "transformers" / "tiny" / "tensor_index.json").touch()
    says = r"sllm_store does not load \(python: a reason\); take an environment of variant cuda, build .*"
    with pytest.raises(BadInput, match=says):
        made(parts, stand_in=0)


@pytest.mark.parametrize(
    ("model", "changes", "says"),
    [
        (Deployment("absent"), {}, r"model 'absent': no folder .*absent; make it: python -m rag.serverlessllm.convert"),
        (Deployment("tiny", backend="tensorrt"), {}, "model 'tiny': unknown backend 'tensorrt'; one of transformers, vllm"),
        (Deployment("tiny", backend="vllm"), {}, "backend vllm needs a GPU and the real store"),
        (Deployment("tiny", scaling=Scaling(min_instances=3, max_instances=2)), {}, "0 ≤ min_instances ≤ max_instances"),
        (Deployment("tiny"), {"stand_in": 0}, r"tiny is not in the store's format \(no tensor_index.json in it\); convert it anew"),
    ],
)
def test_bad_input_is_one_line(parts, model, changes, says):
    with pytest.raises(BadInput, match=says) as caught:
        made(parts, model, **changes)
    assert "\n" not in str(caught.value) and not parts["logs"].exists()


def test_an_environment_that_is_not_built_names_the_command(parts, tmp_path):
    with pytest.raises(BadInput, match=r"environment is not built .*; run `snakemake serverlessllm_environment`"):
        made(parts, home=tmp_path / "nowhere")
    (parts["home"] / "blockwise.lock").write_text("another")
    with pytest.raises(BadInput, match=r"built from another lock.*; run `snakemake serverlessllm_environment`"):
        made(parts)


def test_an_environment_needs_space_and_keeps_what_is_not_its_own(tmp_path, monkeypatch):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(BadInput, match="holds something else"):
        environment.build(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 10**9))
    with pytest.raises(BadInput, match=r"--out \S+: 1.0 GB are free and 2.5 GB are needed"):
        environment.build(tmp_path / "env")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_real_store_needs_its_python(tmp_path):
    with pytest.raises(BadInput, match=r"--python python9: not found; variant cuda needs Python 3.10: install it, or name its path"):
        environment.build(tmp_path / "env", "cuda", "python9")
    with pytest.raises(BadInput, match=rf"it is Python 3.{sys.version_info[1]}; variant cuda needs Python 3.10"):
        environment.build(tmp_path / "env", "cuda", sys.executable)
    assert not (tmp_path / "env").exists()


@pytest.mark.parametrize("variant", environment.VARIANTS)
def test_an_environment_from_the_same_lock_is_kept(tmp_path, variant):
    (tmp_path / "blockwise.lock").write_text(environment.digest(variant))
    assert environment.build(tmp_path, variant) is False


@pytest.mark.parametrize("variant", environment.VARIANTS)
def test_the_lock_pins_what_serverlessllm_asks_for(variant):
    """One version of each package; the real store with the torch that its extension was built for, or no store and nothing for CUDA."""
    lines = [line for line in environment.VARIANTS[variant].lock.read_text().splitlines() if not line.startswith("#")]
    assert all(re.match(r"[a-z0-9._-]+==\S+", line) for line in lines)
    assert f"serverless-llm=={environment.VERSION}" in lines and "ray==2.46.0" in lines
    store = [line for line in lines if line.startswith(("serverless-llm-store", "nvidia-"))]
    assert environment.STORE in store and "torch==2.7.0" in lines if variant == "cuda" else not store


@pytest.mark.parametrize("address", ["127.0.0.1", "192.0.2.1"])
def test_ray_keeps_to_loopback_on_one_machine_alone(tmp_path, address):
    cluster = ray.Cluster(tmp_path, address, 6379, tmp_path / "ray")
    for command in (cluster.head(10001, 4), cluster.worker(address, 0, 2)):
        loopback = command[:2] == [str(tmp_path / "python"), str(ray.LAUNCHER)]
        assert loopback == (address == "127.0.0.1") and f"--node-ip-address={address}" in command
        assert loopback or command[0] == str(tmp_path / "ray")
    assert bool(ray.network(address)) == (address == "127.0.0.1")
    assert f"--address={address}:6379" in cluster.worker(address, 0, 2) and "--num-gpus=2" in cluster.worker(address, 0, 2)
