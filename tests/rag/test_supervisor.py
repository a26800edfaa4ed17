"""How a service ends and how its instances are started anew: the real processes, over real HTTP."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from analysis.cli import BadInput
from analysis.environment import ROOT
from rag import instance, service, settings, supervisor
from rag.board import Board
from rag.launch import launched
from tests.rag import fake_endpoint
from tests.rag.conftest import config_of

ECHO = {"arms": {"echo": {"service": "echo"}}}


def words(path: Path, arm: str, *more: str) -> list[str]:
    return ["--config", str(path), "--name", "tiny", "--device", "cpu", "--arm", arm, "--port", "0", *more]


@contextlib.contextmanager
def started(path: Path, arm: str, *more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A service that answers, with what it says on standard error in `service.log`; and its address."""
    with path.with_name("service.log").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "rag.service", *words(path, arm, *more)], stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT
        )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip().removeprefix(service.READY)
    finally:
        process.kill()
        process.communicate()


def ask(url: str, query: str) -> httpx.Response:
    return httpx.post(f"{url}/rag", json={"query": query}, timeout=60, trust_env=False)


@pytest.fixture
def held(tmp_path, texts_folder, scratch) -> Iterator[tuple[fake_endpoint.Endpoint, Path]]:
    """A config whose generator answers a query with "hold" in it only when it is let."""
    with fake_endpoint.endpoint() as server:
        generator = {"endpoint": server.url, "model": "opt", "new_tokens": 3}
        with config_of(tmp_path, texts_folder, scratch, generator=generator) as path:
            yield server, path


def test_at_a_signal_what_is_in_hand_is_answered_and_nothing_new_let_in(held):
    server, path = held
    with started(path, "batched") as (process, url), concurrent.futures.ThreadPoolExecutor() as pool:
        in_hand = pool.submit(ask, url, "hold on")
        assert server.held.wait(30)
        process.terminate()
        while httpx.get(f"{url}/health", trust_env=False).json()["status"] == "ok":
            pass  # until the signal has arrived
        late, ready = ask(url, "too late"), httpx.get(f"{url}/ready", trust_env=False)
        server.gate.set()
        assert process.wait(30) == 0
        answer = in_hand.result(30)
        with pytest.raises(httpx.ConnectError):
            ask(url, "after the end")
    assert answer.status_code == 200 and "hold on" in answer.json()["result"]
    assert (late.status_code, late.json()["error"]["code"], late.headers["connection"]) == (503, "draining", "close")
    assert ready.status_code == 503


