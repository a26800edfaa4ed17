"""How long a model takes from its files onto one GPU: ServerlessLLM's store beside safetensors and torch.load. It builds nothing.

    python docs/benchmarks/store.py --out store.json --folder /fast/disk     the sizes below; --models and --states take a part
    python docs/benchmarks/store.py --out small.json --folder /tmp --small   tiny, to see that it runs; without a GPU without the store
    python docs/benchmarks/store.py --print store.json                       the tables again

Needs torch, transformers, accelerate and grpcio, and `sllm_store` (PyPI serverless-llm-store 0.8.0, built for this Python and torch) on
Python's path. Models have random weights (`rag.shapes`). A load is timed from the call until the device is idle; page cache and store are
brought into their state before, and the share of the files in the page cache is written down. All ways and states are measured once a
round, in an order that changes. After each load, off the clock, the logits are compared with those of the model that was saved.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import random
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # before this folder, whose kernels.py is not the package of that name

from analysis.cli import BadInput, replacing, run
from analysis.environment import environment, gpu_state, versions

PACKAGES = ("torch", "transformers", "accelerate", "safetensors", "grpcio", "serverless-llm-store")
Row = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """Models by name, how often each is loaded in each way, and the bytes that the store pins."""

    models: dict[str, dict[str, Any]]
    repeats: int
    memory: int


FULL = Sizes(
    models={
        "opt-125m": {"architecture": "opt-125m"},
        "qwen2.5-1.5b": {"architecture": "qwen2.5-1.5b"},
        "opt-1.3b": {"architecture": "opt", "hidden": 2048, "layers": 24, "heads": 32},
        "opt-6.7b": {"architecture": "opt", "hidden": 4096, "layers": 32, "heads": 32},
    },
    repeats=30,
    memory=16 << 30,
)
SMALL = Sizes(models={"tiny": {"architecture": "opt", "hidden": 64, "layers": 2, "heads": 2}}, repeats=2, memory=1 << 30)


def loads(name: str, settings: Row, sizes: Sizes, states: list[str], folder: Path, device: str, with_store: bool) -> Iterator[Row]:
    """A row for each load of one model."""
    import store_loads
    import torch

    dtype = torch.float16 if device == "cuda" else torch.float32
    model = store_loads.make(settings, folder, dtype, device, with_store)
    wanted = store_loads.logits(model, device)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    del model
    store_loads.release()
    ways = store_loads.contenders(folder, dtype, device, with_store)
    cells = [(way, state) for way in ways for state in states if state != "pinned" or way.startswith("store")]
    for number in range(-1, sizes.repeats):  # the first round is not counted
        for way, state in random.Random(number).sample(cells, len(cells)):
            path, call = ways[way]
            share = store_loads.prepare(state, path, call, way)
            store_loads.idle(device)
            start = time.perf_counter()
            loaded = call()
            store_loads.idle(device)
            taken = time.perf_counter() - start
            difference = float((store_loads.logits(loaded, device) - wanted).abs().max())
            del loaded
            store_loads.release()
            row = {"model": name, "parameters": parameters, "way": way, "state": state, "round": number, "s": taken}
            if number >= 0:
                yield {**row, "bytes": size(path), "in_page_cache": share, "logits_difference": difference}


def size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def measure(sizes: Sizes, names: list[str], states: list[str], folder: Path, out: Path) -> Row:
    """Every load of the named models. Its record is written after each model's every round, so that a kill loses a round."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with_store = _with_store(sizes, device)
    if not folder.is_dir():
        raise BadInput(f"--folder {folder}: no such folder; name one on the disk that is to be measured")
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    record: Row = {"schema": 1, "started": started, "device": device, "gpu": gpu_state(), "environment": environment()}
    record |= {"versions": versions(*PACKAGES), "small": sizes is SMALL, "store": with_store, "memory": sizes.memory, "rows": []}
    for name in names:
        mine = folder / f"store-benchmark-{name}"
        try:
            for row in _served(name, sizes, states, mine, device, with_store):
                record["rows"].append(row)
                with replacing(out) as temporary:
                    temporary.write_text(json.dumps(record, indent=1) + "\n")
                print(f"{name} {row['way']}, {row['state']}: {row['s']:.4g} s", file=sys.stderr, flush=True)
        finally:
            shutil.rmtree(mine, ignore_errors=True)
    return record


