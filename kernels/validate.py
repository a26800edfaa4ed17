"""Validate stage: each variant of a backend against the float64 oracle, on problems that are awkward on purpose.

    python -m kernels.validate --config config/smoke.yaml --operator knn --backend triton --device cpu --out knn.triton.cpu.parquet

The default configuration is run on every awkward problem, each other one on a share of them, in turn. Where there is no
GPU, Triton kernels run in Triton's interpreter, which is thousands of times slower, finds no races and checks no bounds.
Each run is alone, with fresh inputs, against memory poisoned with NaN.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from analysis.cli import BadInput, run
from analysis.config import check as check_config
from analysis.config import load
from analysis.environment import environment, identity, versions
from analysis.records import write_parquet
from kernels import interpreter, plan, registry
from kernels.arrays import place, poisoned, to_numpy
from kernels.contract import Backend, Block, Operator, Problem, Space, Verdict
from kernels.device import Device, find, libraries
from kernels.source import digest

STRIDE = {"native": 8, "interpreter": 64}


def check(operator: Operator, backend: Backend, problem: Problem, block: Block, device: Device, seed: int) -> Verdict:
    """Run one variant on fresh inputs and compare it with the oracle; an exception is a failed comparison."""
    inputs = operator.make_inputs(problem, seed)
    expected = operator.oracle(problem, inputs)
    try:
        placed = place(inputs, operator.shapes(problem), backend.arrays, device.kind)
        with poisoned(backend.arrays):
            outputs = to_numpy(backend.run(problem, placed, block))
    except Exception as error:  # whatever a kernel dies of is the finding
        return Verdict(False, float("inf"), f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
    return operator.compare(problem, inputs, outputs, expected)


def cases(operator: Operator, space: Space, stride: int) -> Iterator[tuple[Problem, Block]]:
    """The (problem, block) pairs to check: the default block on every problem, each other block on every `stride`-th in turn.

    Every block that is valid for a problem at all is checked at least once.
    """
    default = dict(space.default)
    yield from ((problem, default) for problem in operator.awkward if space.rule(problem, default) is None)
    blocks = [block for block, _ in space.blocks(operator.awkward[0]) if block != default]
    for number, block in enumerate(blocks):
        valid = [problem for problem in operator.awkward if space.rule(problem, block) is None]
        yield from ((problem, block) for problem in valid[number % stride :: stride] or valid[:1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="the run's config (YAML)")
    parser.add_argument("--operator", required=True, help="operator, such as knn")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--backend", help="one of the operator's backends, such as triton")
    which.add_argument("--impl", help="a function of yours instead, as path/to/file.py:function")
    parser.add_argument("--device", default="auto", help="cpu, auto, or a GPU model (default: auto)")
    parser.add_argument("--out", type=Path, help="record file to write (Parquet); without it only the verdict is printed")
    options = parser.parse_args()

    device = find(options.device)
    if device.kind == "cpu":
        interpreter.enable()
    config = load(options.config)
    check_config(config, options.config)
    operator = registry.operator(options.operator, config.get("operators", ()))
    backend = registry.outside(operator, options.impl) if options.impl else registry.backend(operator, options.backend)
    native = options.impl is not None or ("cuda" if device.kind == "gpu" else "cpu") in backend.devices
    if not native and (backend.arrays == "cupy" or device.kind == "gpu"):
        raise BadInput(f"{operator.name} {backend.name}: cannot run on {device.name}; it runs on {', '.join(backend.devices)}")

    base = {
        "operator": operator.name,
        "backend": backend.name,
        "mode": "native" if native else "interpreter",
        "device": device.name,
        "device_kind": device.kind,
        "seed": config["seed"],
        "versions": versions(*libraries(backend)),
        "provenance": environment(),
    }
    rows: list[dict[str, Any]] = []
    source = digest(backend)
    for problem, block in tqdm(
        list(cases(operator, plan.space(config, operator, backend), STRIDE[base["mode"]])), desc=f"validate {operator.name} {backend.name}"
    ):
        verdict = check(operator, backend, problem, block, device, config["seed"] + len(rows))
        point = identity(stage="validate", **{**base, "provenance": None}, problem=problem.fields(), block=block, source=source)
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        outcome = {"ok": verdict.ok, "error": verdict.error, "message": verdict.message, "started": started}
        rows.append({**base, "point": point, "problem": problem.fields(), "block": block, **outcome})
    wrong = [row for row in rows if not row["ok"]]
    if options.out:
        failed = options.out.with_suffix(".failed.parquet")
        failed.unlink(missing_ok=True)
        write_parquet(failed if wrong else options.out, rows)
    for row in wrong[:5]:
        print(f"wrong: {row['operator']} {row['backend']} {row['problem']} {row['block']}: {row['message']}", file=sys.stderr)
    print(f"{operator.name} {backend.name} ({base['mode']}): {len(rows) - len(wrong)} of {len(rows)} right")
    return 1 if wrong else 0


if __name__ == "__main__":
    run(main)