@pytest.mark.parametrize("how", ["the time to drain passes", "a second signal comes"])
def test_what_is_in_hand_does_not_hold_up_the_end_for_ever(held, how):
    server, path = held
    timed = how.startswith("the time")
    with (
        started(path, "batched", "--drain-s", "0.1" if timed else "600") as (process, url),
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        in_hand = pool.submit(ask, url, "hold on")
        assert server.held.wait(30)
        process.send_signal(signal.SIGINT)
        if not timed:
            while httpx.get(f"{url}/health", trust_env=False).json()["status"] == "ok":
                pass
            process.send_signal(signal.SIGINT)
        assert process.wait(30) == 1
        if timed:
            assert (in_hand.result(30).status_code, in_hand.result().json()["error"]["code"]) == (503, "draining")
        else:
            assert isinstance(in_hand.exception(30), httpx.TransportError)
    said = path.with_name("service.log").read_text()
    assert ("1 requests were not answered within 0.1 s" if timed else "ending at once: a second signal") in said
    assert "Traceback" not in said


def test_an_instance_that_dies_is_replaced_and_counted(write_config, block):
    """Two of them behind one address: both answer, each tells of both, and the death of one is seen by the other."""
    path = write_config({**block, **ECHO})
    with started(path, "echo", "--instances", "2") as (process, url):

        def health() -> dict:
            return httpx.get(f"{url}/health", timeout=60, trust_env=False).json()  # a connection each: the kernel spreads them

        def both() -> set[int]:
            return {health()["instance"] for _ in range(64)}

        assert both() == {0, 1}
        assert httpx.get(f"{url}/ready", trust_env=False).json()["instances"] == 2
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        victims = [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(victims) == 2
        os.kill(victims[0], signal.SIGKILL)
        noticed = False
        while not noticed:
            with contextlib.suppress(httpx.TransportError):  # of those that came to it between its death and that
                noticed = health()["restarts"]["instances"] == 1
        assert len({health()["instance"] for _ in range(16)}) == 1  # nobody waits for the new one, which loads
        while both() != {0, 1}:
            pass  # until it is there
        answers = [ask(url, f"number {number}").json()["result"] for number in range(20)]
        assert answers == [f"number {number}" for number in range(20)]
        assert "rag_instance_restarts 1.0" in httpx.get(f"{url}/metrics", trust_env=False).text
        process.terminate()
        assert process.wait(30) == 0
    assert "ended with code -9; another one starts in its place" in path.with_name("service.log").read_text()


class Played(supervisor.Supervisor):
    """Instances without processes: `lives` has for each what it says ("ready", an error or nothing) and whether it then ends, in turn.

    Once these are used up the whole is told to end.
    """

    def __init__(self, lives: dict[int, list[tuple[str, bool]]]) -> None:
        its = chosen(instances=len(lives))
        super().__init__(its, [socket.socket() for _ in lives], [])
        self.lives, self.starts = lives, list[tuple[int, bool, float]]()
        self._kept: list[object] = []

    def _start(self, number: int, again: bool) -> None:
        self.starts.append((number, again, self._pauses.get(number, 0.0)))
        if not self.lives[number]:
            return self._stop(0)
        said, ends = self.lives[number].pop(0)
        control, theirs = multiprocessing.Pipe()
        sentinel, alive = multiprocessing.Pipe()
        self._kept += [theirs, sentinel, alive]
        if said:
            theirs.send(said)
        if ends:
            alive.close()
        process: Any = SimpleNamespace(sentinel=sentinel.fileno(), exitcode=1, join=lambda: None, kill=lambda: None)
        self._running[number] = supervisor._Running(number, process, control)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_S", 0.001)
    monkeypatch.setattr(supervisor, "MOST_S", 0.004)
    monkeypatch.setattr(signal, "signal", lambda *_: None)


@pytest.mark.usefixtures("quick")
def test_replacements_that_fail_leave_the_others_alone_and_are_tried_again_after_growing_pauses(capsys: pytest.CaptureFixture[str]):
    played, readies = (
        Played({0: [("ready", False)], 1: [("ready", True), ("", True), ("no such model", True), ("ready", True)]}),
        list[int](),
    )
    assert played.run(lambda: readies.append(1)) == 0
    assert readies == [1] and played.board.restarts == 4
    assert played.starts == [(0, False, 0), (1, False, 0), *((1, True, pause) for pause in (0.001, 0.002, 0.004, 0.004))]
    assert "instance 1: no such model" in capsys.readouterr().err


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "lives",
    [
        pytest.param({0: [("ready", False)], 1: [("", True)]}, id="before the service was ready"),
        pytest.param({0: [("ready", True), ("", True)]}, id="with nobody else"),
    ],
)
def test_an_instance_that_does_not_get_ready_ends_the_whole_if_nothing_speaks_against_it(lives, capsys: pytest.CaptureFixture[str]):
    assert Played(lives).run(lambda: None) == 1
    assert "before it was ready" in capsys.readouterr().err


def test_the_loop_answers_while_the_engine_is_imported(monkeypatch: pytest.MonkeyPatch):
    control, theirs = multiprocessing.Pipe()
    monkeypatch.setattr(instance._Instance, "_obey", lambda self: None)
    asked, gate = threading.Event(), threading.Event()

    def importing(self: Any) -> Any:
        asked.set()
        assert gate.wait(10)
        return contextlib.nullcontext("engine")

    monkeypatch.setattr(instance._Instance, "_engine", importing)

    async def scenario() -> str:
        its = instance._Instance(instance.Task(chosen(), 0, None, False), socket.socket(), Board(1), control)

        async def opened() -> str:
            async with its._opening() as engine:
                return engine

        opening = asyncio.create_task(opened())
        await asyncio.to_thread(asked.wait, 10)
        gate.set()
        return await opening

    assert asyncio.run(scenario()) == "engine"
    theirs.close()


def test_an_instance_that_cannot_load_ends_the_whole_with_its_line(write_config, block, tmp_path):
    block |= {"k": 100, "arms": {"batched": {"service": "batched"}}}
    path = write_config(block)
    with (
        pytest.raises(BadInput, match=r"rag\.tiny\.k: 100 chunks a request, and \d+ are all there are"),
        launched(words(path, "batched", "--instances", "2"), tmp_path / "log"),
    ):
        pytest.fail("it started")


def test_all_end_when_their_parent_is_killed(write_config, block):
    path = write_config({**block, **ECHO})
    with started(path, "echo") as (process, url):
        process.kill()
        process.wait(10)
        with pytest.raises(httpx.TransportError):
            while True:
                httpx.get(f"{url}/health", trust_env=False)


@pytest.mark.parametrize(
    ("device", "visible", "instances", "expected"),
    [
        ("cpu", "0,1", 2, []),
        ("auto", "", 2, []),
        ("cuda", "3,5,6", 1, []),
        ("cuda", "3,5,6", 2, ["3", "5"]),
        ("auto", "GPU-a, GPU-b", 2, ["GPU-a", "GPU-b"]),
    ],
)
def test_each_instance_gets_its_own_gpu(monkeypatch, device, visible, instances, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert supervisor.gpus(chosen(device, instances)) == expected


@pytest.mark.parametrize(("device", "visible"), [("cuda", ""), ("cuda", "0,1"), ("auto", "0,1")])
def test_more_instances_than_gpus_are_refused(monkeypatch, device, visible):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    there = len(visible.split(",")) if visible else 0
    with pytest.raises(BadInput, match=re.escape(f"--instances 3: there are {there} GPUs")):
        supervisor.gpus(chosen(device, 3))


def chosen(device: str = "cpu", instances: int = 1, port: int = 0) -> settings.Settings:
    flags = ["--device", device, "--instances", str(instances), "--port", str(port)]
    return settings.read(["--config", "c", "--name", "n", "--arm", "a", *flags], None, {})


def test_the_sockets_of_all_instances_are_at_one_address_that_nobody_else_gets():
    sockets = service.listen(chosen(instances=3))
    try:
        assert len({listener.getsockname() for listener in sockets}) == 1
        port = sockets[0].getsockname()[1]
        with pytest.raises(BadInput, match=f"--port {port}: cannot listen there"):
            service.listen(chosen(instances=2, port=port))
        with socket.create_connection(("127.0.0.1", port)):
            pass
    finally:
        for listener in sockets:
            listener.close()


def test_small_answers_are_not_held_back():
    """asyncio turns Nagle's algorithm off on sockets that name their protocol alone: 40 ms an answer elsewhere."""
    (listener,) = service.listen(chosen())
    with listener:
        assert listener.proto == socket.IPPROTO_TCP