def _served(name: str, sizes: Sizes, states: list[str], folder: Path, device: str, with_store: bool) -> Iterator[Row]:
    if not with_store:
        yield from loads(name, sizes.models[name], sizes, states, folder, device, False)
        return
    import store_loads

    folder.mkdir(parents=True, exist_ok=True)
    with store_loads.store(folder, sizes.memory, folder.parent / "store-benchmark-logs"):
        yield from loads(name, sizes.models[name], sizes, states, folder / "models", device, True)


def _with_store(sizes: Sizes, device: str) -> bool:
    """Whether the store takes part: it must at full size, and cannot where there is no GPU."""
    found = importlib.util.find_spec("sllm_store") is not None
    if sizes is FULL and device == "cpu":
        raise BadInput("PyTorch finds no CUDA GPU here; --small runs on a CPU, and --print FILE makes the tables of what was measured")
    if sizes is FULL and not found:
        raise BadInput(
            "no module sllm_store on Python's path; build serverless-llm-store 0.8.0 for this Python and torch, and set PYTHONPATH"
        )
    return found and device == "cuda"


def page(record: Row) -> Iterator[str]:
    """A line for each model, way and state: median, spread, and how much sooner than safetensors in the same state (pinned: warm)."""
    gpu = (record["gpu"] or {}).get("name") or "CPU"
    yield f"{gpu}, {record['started']}, commit {record['environment']['commit'][:12]}, torch {record['versions']['torch']}"
    yield f"{'model':14s} {'way':16s} {'state':7s}   n  median s      p10      p90   GB/s  ratio cached logits"
    cells: dict[tuple[str, str, str], list[Row]] = {}
    for row in record["rows"]:
        cells.setdefault((row["model"], row["way"], row["state"]), []).append(row)
    for (model, way, state), rows in sorted(cells.items()):
        peer = cells.get((model, "safetensors", "warm" if state == "pinned" else state), [])
        yield f"{model:14s} {way:16s} {state:7s} {line(rows, peer)}"


def line(rows: list[Row], peer: list[Row]) -> str:
    """One cell in figures."""
    taken = sorted(row["s"] for row in rows)
    median, p10, p90 = statistics.median(taken), taken[len(taken) // 10], taken[-1 - len(taken) // 10]
    ratio = f"{statistics.median(row['s'] for row in peer) / median:6.2f}" if peer else f"{'':6s}"
    cached, worst = statistics.median(row["in_page_cache"] for row in rows), max(row["logits_difference"] for row in rows)
    times = f"{len(taken):3d} {median:9.4f} {p10:8.4f} {p90:8.4f} {rows[0]['bytes'] / median / 1e9:6.2f}"
    return f"{times} {ratio} {cached:6.2f} {f'differ by {worst:.3g}' if worst else 'equal'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path, help="measure, and write the record into this file (JSON), which must not exist")
    what.add_argument("--print", type=Path, metavar="FILE", help="print the tables of a record")
    parser.add_argument("--folder", type=Path, default=Path("."), help="where the models' files are written, on the disk to be measured")
    parser.add_argument("--models", nargs="+", help=f"which (default: all of {', '.join(FULL.models)})")
    parser.add_argument("--states", nargs="+", choices=("cold", "warm", "pinned"), default=["cold", "warm", "pinned"])
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that it runs")
    options = parser.parse_args()
    sizes = SMALL if options.small else FULL
    if options.out and options.out.exists():
        raise BadInput(f"--out {options.out}: there is such a file; name another one")
    if options.print and not options.print.is_file():
        raise BadInput(f"--print {options.print}: no such file")
    if unknown := set(options.models or ()) - sizes.models.keys():
        raise BadInput(f"--models {', '.join(sorted(unknown))}: unknown; there are {', '.join(sizes.models)}")
    if options.print:
        record = json.loads(options.print.read_text())
    else:
        record = measure(sizes, options.models or list(sizes.models), options.states, options.folder, options.out)
    print("\n".join(page(record)))


if __name__ == "__main__":
    run(main)
