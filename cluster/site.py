"""Facts about the site, from `cluster/partitions.yaml`: GPU models, and the Snakemake resources that ask for one."""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from analysis.cli import BadInput
from cluster import models

FILE = Path(__file__).with_name("partitions.yaml")
CPU, ANY_GPU, AUTO = "cpu", "gpu", "auto"


@dataclass(frozen=True)
class Gpu:
    """A GPU model and how Slurm is asked for it: see the comments of partitions.yaml."""

    model: str
    name: str
    architecture: str
    memory_gb: float
    install: Literal["cuda13", "cuda126"]
    gres: str | None
    partition: str | None
    constraint: str | None


@dataclass(frozen=True)
class Partition:
    account: str | None = None
    max_minutes: int | None = None


@dataclass(frozen=True)
class AnyGpu:
    """Where a job goes that takes any GPU."""

    partition: str | None = None
    constraint: str | None = None


@dataclass(frozen=True)
class Site:
    gpus: dict[str, Gpu]
    partitions: dict[str, Partition]
    any_gpu: AnyGpu = AnyGpu()

    def gpu(self, model: str) -> Gpu:
        """Raises BadInput, listing the known models, for an unknown one."""
        if model not in self.gpus:
            raise BadInput(f"device {model!r} is not in cluster/partitions.yaml; known: {CPU}, {AUTO}, {', '.join(self.gpus)}")
        return self.gpus[model]

    def resources(self, device: str) -> dict[str, int | str]:
        """What a rule asks Snakemake for to run on `device`: a model, "gpu" (any) or "cpu" (nothing)."""
        if device == CPU:
            return {}
        gpu = self._asked(device)
        account = self.partitions[gpu.partition].account if gpu.partition in self.partitions else None
        asked = {"slurm_partition": gpu.partition, "constraint": gpu.constraint, "slurm_account": account}
        if isinstance(gpu, Gpu):
            asked["gpu_model"] = gpu.gres
        return {"gpu": 1} | {key: value for key, value in asked.items() if value is not None}

    def minutes(self, device: str, wanted: int) -> int:
        """`wanted` minutes, or the time limit of the device's partition where that is shorter."""
        partition = self._asked(device).partition if device == ANY_GPU or device in self.gpus else None
        limit = self.partitions[partition].max_minutes if partition in self.partitions else None
        return wanted if limit is None else min(wanted, limit)

    def _asked(self, device: str) -> Gpu | AnyGpu:
        return self.any_gpu if device == ANY_GPU else self.gpu(device)

    def planned(self, devices: Iterable[str]) -> list[str]:
        """The devices of a config, checked, without repetition, with "auto" resolved to what there is.

        "auto" is, under Slurm, the models that the catalogue has a partition for, or else any GPU ("gpu"). Elsewhere it is
        the short name of this machine's first GPU, "gpu" where the catalogue does not know it, "cpu" without one.
        """
        found = [model for device in devices for model in (self._automatic() if device == AUTO else [device])]
        for device in found:
            if device not in (CPU, ANY_GPU):
                self.gpu(device)
        return list(dict.fromkeys(found))

    def _automatic(self) -> list[str]:
        if slurm_answers():
            return [gpu.model for gpu in self.gpus.values() if gpu.partition] or [ANY_GPU]
        return [self._here()]

    def _here(self) -> str:
        names = names_here()
        if not names:
            return CPU
        return next((gpu.model for gpu in self.gpus.values() if models.same(gpu.name, names[0])), ANY_GPU)


def gpu(model: str) -> Gpu:
    return load().gpu(model)


def known(device: str) -> Gpu | None:
    """What is known of the GPU of a planned device; None for a CPU, and for any GPU."""
    return None if device in (CPU, ANY_GPU) else gpu(device)


def resources(device: str) -> dict[str, int | str]:
    return load().resources(device)


def planned(devices: Iterable[str]) -> list[str]:
    return load().planned(devices)


