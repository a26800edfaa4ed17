"""What a config asks of the operators: experiments with their problems, backends and block spaces, checked before anything runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analysis.cli import BadInput
from kernels import registry
from kernels.contract import Backend, Operator, Problem, Space
from kernels.resources import capability

STAGES = ("sweep", "bench")


@dataclass(frozen=True)
class Experiment:
    """One entry of a config's `sweep` or `bench`: problems of an operator, and how they are measured. `race`: sure losers stop early."""

    stage: str
    name: str
    operator: Operator
    problems: list[Problem]
    backends: list[str]
    blocks: Mapping[str, Any]
    samples: int
    race: bool

    def space(self, backend: Backend) -> Space:
        """The backend's block space as this experiment narrows it."""
        return self._narrowed(backend.space, backend.name)

    def space_of(self, name: str) -> Space:
        """The same by the backend's name, without importing the libraries that it runs on."""
        return self._narrowed(registry.space(self.operator, name), name)

    def _narrowed(self, space: Space, name: str) -> Space:
        return space.narrowed(self.blocks.get(name, {}), f"{self.stage}.{self.name}.blocks.{name}")


def experiment(config: Mapping[str, Any], stage: str, name: str) -> Experiment:
    """The experiment `name` of a stage. Raises BadInput, naming the key, for whatever its operator does not know."""
    where = f"{stage}.{name}"
    try:
        entry = config[stage][name]
    except (KeyError, TypeError):
        raise BadInput(f"{where}: no such experiment; one of {', '.join(config.get(stage) or {}) or '(none)'}") from None
    try:
        operator = registry.operator(entry.get("operator", name), config.get("operators", ()))
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None
    known = registry.backends(operator)
    for backend in [*entry.get("backends", ()), *entry.get("blocks", ())]:
        if backend not in known:
            raise BadInput(f"{where}: backend {backend!r} of {operator.name} is unknown; one of {', '.join(known)}")
    for backend, axes in entry.get("blocks", {}).items():
        registry.space(operator, backend).narrowed(axes, f"{where}.blocks.{backend}")
    problems = operator.problem.grid(entry["problems"], f"{where}.problems")
    samples = entry.get("samples", config.get("samples", 30))
    racing = entry.get("race", config.get("race", True))
    return Experiment(stage, name, operator, problems, entry.get("backends", known), entry.get("blocks", {}), samples, racing)


def experiments(config: Mapping[str, Any]) -> list[Experiment]:
    """Every sweep and bench experiment of a config."""
    return [experiment(config, stage, name) for stage in STAGES for name in config.get(stage) or {}]


def space(config: Mapping[str, Any], operator: Operator, backend: Backend) -> Space:
    """The block space that a config sweeps of an operator's backend: all values of its sweeps of the operator, or the backend's own."""
    sweeps = [experiment(config, "sweep", name) for name in config.get("sweep") or {}]
    spaces = [each.space(backend) for each in sweeps if each.operator.name == operator.name]
    if not spaces:
        return backend.space
    axes = {axis: tuple(dict.fromkeys(value for space in spaces for value in space.axes[axis])) for axis in backend.space.axes}
    return dataclasses.replace(backend.space, axes=axes)


def check(config: Mapping[str, Any]) -> None:
    """Raise BadInput for anything in a config that the operators do not know."""
    for name in (config.get("validate") or {}).get("operators", ()):
        registry.operator(name, config.get("operators", ()))
    for each in config.get("architectures") or []:
        capability(each)
    experiments(config)


def kind(device: str) -> str:
    """What backends call a planned device: "cpu", or "cuda" for any GPU."""
    return "cpu" if device == "cpu" else "cuda"


def backends_on(experiment: Experiment, kind: str) -> list[str]:
    """Names of the experiment's backends that run on a kind of device, "cpu" or "cuda"."""
    return [name for name in experiment.backends if kind in registry.declared(experiment.operator, name, "DEVICES")]


def contenders(experiment: Experiment, kind: str) -> list[str]:
    """Names of all that a bench measures on a kind of device: backends, peers, and on a GPU what runs on the host alone."""
    peers = [name for name, peer in experiment.operator.peers.items() if kind in peer.devices]
    return [*backends_on(experiment, kind), *peers, *(host_alone(experiment) if kind == "cuda" else ())]


def host_alone(experiment: Experiment) -> list[str]:
    """Names of the experiment's backends that run on a CPU alone."""
    return [name for name in experiment.backends if tuple(registry.declared(experiment.operator, name, "DEVICES")) == ("cpu",)]


def validated_on(operator: Operator, device: str) -> list[str]:
    """Names of the backends that can be validated on a planned device: Triton's also on a CPU, in its interpreter."""

    def possible(name: str) -> bool:
        devices = registry.declared(operator, name, "DEVICES")
        return ("cpu" in devices or registry.declared(operator, name, "ARRAYS") == "torch") if device == "cpu" else "cuda" in devices

    return [name for name in registry.backends(operator) if possible(name)]
