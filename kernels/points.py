"""The identity of a point: all that determines its result, and nothing else."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.environment import identity, versions
from kernels import registry, timing
from kernels.contract import Backend, Block, Operator, Problem, Space
from kernels.device import Device, libraries
from kernels.plan import Experiment
from kernels.source import digest, generator_digest


class Points:
    """The ids of an experiment's points."""

    def __init__(self, experiment: Experiment, seed: int) -> None:
        self.experiment, self.seed = experiment, seed
        self._parts: dict[tuple[str, str], dict[str, Any]] = {}
        self._unloaded = functools.cache(lambda name: _unloaded(experiment.operator, name))

    def id(self, backend: Backend, problem: Problem, block: Block, device: Device, **more: Any) -> str:
        """The id of a point on a device."""
        return self._id(backend, problem.fields(), block, [device.kind, device.name, device.driver], **more)

    def same_for_all(self, backend: Backend) -> dict[str, Any]:
        """The parts of a backend's points that no problem and no block changes: made once, for digests take milliseconds."""
        about = backend.name, str(backend.module.__file__)
        if about not in self._parts:
            self._parts[about] = {
                "stage": self.experiment.stage,
                "operator": self.experiment.operator.name,
                "backend": backend.name,
                "versions": versions(*libraries(backend)),
                "data": [generator_digest(self.experiment.operator), self.seed],
                "protocol": timing.PROTOCOL,
                "source": digest(backend),
                "samples": self.experiment.samples,
            }
        return self._parts[about]

    def holds(self, record: Mapping[str, Any]) -> bool:
        """Whether a record is of a point as it is now: same code, data and samples, on the device and by the libraries that it names."""
        backend = self._unloaded(record["backend"])
        if backend is None:
            return False
        driver = ((record["provenance"].get("gpu") or {}).get("driver") or "") if record["device_kind"] == "gpu" else ""
        more: dict[str, Any] = {"versions": record["versions"]}
        if self.experiment.stage == "sweep":
            more |= {"ruled_out": record["reason"]} if record["status"] == "pruned" else {"race": self.experiment.race}
        device = [record["device_kind"], record["device"], driver]
        return self._id(backend, record["problem"], record["block"], device, **more) == record["point"]

    def _id(self, backend: Backend, problem: Mapping[str, Any], block: Block, device: Sequence[str], **more: Any) -> str:
        return identity(**{"problem": problem, "block": block, "device": device, **self.same_for_all(backend), **more})


def _unloaded(operator: Operator, name: str) -> Backend | None:
    """A backend or a peer, as far as identities need it, without importing the libraries that it runs on; None where there is none."""
    if name in operator.peers:
        module = inspect.getmodule(operator.peers[name].call) or registry.package(operator)
    elif name in registry.backends(operator):
        module = types.ModuleType(name)
        module.__file__ = str(Path(operator.folder) / f"{name}_impl.py")
    else:
        return None
    return Backend(name, "", (), Space(), lambda problem, inputs, block: {}, module)
