"""The config's `rag` block: checked against its schema, its defaults filled in from there."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.cli import BadInput
from analysis.environment import ROOT

SCHEMA = ROOT / "workflow" / "schemas" / "rag.schema.yaml"
BATCHED = {
    "max_batch": 16,
    "queue": 64,
    "wait_ms": 0,
    "tokens": 0,
    "overlap": True,
    "embedding": "batched",
    "retrieval": "knn",
    "decoding": "graph",
}
"""What a batched arm is unless it says otherwise."""


@dataclass(frozen=True)
class Experiment:
    """One experiment of a config: its settings with every default, the config's seed, and where it stands (for messages)."""

    name: str
    seed: int
    settings: Mapping[str, Any]
    where: str

    def arm(self, name: str) -> dict[str, Any]:
        """The settings of an arm. Raises BadInput, naming those there are."""
        arms = self.settings["arms"]
        if name not in arms:
            raise BadInput(f"{self.where}.arms: no arm {name!r}; one of {', '.join(arms)}")
        return {**(BATCHED if arms[name]["service"] == "batched" else {}), **arms[name]}


def read(path: Path, name: str) -> Experiment:
    """The experiment `name` of the config file `path`; BadInput names the file and key of whatever is wrong with it."""
    import yaml

    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from None
    block = config.get("rag") if isinstance(config, dict) else None
    if not isinstance(block, dict) or not block:
        raise BadInput(f"{path}: no block 'rag' with an experiment in it")
    if name not in block:
        raise BadInput(f"{path}: rag has no experiment {name!r}; one of {', '.join(block)}")
    seed = config.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise BadInput(f"{path}: seed: {seed!r} is not a whole number from 0")
    where = f"{path}: rag.{name}"
    return Experiment(name, seed, _checked(block[name], where), where)


def _checked(block: Any, where: str) -> dict[str, Any]:
    import jsonschema

    schema = _schema()
    experiment = schema["$defs"]["experiment"]
    validator = jsonschema.Draft202012Validator(experiment)
    error = jsonschema.exceptions.best_match(validator.iter_errors(block))
    if error is not None:
        raise BadInput(_line(error, where))
    if isinstance(block.get("embedder"), str):
        block = {**block, "embedder": {"model": block["embedder"]}}
    settings = _filled(block, experiment)
    if isinstance(settings["embedder"], str):
        settings["embedder"] = {"model": settings["embedder"]}
    settings["embedder"].setdefault("dtype", "float32")
    generator = settings["generator"]
    if generator.get("architecture") != "opt":
        for size in ("hidden", "layers", "heads"):
            generator.pop(size)
    elif generator["hidden"] % generator["heads"]:
        raise BadInput(f"{where}.generator.hidden: {generator['hidden']} is not a multiple of heads ({generator['heads']})")
    return settings


def _filled(value: Any, schema: Mapping[str, Any]) -> Any:
    """`value` with the schema's defaults for what it leaves out, in the schema's order."""
    if not isinstance(value, dict):
        return value
    filled = {}
    for name, part in schema.get("properties", {}).items():
        if name in value or "default" in part:
            filled[name] = _filled(value.get(name, part.get("default")), part)
    return filled | {name: part for name, part in value.items() if name not in filled}


def _line(error: Any, where: str) -> str:
    """A schema's objection as one line: where, what, and what would be right."""
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
    if error.validator == "additionalProperties" and isinstance(error.schema.get("properties"), dict):
        known = error.schema["properties"]
        unknown = [name for name in error.instance if name not in known]
        return f"{where}{key}: unknown key {', '.join(map(repr, unknown))}; one of {', '.join(known)}"
    if error.validator == "not":
        return f"{where}{key}: {', '.join(error.validator_value['required'])} does not go with arrivals: {error.instance['arrivals']}"
    if error.validator == "oneOf":
        return f"{where}{key}: exactly one of {', '.join(option['required'][0] for option in error.validator_value)} is needed"
    return f"{where}{key}: {' '.join(error.message.split())}"


@functools.cache
def _schema() -> dict[str, Any]:
    import yaml

    return yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
