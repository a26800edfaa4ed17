"""A server that a command starts, and the agents on the nodes: what they start is watched, and ended to the last process."""

import os
import signal
import socket
import sys
import time

import pytest

from analysis.cli import BadInput
from rag.servers import nodes
from rag.servers.command import CommandServer
from rag.servers.errors import ServerFailed, tail
from rag.servers.server import Bounds
from tests.rag import left
from tests.rag.conftest import config_of

OPENAI = """
import sys
from http.server import ThreadingHTTPServer
sys.path.insert(0, {root!r})
from tests.rag.fake_serverlessllm import handler
class Handler(handler("")):
    def do_GET(self):
        self._answer({{"data": [{{"id": "tiny"}}]}})
ThreadingHTTPServer((sys.argv[2], int(sys.argv[3])), Handler).serve_forever()
"""


@pytest.fixture(autouse=True)
def outside_slurm(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_NODELIST", raising=False)


@pytest.fixture
def program(tmp_path, request):
    """The path of a small OpenAI-compatible server: its arguments are the model, the host and the port."""
    path = tmp_path / "server.py"
    path.write_text(OPENAI.format(root=str(request.config.rootpath)))
    return path


def test_a_command_is_served_and_ended(program, tmp_path):
    with CommandServer(f"{sys.executable} {program} {{model}} {{host}} {{port}}", "tiny", tmp_path / "logs", scratch=tmp_path) as server:
        server.deploy("tiny")
        assert server.probe("tiny", 20).tokens_out == 4
        with pytest.raises(ServerFailed, match="does not list 'another' but tiny; the end of "):
            server.deploy("another")
        port = int(server.address.rpartition(":")[2])
    assert not left.processes(program) and not left.listeners({port})


def test_the_projects_own_service_is_a_command_like_any(tmp_path, texts_folder, scratch):
    with config_of(tmp_path, texts_folder, scratch) as config:
        command = f"{sys.executable} -m rag.service --config {config} --name tiny --arm batched --host {{host}} --port {{port}}"
        with CommandServer(command, "tiny", tmp_path / "logs", scratch=tmp_path) as server:
            (model,) = [name for name in server.client.models(20) if "minilm" not in name.lower()]
            server.deploy(model)
            assert server.client.chat(model, "Who kneads dough?", 3, 60).tokens_out == 3
    assert not left.processes(config)


def test_a_server_that_is_not_started_says_so(tmp_path):
    server = CommandServer("true {port}", "tiny", tmp_path / "logs", scratch=tmp_path)
    for ask in (lambda: server.probe("tiny"), lambda: server.deploy("tiny"), lambda: server.address):
        with pytest.raises(ServerFailed, match="the server is not started"):
            ask()
    server.teardown()


def test_a_command_that_ends_says_why(tmp_path):
    command = f"{sys.executable} -c 'raise SystemExit(\"no such model\")' {{port}}"
    with pytest.raises(ServerFailed, match=r"server on node \S+ ended \(code 1\); the end of \S+server.log:\nno such model"):
        CommandServer(command, "tiny", tmp_path / "logs", scratch=tmp_path).__enter__()


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("vllm serve {model}", r"no \{port\} in it; such as 'vllm serve"),
        ("vllm serve {name} --port {port}", "unknown field name; there are model, host and port"),
        ("vllm serve {} --port {port}", "unknown field {}; there are"),
        ("vllm 'serve --port {port}", "No closing quotation"),
        ("vllm {port", "expected '}'"),
        ("no-such-program --port {port}", "no program 'no-such-program'; install it, or name its path"),
    ],
)
def test_a_bad_command_is_one_line(command, says, tmp_path):
    with pytest.raises(BadInput, match=says) as caught:
        CommandServer(command, "tiny", tmp_path / "logs", scratch=tmp_path).__enter__()
    assert "\n" not in str(caught.value)


@pytest.fixture
def node(tmp_path):
    (node,) = nodes.nodes(tmp_path / "scratch", tmp_path / "logs", 30)
    yield node
    assert nodes.leave([node], 30) == []
    assert not left.processes(tmp_path) and not (tmp_path / "scratch").exists()


def ended(node, name):
    until = time.monotonic() + 30
    while name not in node.ended and time.monotonic() < until:
        time.sleep(0.01)
    return node.ended.get(name)


def test_an_agent_tells_how_a_process_ended(node):
    node.start("fine", ["true"], {})
    node.start("broken", ["sh", "-c", "echo oh no; exit 3"], {})
    pid = node.start("killed", ["sleep", "3600"], {})
    assert node.failure() is None or "fine" in node.failure()
    os.kill(pid, signal.SIGKILL)
    assert (ended(node, "fine"), ended(node, "broken"), ended(node, "killed")) == (0, 3, -9)
    assert tail(node.log("broken")) == "oh no"


