"""Models are fetched whole, and only what is used of them; what was interrupted goes on; whatever goes wrong is one line.

No hub can be reached where these tests run: a local server stands for it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from analysis.cli import BadInput
from analysis.environment import ROOT
from rag import fetch, hub, launch, models
from tests.rag import fake_hub
from tests.rag.fake_hub import CHUNK, COMMIT, FILES, WEIGHTS, FakeHub

CONFIG = "rag:\n  one:\n    embedder: {embedder}\n    arms: {{course: {{service: course}}}}\n    load: {{rates: [1]}}\n"
TAKEN = {"config.json", "tokenizer.json", "1_Pooling/config.json", WEIGHTS}


@pytest.fixture
def server() -> Iterator[FakeHub]:
    with fake_hub.running() as running:
        yield running


class Fetching:
    """`python -m rag.fetch` against a server, with a cache of its own."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.home = folder, folder / "home"
        outside = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        self.environment = {**outside, "HF_ENDPOINT": url, "HF_HOME": str(self.home), "PYTHONPATH": str(ROOT)}
        self.blobs = self.home / "hub" / "models--acme--tiny" / "blobs"

    def start(self, model: str = "acme/tiny", **environment: str) -> subprocess.Popen[str]:
        path = self.folder / "config.yaml"
        path.write_text(CONFIG.format(embedder=model))
        command = [sys.executable, "-m", "rag.fetch", "--config", str(path)]
        given = self.environment | environment
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=given)

    def run(self, model: str = "acme/tiny", **environment: str) -> tuple[int, str, str]:
        process = self.start(model, **environment)
        out, errors = process.communicate(timeout=60)
        return process.returncode, out, errors

    @property
    def fetched(self) -> dict[str, bytes]:
        snapshot = self.blobs.parent / "snapshots" / COMMIT
        return {str(path.relative_to(snapshot)): path.read_bytes() for path in snapshot.rglob("*") if path.is_file()}


@pytest.fixture
def fetching(tmp_path: Path, server: FakeHub) -> Fetching:
    return Fetching(tmp_path, server.url)


def gets(server: FakeHub) -> list[int]:
    """Where the downloads of the weights began."""
    return [start for method, name, start in server.asked if (method, name) == ("GET", WEIGHTS)]


