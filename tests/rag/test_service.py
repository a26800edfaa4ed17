"""The service in a process of its own, over real HTTP: it answers, says what is wrong, and never stays behind."""

import concurrent.futures
import socket
import subprocess
import sys

import httpx
import pytest

from analysis.cli import BadInput
from analysis.environment import ROOT
from rag import launch
from rag.launch import launched
from rag.measure import idle
from rag.service import READY
from tests.rag.conftest import config_of

ARGUMENTS = ["--name", "tiny", "--device", "cpu", "--arm", "batched"]


@pytest.fixture(scope="module")
def config(tmp_path_factory, texts_folder, scratch):
    """A config on disk, and the cache of embeddings in the environment, for all tests of this module."""
    with config_of(tmp_path_factory.mktemp("service"), texts_folder, scratch) as path:
        yield path


@pytest.fixture(scope="module")
def url(config):
    with launched(["--config", str(config), *ARGUMENTS], config.with_name("service.log")) as address:
        yield address
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/health")


def ask(url, query, k=2):
    return httpx.post(f"{url}/rag", json={"query": query, "k": k}, timeout=60, trust_env=False)


def test_it_is_reachable_from_this_machine_only(url):
    assert url.startswith("http://127.0.0.1:")


def test_one_question(url):
    response = ask(url, "Who trims the mainsail?", k=1)
    assert response.status_code == 200
    answer = response.json()
    assert answer["retrieved"] == ["sailing.txt#0"] and answer["tokens_out"] == 3
    assert set(answer["stages"]) == {"queue_ms", "embed_ms", "retrieve_ms", "generate_ms"}
    assert all(value >= 0 for value in answer["stages"].values())


def test_many_at_once_get_what_each_gets_alone(url):
    queries = ["How does bread rise?", "Who castles?", "What gathers starlight?", "When are roses pruned?", "What is a mortgage?"]
    alone = [ask(url, query).json() for query in queries]
    with concurrent.futures.ThreadPoolExecutor(len(queries)) as pool:
        together = [response.json() for response in pool.map(lambda query: ask(url, query), queries)]
    for one, other in zip(alone, together, strict=True):
        assert [one[name] for name in ("query", "result", "retrieved")] == [other[name] for name in ("query", "result", "retrieved")]
    assert idle(url)


def test_it_says_what_it_serves(url):
    facts = httpx.get(f"{url}/ready").json()
    assert facts["weights"] == "random" and facts["device"] == "cpu" and facts["embedder"] == "minilm"
    assert ask(url, "x", k=0).status_code == 422


def test_it_ends_when_its_starter_does(config):
    command = [sys.executable, "-m", "rag.service", "--config", str(config), *ARGUMENTS, "--port", "0", "--until-eof"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    try:
        assert process.stdout.readline().decode().startswith(READY)
        process.stdin.close()
        assert process.wait(30) == 0
    finally:
        process.kill()


def test_a_taken_port_is_one_line(config):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [sys.executable, "-m", "rag.service", "--config", str(config), *ARGUMENTS, "--port", str(taken.getsockname()[1])]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "cannot listen there" in done.stderr


def test_the_address_is_in_the_line_that_says_ready_whatever_comes_before(tmp_path):
    says = f"print('a library says hello'); print('not {READY}yet'); print('{READY}http://x:1'); import sys; sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", says], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"PYTHONUNBUFFERED": "1"}
    ) as one:
        assert launch._address(one, tmp_path / "log", 30) == "http://x:1"
        one.stdin.close()


def test_bad_input_of_the_service_is_the_starter_s(config, tmp_path):
    with (
        pytest.raises(BadInput, match="no arm 'other'; one of"),
        launched(["--config", str(config), "--name", "tiny", "--arm", "other"], tmp_path / "log"),
    ):
        pytest.fail("it started")


def test_a_service_that_is_never_ready_is_ended_with_its_log(config, tmp_path):
    with (
        pytest.raises(RuntimeError, match=r"not ready within 0\.2 s"),
        launched(["--config", str(config), *ARGUMENTS], tmp_path / "log", ready_s=0.2),
    ):
        pytest.fail("it started")
