"""Tuned tables: which block a backend uses for a problem on a GPU, by what was measured there.

A table is `kernels/tuned/<GPU>.json` (shipped, promoted from a sealed run) or any file that the tune stage wrote:
`{"schema": 1, "device": name, "entries": [{"operator", "backend", "problem", "block", "median_ms", "default_ms", ...}]}`.
A block can make an operator slower, never wrong: it is used only if the backend's space calls it valid for the problem.
Where a device has no entry of the operator, or none that is valid, those of other GPUs of its architecture are looked at, and then the
space's default is used.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.cli import BadInput
from cluster.models import CATALOGUE
from kernels.contract import Block, Problem, Space

SCHEMA = 1
FOLDER = Path(__file__).parent / "tuned"


def file_name(device: str) -> str:
    """The table's file name for a device: "NVIDIA H200" gives NVIDIA_H200.json."""
    return re.sub(r"[^A-Za-z0-9.]+", "_", device).strip("_") + ".json"


@functools.cache
def read(path: Path) -> dict[str, Any]:
    """A tuned table; one without entries where there is no file. Raises BadInput for another schema or bad blocks."""
    if not path.is_file():
        return {"device": None, "entries": []}
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        table = None
    fault = _fault(table)
    if fault:
        raise BadInput(f"{path}: {fault}; make it again with the tune stage, or remove it")
    return table


def _fault(table: Any) -> str | None:
    """What is wrong with the content of a tuned table, or None."""
    if not isinstance(table, dict) or not {"schema", "device", "entries"} <= table.keys():
        return "not a tuned table"
    if table["schema"] != SCHEMA:
        return f"schema {table['schema']!r}, and this version reads {SCHEMA}"
    for entry in table["entries"]:
        if not {"operator", "backend", "problem", "block"} <= entry.keys():
            return f"an entry lacks operator, backend, problem or block: {entry}"
        for axis, value in entry["block"].items():
            if type(value) is not int or value < 1:
                return f"{entry['operator']} {entry['backend']}: {axis} is {value!r}, not a positive whole number"
    return None


def distance(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    """How far apart two problems are: differing modes weigh most, sizes by the logarithm of their ratio."""
    total = 0.0
    for name in a.keys() | b.keys():
        x, y = a.get(name), b.get(name)
        if isinstance(x, int | float) and isinstance(y, int | float) and x > 0 and y > 0:
            total += abs(math.log2(x / y))
        elif x != y:
            total += 1000.0
    return total


def lookup(operator: str, backend: str, problem: Problem, device: str, space: Space, tables: Sequence[Path] = ()) -> Block:
    """The block for `problem`: of the nearest problem tuned on `device` whose block is valid here, else the default.

    `tables` are tuned tables to look in before the shipped one of the device. A device on which the operator was never tuned takes
    what was found on other GPUs of its architecture, before the default.
    """
    fields = problem.fields()
    own = [table for table in map(read, [*tables, FOLDER / file_name(device)]) if table["device"] == device]
    others = [entry for path in _kin(device, FOLDER) for entry in read(path)["entries"]]
    for candidates in [*(table["entries"] for table in own), others]:
        entries = [entry for entry in candidates if (entry["operator"], entry["backend"]) == (operator, backend)]
        for entry in sorted(entries, key=lambda entry: distance(entry["problem"], fields)):
            block = dict(entry["block"])
            if space.objection(problem, block) is None:
                return block
    return dict(space.default)


@functools.cache
def _kin(device: str, folder: Path) -> list[Path]:
    """The tables in `folder` of other GPUs of a device's architecture, a MIG slice's whole GPU among them."""
    of = {file_name(model.name): model.architecture for model in CATALOGUE.values()}
    own = file_name(device)
    architecture = of.get(own) or of.get(file_name(device.split(" MIG ")[0]))
    return [path for path in sorted(folder.glob("*.json")) if path.name != own and architecture and of.get(path.name) == architecture]
