"""The benchmark of loading runs at tiny sizes, with a module that only looks like the store; states and tables are what they say."""

from __future__ import annotations

import json
import os
import socket
import sys
import types
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from analysis.cli import BadInput
from tests.commands import ROOT, run_python

sys.path.append(str(ROOT / "docs" / "benchmarks"))

import store as benchmark
import store_loads

SCRIPT = Path("docs/benchmarks/store.py")
SIZES = benchmark.Sizes(models={"tiny": {"architecture": "opt", "hidden": 16, "layers": 1, "heads": 2}}, repeats=1, memory=1 << 20)


@pytest.fixture
def looks_like_the_store(monkeypatch):
    """Modules with the names that are used of `sllm_store`; loading goes through safetensors. Yields what was unloaded."""
    unloaded: list[str] = []

    class Client:
        def __init__(self, address):
            assert address == "127.0.0.1:8073"

        def unload_from_cpu(self, path):
            unloaded.append(path)

    def load_model(path, device_map, torch_dtype, storage_path, fully_parallel):
        return AutoModelForCausalLM.from_pretrained(Path(storage_path, path), dtype=torch_dtype)

    members = {
        "client": {"SllmStoreClient": Client},
        "transformers": {"save_model": lambda m, to: m.save_pretrained(to), "load_model": load_model},
    }
    monkeypatch.setitem(sys.modules, "sllm_store", types.ModuleType("sllm_store"))
    for name, content in members.items():
        module = types.ModuleType(f"sllm_store.{name}")
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(sys.modules["sllm_store"], name, module, raising=False)
    store_loads._sllm_store.cache_clear()
    yield unloaded
    store_loads._sllm_store.cache_clear()


def test_every_way_and_state_is_measured_every_round(tmp_path, looks_like_the_store):
    states = list(store_loads.STATES)
    rows = list(benchmark.loads("tiny", SIZES.models["tiny"], SIZES, states, tmp_path / "m", "cpu", True))
    cells = {(row["way"], row["state"]) for row in rows}
    files = {(way, state) for way in ("safetensors", "torch") for state in ("cold", "warm")}
    assert cells == files | {(way, state) for way in ("store", "store as served") for state in states}
    assert len(rows) == SIZES.repeats * len(cells) and {row["round"] for row in rows} == {0}
    assert all(row["s"] > 0 and row["logits_difference"] == 0 for row in rows)
    assert set(looks_like_the_store) == {"m/store"}


def test_wrong_weights_are_seen(tmp_path, monkeypatch):
    """A way that loads something else than was saved."""
    other = store_loads.make(SIZES.models["tiny"], tmp_path / "other", torch.float32, "cpu", False)
    with torch.no_grad():
        other.lm_head.weight += 1
    ways = {"safetensors": (tmp_path / "other", lambda: other)}
    monkeypatch.setattr(store_loads, "contenders", lambda *_: ways)
    rows = list(benchmark.loads("tiny", SIZES.models["tiny"], SIZES, ["warm"], tmp_path / "m", "cpu", False))
    assert all(row["logits_difference"] > 0 for row in rows)
    assert "differ by" in benchmark.line(rows, rows)


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="no posix_fadvise")
def test_the_page_cache_is_what_the_state_says(tmp_path):
    file = tmp_path / "weights"
    with file.open("wb") as opened:
        opened.write(os.urandom(5 << 20))
        os.fsync(opened.fileno())
    assert store_loads.prepare("warm", tmp_path, list, "torch") == 1
    cold = store_loads.prepare("cold", tmp_path, list, "torch")
    assert cold == 0 or _in_memory(tmp_path), cold


def _in_memory(path: Path) -> bool:
    """Whether the file system keeps its files in the page cache alone."""
    points = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return max((len(point), kind) for point, kind in points if str(path).startswith(point))[1] in ("tmpfs", "overlay")


def test_the_store_is_started_waited_for_and_ended(tmp_path, monkeypatch):
    serve = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(3600)"
    monkeypatch.setattr(store_loads, "_SERVE", serve)
    monkeypatch.delenv("SLURM_JOB_NODELIST", raising=False)
    (tmp_path / "models").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        monkeypatch.setattr(store_loads, "STORE_PORT", free.getsockname()[1])
    with store_loads.store(tmp_path / "models", 1 << 20, tmp_path / "logs"):
        pass
    monkeypatch.setattr(store_loads, "_SERVE", "raise SystemExit('no driver')")
    with (
        pytest.raises(BadInput, match=r"the store did not start .*store on node \S+ ended \(code 1\)"),
        store_loads.store(tmp_path / "models", 1 << 20, tmp_path / "logs"),
    ):
        pass


def test_the_command_measures_what_there_is_and_prints_it(tmp_path):
    out = tmp_path / "small.json"
    done = run_python(SCRIPT, "--small", "--out", out, "--folder", tmp_path, "--states", "warm", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    assert record["store"] is False and len(record["rows"]) == 2 * benchmark.SMALL.repeats
    assert "safetensors      warm      2" in done.stdout and "equal" in done.stdout
    assert run_python(SCRIPT, "--print", out).stdout == done.stdout
    assert not list(tmp_path.glob("store-benchmark-*"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--out", "{new}"), "PyTorch finds no CUDA GPU here"),
        (("--out", "{here}/old"), "there is such a file"),
        (("--print", "{new}"), "no such file"),
        (("--out", "{new}", "--small", "--models", "gpt-9"), "--models gpt-9: unknown; there are tiny"),
        (("--out", "{new}", "--small", "--folder", "{here}/nowhere"), "no such folder"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, words, says):
    (tmp_path / "old").touch()
    filled = [word.format(new=tmp_path / "new.json", here=tmp_path) for word in words]
    monkeypatch.setattr(sys, "argv", ["store.py", *filled])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadInput, match=says) as caught:
        benchmark.main()
    assert "\n" not in str(caught.value) and not (tmp_path / "new.json").exists()