def test_an_agent_adopts_and_ends_daemons(node, tmp_path):
    """A daemon in a session of its own, whose parent is gone, is still below the agent, and ended with it (by the fixture)."""
    mark = str(tmp_path / "daemon")
    node.start("forks", ["setsid", "--fork", sys.executable, "-c", "import time; time.sleep(3600)", mark], {})
    assert ended(node, "forks") == 0
    assert any(mark in title for title in node.ask("titles")["titles"].values())


def test_an_agent_keeps_the_logs_of_its_scratch_folder(tmp_path):
    (node,) = nodes.nodes(tmp_path / "scratch", tmp_path / "logs", 30)
    node.start("writes", ["sh", "-c", "mkdir -p deep; echo said > deep/worker.err; yes | head -c 3000000 > long.log; touch empty.log"], {})
    assert ended(node, "writes") == 0 and nodes.leave([node], 30) == []
    assert (node.logs / "deep" / "worker.err").read_text() == "said\n"
    assert (node.logs / "long.log").stat().st_size == 1 << 20 and not (node.logs / "empty.log").exists()


def test_what_an_agent_cannot_do_is_an_error_that_names_it(node):
    with pytest.raises(ServerFailed, match="no-such-program: No such file or directory"):
        node.start("absent", ["no-such-program"], {})
    (port,) = node.ports(1)
    with socket.create_server(("127.0.0.1", port)):
        assert node.ask("free", host="127.0.0.1", port=port) == {"free": False, "why": "Address already in use"}
        assert node.ask("open", host="127.0.0.1", port=port)["open"]
    assert not node.ask("open", host="127.0.0.1", port=port)["open"]


def test_a_killed_agent_takes_what_it_started_with_it_and_is_missed(tmp_path):
    (node,) = nodes.nodes(tmp_path / "scratch", tmp_path / "logs", 30)
    node.start("server", [sys.executable, "-c", "import time; time.sleep(3600)", str(tmp_path)], {})
    node._process.kill()
    assert not left.gone(tmp_path)
    assert "its agent ended: signal 9" in node.failure()
    with pytest.raises(ServerFailed, match=r"node \S+: the agent ended"):
        node.ask("titles")
    nodes.leave([node], 5)


def test_placement_is_slurms(tmp_path, monkeypatch):
    """Names, addresses and the agents' places come from Slurm's programs; these stand-ins show what they are asked."""
    (tmp_path / "bin").mkdir()
    scripts = {
        "scontrol": 'case "$2" in hostnames) printf "a1\\na2\\n";; *) echo "NodeName=$3 NodeAddr=127.0.0.1 Port=1";; esac',
        "srun": f'echo "$@" >> {tmp_path}/asked; while [ "${{1#-}}" != "$1" ]; do shift; done; exec "$@"',
    }
    for name, script in scripts.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "a[1-2]")
    started = nodes.nodes(tmp_path / "scratch", tmp_path / "logs", 30)
    assert [(node.name, node.address) for node in started] == [("a1", "127.0.0.1"), ("a2", "127.0.0.1")]
    assert nodes.leave(started, 30) == []
    asked = (tmp_path / "asked").read_text().splitlines()
    assert sorted(line.split()[3] for line in asked) == ["--nodelist=a1", "--nodelist=a2"]
    assert all(line.startswith("--overlap --nodes=1 --ntasks=1 ") for line in asked)


def test_an_allocation_without_slurms_programs_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_NODELIST", "a[1-2]")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match=r"SLURM_JOB_NODELIST=a\[1-2\]: no scontrol on PATH"):
        nodes.nodes(tmp_path / "scratch", tmp_path / "logs", Bounds().agent_s)


@pytest.mark.parametrize(
    ("resolved", "addresses"),
    [
        (["192.0.2.1"], ["127.0.0.1"]),
        (["127.0.0.1", "127.0.0.1"], ["127.0.0.1", "127.0.0.1"]),
        (["192.0.2.1", "192.0.2.2"], ["192.0.2.1", "192.0.2.2"]),
        (["127.0.1.1", "192.0.2.2"], ["own towards 192.0.2.2", "192.0.2.2"]),
    ],
    ids=["one node", "a testbed", "a cluster", "own name in /etc/hosts"],
)
def test_nodes_get_addresses_by_which_the_others_reach_them(monkeypatch, resolved, addresses):
    names = [f"a{number}" for number in range(len(resolved))]
    monkeypatch.setattr(nodes, "_node_address", lambda name: name)
    monkeypatch.setattr(nodes, "_resolved", dict(zip(names, resolved, strict=True)).get)
    monkeypatch.setattr(nodes, "_own_address", lambda other: f"own towards {other}")
    assert nodes._addresses(names) == addresses
