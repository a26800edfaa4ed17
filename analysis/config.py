"""A config: read, checked against its schema, and what it means for a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.cli import BadInput

SCHEMAS = Path(__file__).resolve().parent.parent / "workflow" / "schemas"
STAGES = ("sweep", "bench", "rag")


def load(path: Path | str) -> dict[str, Any]:
    """The config in a YAML file. Raises BadInput where it is missing or not YAML."""
    import yaml

    try:
        config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; name a config such as config/smoke.yaml") from None
    except yaml.YAMLError as error:
        raise BadInput(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(config, dict):
        raise BadInput(f"{path}: holds no keys; see config/README.md")
    return config


def check(config: Mapping[str, Any], where: str) -> None:
    """Raise BadInput, naming the key, its value and what would be right, where `config` does not fit its schema."""
    import jsonschema
    from referencing import Registry, Resource

    schema, rag = (load(SCHEMAS / name) for name in ("config.schema.yaml", "rag.schema.yaml"))
    registry: Registry = Registry().with_resource("rag.schema.yaml", Resource.from_contents(rag))
    validator = jsonschema.Draft202012Validator(schema, registry=registry)
    error = jsonschema.exceptions.best_match(validator.iter_errors(json.loads(json.dumps(config))))
    if error is not None:
        key = ".".join(str(part) for part in error.absolute_path) or "(top level)"
        known = f"; known keys: {', '.join(error.schema['properties'])}" if error.validator == "additionalProperties" else ""
        raise BadInput(f"{where}: {key}: {' '.join(error.message.split())}{known}")


@dataclass(frozen=True)
class Run:
    """A run: its name, its folder, the config it is made by, the devices planned for it, and whether it is sealed."""

    name: str
    folder: Path
    config: dict[str, Any]
    devices: tuple[str, ...]
    sealed: bool

    @property
    def manifest(self) -> Path:
        return self.folder / "manifest.json"


def again_file(folder: Path, stage: str, name: str) -> Path:
    """The file in a run's folder that counts how often an experiment was asked for again."""
    return folder / "again" / f"{stage}_{name}"


def attempt(folder: Path, stage: str, name: str) -> int:
    """The attempt that records of an experiment are wanted of: 1, and one more each time it was asked for again."""
    path = again_file(folder, stage, name)
    return 1 + (int(path.read_text()) if path.is_file() else 0)


def sealed(folder: Path) -> bool:
    return (folder / "manifest.json").is_file()


def devices_of(folder: Path) -> tuple[str, ...]:
    """The planned devices of a run that was measured, from the names of its record files (`<experiment>.<device>.parquet`)."""
    before = {"sweep": 1, "bench": 1, "validate": 2}  # dots before the device's name, which may have dots itself
    files = [(path.stem, dots) for stage, dots in before.items() for path in (folder / stage).glob("*.parquet")]
    return tuple(sorted({stem.split(".", dots)[dots] for stem, dots in files if not stem.endswith(".failed")}))
