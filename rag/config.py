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
    "limit_ms": 0,
    "tokens": 0,
    "overlap": True,
    "embedding": "batched",
    "retrieval": "knn",
    "graphs": True,
    "chunks": 0,
    "instances": 1,
}
"""What an arm with batches is unless it says otherwise."""
COURSE = {"chunks": 0, "instances": 1}
"""What an arm of the course's service is unless it says otherwise."""


@dataclass(frozen=True)
class Experiment:
    """One experiment of a config: its settings with every default, the config's seed, and where it stands (for messages).

    In the settings `vary` is laid out as arms, and `loads` has every load by name with all its keys.
    """

    name: str
    seed: int
    settings: Mapping[str, Any]
    where: str

    def arm(self, name: str) -> dict[str, Any]:
        """The settings of an arm. Raises BadInput, naming those there are."""
        arms = self.settings["arms"]
        if name not in arms:
            raise BadInput(f"{self.where}.arms: no arm {name!r}; one of {', '.join(arms)}")
        return {**(COURSE if arms[name]["service"] == "course" else BATCHED), **arms[name]}


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
    return Experiment(name, seed, checked(block[name], where), where)


def check(config: Mapping[str, Any], where: str) -> None:
    """Raise BadInput for the first experiment of a whole config that is not as it should be."""
    for name, block in (config.get("rag") or {}).items():
        checked(block, f"{where}: rag.{name}")


def checked(block: Any, where: str) -> dict[str, Any]:
    """An experiment's block with every default, its `vary` and its `loads` laid out. Raises BadInput, whose message begins with `where`."""
    from rag import layout

    experiment = schema()["experiment"]
    conform(block, experiment, where)
    if isinstance(block.get("embedder"), str):
        block = {**block, "embedder": {"model": block["embedder"]}}
    settings = filled(block, experiment)
    if isinstance(settings["embedder"], str):
        settings["embedder"] = {"model": settings["embedder"]}
    settings["embedder"].setdefault("dtype", "float32")
    generator = settings["generator"]
    if generator.get("architecture") != "opt":
        for size in ("hidden", "layers", "heads"):
            generator.pop(size)
    elif generator["hidden"] % generator["heads"]:
        raise BadInput(f"{where}.generator.hidden: {generator['hidden']} is not a multiple of heads ({generator['heads']})")
    settings["arms"] = layout.arms(settings["arms"], settings.pop("vary", {}), where)
    for name, arm in settings["arms"].items():
        if arm.get("tokens") and ("endpoint" in generator or arm.get("overlap") is False):
            why = "an endpoint's prompts are not batched here" if "endpoint" in generator else "without overlap nothing knows them in time"
            raise BadInput(f"{where}.arms.{name}.tokens: {arm['tokens']}, but {why}; leave it out, or 0")
    settings["loads"] = layout.loads(settings["load"], settings.pop("loads", None), where)
    return settings


def conform(value: Any, schema: Mapping[str, Any], where: str) -> None:
    """Raise BadInput, in one line that begins with `where`, for a value that its schema does not allow."""
    import jsonschema

    error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema).iter_errors(value))
    if error is not None:
        raise BadInput(_line(error, where))


def fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a schema allows a value."""
    import jsonschema

    return bool(jsonschema.Draft202012Validator(schema).is_valid(value))


def filled(value: Any, schema: Mapping[str, Any]) -> Any:
    """`value` with the schema's defaults for what it leaves out, in the schema's order."""
    if not isinstance(value, dict):
        return value
    found = {}
    for name, part in schema.get("properties", {}).items():
        if name in value or "default" in part:
            found[name] = filled(value.get(name, part.get("default")), part)
    return found | {name: part for name, part in value.items() if name not in found}


def _line(error: Any, where: str) -> str:
    """A schema's objection as one line: where, what, and what would be right."""
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
    if error.validator == "additionalProperties" and isinstance(error.schema.get("properties"), dict):
        known = error.schema["properties"]
        unknown = [name for name in error.instance if name not in known]
        return f"{where}{key}: unknown key {', '.join(map(repr, unknown))}; one of {', '.join(known)}"
    if error.validator == "not":
        return f"{where}{key}: {', '.join(error.validator_value['required'])} does not go with arrivals: {error.instance['arrivals']}"
    if error.validator == "dependentRequired":
        for name, needed in error.validator_value.items():
            if name in error.instance:
                return f"{where}{key}: {name} needs {', '.join(needed)} beside it"
    if error.validator == "oneOf":
        return f"{where}{key}: exactly one of {', '.join(option['required'][0] for option in error.validator_value)} is needed"
    return f"{where}{key}: {' '.join(error.message.split())}"


@functools.cache
def schema() -> dict[str, Any]:
    """The schemas by name: `experiment`, and what holds of a whole `load`."""
    import yaml

    found: dict[str, Any] = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))["$defs"]
    return found