@pytest.mark.parametrize("model", ["acme/tiny", "acme/tiny@v1", f"acme/tiny@{COMMIT}"], ids=["name", "tag", "commit"])
def test_a_model_is_fetched_once_and_found_again(server: FakeHub, fetching: Fetching, model: str, monkeypatch):
    code, out, errors = fetching.run(model)
    assert code == 0, errors
    assert f"acme/tiny@{COMMIT}: 0.02 GB, 0.02 GB to fetch" in out and "100%" in errors
    assert fetching.fetched == {name: FILES[name] for name in TAKEN}
    asked = len(server.asked)
    code, out, _ = fetching.run(model)
    assert code == 0 and "0.00 GB to fetch" in out and len(server.asked) == asked
    monkeypatch.setenv("HF_HUB_CACHE", str(fetching.home / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(fetching.home / "hub"))
    found = hub.cached(model, "here")
    assert hub.commit(found) == COMMIT and (found / WEIGHTS).is_file()
    settings = {"embedder": {"model": model}, "generator": {"architecture": "opt"}}
    assert models.commits(settings, "here") == {"embedder": COMMIT}
    assert models.commits({"embedder": {"model": "minilm"}, "generator": {"model": str(found)}}, "here") == {"generator": COMMIT}


def test_a_cut_connection_is_taken_up_where_it_broke(server: FakeHub, fetching: Fetching):
    server.sends = [CHUNK + 5000]
    code, _, errors = fetching.run()
    assert code == 0, errors
    assert gets(server) == [0, CHUNK] and fetching.fetched[WEIGHTS] == FILES[WEIGHTS]


def test_a_killed_fetch_goes_on_where_it_was(server: FakeHub, fetching: Fetching):
    server.sends, server.holds = [CHUNK + 5000], True
    process = fetching.start()
    assert server.held.wait(60)
    until = time.monotonic() + 60
    while not any(part.stat().st_size >= CHUNK for part in fetching.blobs.glob("*.part")):
        assert time.monotonic() < until and process.poll() is None
    process.kill()
    process.communicate()
    assert WEIGHTS not in fetching.fetched
    code, out, errors = fetching.run()
    assert code == 0, errors
    assert "0.01 GB to fetch" in out and gets(server) == [0, CHUNK]
    assert fetching.fetched[WEIGHTS] == FILES[WEIGHTS] and not list(fetching.blobs.glob("*.part"))


def test_two_fetches_into_one_cache_take_turns(server: FakeHub, fetching: Fetching):
    server.sends, server.holds = [CHUNK + 5000], True
    first = fetching.start()
    assert server.held.wait(60)
    second = fetching.start()
    assert second.stdout and "to fetch" in second.stdout.readline()
    server.released.set()
    for process in (first, second):
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert gets(server) == [0, CHUNK] and fetching.fetched[WEIGHTS] == FILES[WEIGHTS]


def test_what_names_a_file_outside_the_cache_is_refused(server: FakeHub, fetching: Fetching, monkeypatch):
    real = fake_hub._facts
    lfs = {"size": 1, "sha256": "../../../x", "oid": "x", "pointerSize": 134}
    monkeypatch.setattr(fake_hub, "_facts", lambda name, key: {**real(name, key), "lfs": lfs})
    code, _, errors = fetching.run()
    assert code == 2 and "has the sha256 '../../../x' on the hub, not 64 hex digits" in errors and not server.asked


@pytest.mark.parametrize(
    ("missing", "whole"),
    [
        pytest.param([], True, id="all"),
        pytest.param(["tokenizer.json"], True, id="one tokenizer of two"),
        pytest.param(["config.json"], False, id="no configuration"),
        pytest.param(["tokenizer.json", "vocab.txt"], False, id="no tokenizer"),
        pytest.param(["model-2.safetensors"], False, id="a part is missing"),
        pytest.param(["model.safetensors.index.json"], False, id="no index"),
    ],
)
def test_a_model_of_which_something_is_missing_is_not_had(missing: list[str], whole: bool, tmp_path: Path, monkeypatch):
    snapshot = tmp_path / "models--acme--tiny" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "vocab.txt", "model-1.safetensors", "model-2.safetensors"):
        (snapshot / name).write_text("{}")
    parts = {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    for name in missing:
        (snapshot / name).rename(tmp_path / name)
        if name.endswith(".safetensors"):
            (snapshot / name).symlink_to("../../blobs/none")  # of which the file was not fetched
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    if whole:
        assert hub.cached(f"acme/tiny@{COMMIT}", "here") == snapshot
    else:
        with pytest.raises(BadInput, match=r"here: 'acme/tiny@.*' is neither a folder nor a whole model in .*fetch it"):
            hub.cached(f"acme/tiny@{COMMIT}", "here")


def test_weights_that_come_wrong_are_not_kept(server: FakeHub, fetching: Fetching):
    server.wrong = True
    code, _, errors = fetching.run()
    assert code == 2 and "did not come as it is on the hub" in errors.splitlines()[-1]
    assert not fetching.fetched and not list(fetching.blobs.iterdir())


@pytest.mark.parametrize(
    "error",
    [
        httpx.ReadTimeout("slow"),
        ConnectionResetError(104, "reset"),
        OSError("Consistency check failed"),
        LocalEntryNotFoundError("no connection"),
    ],
    ids=["timeout", "reset", "too few bytes", "small file"],
)
def test_a_connection_that_breaks_is_one_line(error: Exception):
    with pytest.raises(BadInput, match=r"here: 'a/b': the .*connection.* (broke|again)") as raised, fetch.clear("a/b", "here"):
        raise error
    assert "\n" not in str(raised.value)


def test_a_full_disk_is_left_to_the_command_line():
    with pytest.raises(OSError) as raised, fetch.clear("a/b", "here"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert raised.value.errno == errno.ENOSPC


@pytest.mark.parametrize(
    ("model", "environment", "message"),
    [
        ("acme/tinny", {}, "the hub has no such model, or it is private"),
        ("acme/gated", {}, "its owners grant access"),
        ("acme/tiny@v2", {}, "the hub has no such revision of acme/tiny"),
        ("not a name", {}, "not a name that the hub has"),
        ("acme/tiny", {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        ("acme/tiny", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "the hub cannot be reached"),
    ],
    ids=["mistyped", "gated", "revision", "no name", "offline", "no network"],
)
def test_what_is_not_to_be_had_is_one_line(fetching: Fetching, model: str, environment: dict[str, str], message: str):
    code, out, errors = fetching.run(model, **environment)
    lines = errors.splitlines()
    assert (code, out, len(lines)) == (2, "", 1)
    assert f"config.yaml: rag.one.embedder: '{model}': {message}" in lines[0]


def test_what_needs_no_hub_needs_no_network(fetching: Fetching):
    code, out, errors = fetching.run("minilm", HF_ENDPOINT="http://127.0.0.1:9")
    assert (code, errors) == (0, "") and "nothing to fetch" in out


def test_too_little_space_is_told_before_anything_is_fetched(tmp_path: Path, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**10, 8 * 10**9, 2 * 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    fetch.check_room(2 * 10**9, tmp_path / "not" / "yet")
    with pytest.raises(BadInput, match=r"needs 3\.1 GB, 2\.0 GB free in .*/not/yet; make room"):
        fetch.check_room(3_100_000_000, tmp_path / "not" / "yet")


def test_only_safetensors_are_taken(server: FakeHub, fetching: Fetching, monkeypatch):
    monkeypatch.setattr(fake_hub, "FILES", {name: text for name, text in FILES.items() if not name.endswith(".safetensors")})
    code, _, errors = fetching.run()
    assert code == 2 and "has no safetensors weights on the hub" in errors and not server.asked


def test_services_are_kept_from_the_hub(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert launch.environment()["HF_HUB_OFFLINE"] == "1"


def test_models_lie_where_the_environment_says(monkeypatch):
    for name in ("HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BLOCKWISE_SCRATCH", "/scratch/me")
    assert hub.cache() == Path("/scratch/me/huggingface/hub")
    monkeypatch.setenv("HF_HOME", "/elsewhere")
    assert hub.cache() != Path("/scratch/me/huggingface/hub")
    assert hub.commit(Path("/x/snapshots/abc")) == "abc" and hub.commit(Path("/x/model")) is None