@functools.cache
def load(path: Path = FILE) -> Site:
    """The site that `path` describes. Raises BadInput, naming file and key, for anything it should not hold."""
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        raise BadInput(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    checked = _mapping(path, "the file", content, _FILE, optional=_FILE.keys() - {"gpus"})
    gpus = {model: _gpu(path, model, fields) for model, fields in checked["gpus"].items()}
    partitions = {
        name: Partition(**_mapping(path, f"partitions.{name}", fields or {}, _PARTITION, optional=_PARTITION))
        for name, fields in (checked["partitions"] or {}).items()
    }
    any_gpu = AnyGpu(**_mapping(path, "any_gpu", checked["any_gpu"] or {}, _ANY_GPU, optional=_ANY_GPU))
    return Site(gpus, partitions, any_gpu)


def _gpu(path: Path, model: Any, fields: Any) -> Gpu:
    """An entry of `gpus`: what it leaves out, and no site could change, comes from the catalogue."""
    where = f"gpus.{model}"
    if not isinstance(model, str):
        raise BadInput(f"{path}: {where}: the name of a GPU model must be text; write it in quotes")
    given = _mapping(path, where, fields or {}, _GPU, optional=_GPU, rules=_GPU_RULES)
    known = models.get(model)
    for key in ("name", "architecture", "memory_gb"):
        if given[key] is None:
            if known is None:
                raise BadInput(f"{path}: {where} lacks {key}; give it, or name the entry as cluster/models.py does: it has no {model!r}")
            given[key] = getattr(known, key)
    given["install"] = given["install"] or models.install_group(given["architecture"])
    return Gpu(model=model, **given)


_FILE: dict[str, type] = {"gpus": dict, "partitions": dict, "any_gpu": dict}
_GPU: dict[str, type | tuple[type, ...]] = {
    "name": str, "architecture": str, "memory_gb": (int, float), "install": str, "gres": str, "partition": str, "constraint": str,
}  # fmt: skip
_PARTITION = {"account": str, "max_minutes": int}
_ANY_GPU = {"partition": str, "constraint": str}
_GPU_RULES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "architecture": (re.compile(r"sm_\d{2,3}").fullmatch, "sm_ and the compute capability, such as sm_80"),
    "memory_gb": (lambda value: value > 0, "a number above 0"),
    "install": ({"cuda13", "cuda126"}.__contains__, "cuda13 or cuda126"),
}


def _mapping(
    path: Path,
    where: str,
    value: Any,
    types: dict[str, Any],
    optional: Iterable[str] = (),
    rules: dict[str, tuple[Callable[[Any], Any], str]] | None = None,
) -> dict[str, Any]:
    """`value` if it is a mapping of the keys `types`, each of its type (or null and absent where optional)."""
    if not isinstance(value, dict):
        raise BadInput(f"{path}: {where} is {value!r}; it must be a mapping with {', '.join(types)}")
    for key in value:
        if key not in types:
            raise BadInput(f"{path}: {where} has the unknown key {key!r}; known: {', '.join(types)}")
    for key, kind in types.items():
        given = value.get(key)
        if given is None:
            if key in optional:
                continue
            raise BadInput(f"{path}: {where} lacks {key}")
        if not isinstance(given, kind) or isinstance(given, bool):
            kinds = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
            raise BadInput(f"{path}: {where}.{key} is {given!r}; it must be of type {kinds}")
        if rules and key in rules and not rules[key][0](given):
            raise BadInput(f"{path}: {where}.{key} is {given!r}; it must be {rules[key][1]}")
    return {key: value.get(key) for key in types}


def slurm_answers() -> bool:
    """Whether this machine is part of a Slurm cluster that answers."""
    try:
        return subprocess.run(["sinfo", "--noheader", "--format=%P"], capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def names_here() -> list[str]:
    """The names of this machine's GPUs as nvidia-smi lists them; of one cut into MIG slices "GPU MIG profile" for each slice."""
    try:
        text = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    found: list[list[str]] = []
    for line in text.splitlines():
        if whole := re.match(r"GPU \d+: (.+?) \(UUID", line):
            found.append([whole[1]])
        elif part := re.match(r"\s+MIG (\S+)\s+Device", line):
            found[-1].append(f"{found[-1][0]} MIG {part[1]}")
    return [name for whole, *slices in found for name in slices or [whole]]
