"""What this Slurm has, from `sinfo`, and whether a request can ever run on it: Slurm itself would let many wait for ever."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from snakemake_executor_plugin_submitit import queue
from snakemake_executor_plugin_submitit.request import Request

FORMAT = "%P|%l|%G|%f"
_GPU = re.compile(r"gpu(?::(?P<type>[^:(]+(?=:\d)|[A-Za-z][^:(]*|\d+g\.[^:(]*))?(?::(?P<count>\d+))?(?:\(|$)")
_FEATURE = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass
class Partition:
    """`minutes` is its time limit, None for none; `gpus` the most of each GRES type that one node has, "" for untyped ones."""

    minutes: int | None = None
    default: bool = False
    gpus: dict[str, int] = field(default_factory=dict)
    features: set[str] = field(default_factory=set)

    def objection(self, request: Request, name: str) -> str | None:
        """Why no node of this partition, called `name`, will ever run the request; None where one may."""
        if self.minutes is not None and request.minutes > self.minutes:
            return f"runtime is {request.minutes} minutes; partition {name} allows {self.minutes}"
        if request.gpus and not self.gpus:
            return f"gpu is {request.gpus}; partition {name} has no GPUs"
        if request.gpu_model and request.gpu_model not in self.gpus:
            return f"gpu_model is {request.gpu_model!r}; partition {name} has {', '.join(filter(None, self.gpus)) or 'GPUs without types'}"
        most = self.gpus.get(request.gpu_model, 0) if request.gpu_model else max(self.gpus.values(), default=0)
        if request.gpus > most:
            return f"gpu is {request.gpus}; a node of partition {name} has at most {most}"
        wanted = request.constraint
        if wanted and _FEATURE.fullmatch(wanted) and wanted not in self.features:
            return f"constraint is {wanted!r}; partition {name} has the features {', '.join(sorted(self.features)) or '(none)'}"
        return None


class Partitions(dict[str, Partition]):
    """The cluster's partitions by name."""

    def objection(self, request: Request) -> str | None:
        """Why the request can never run, in one line; None where it may, or where nothing is known of this cluster."""
        default = next((name for name, partition in self.items() if partition.default), None)
        asked = dict(request.extra).get("partition", request.partition)
        names = str(asked).split(",") if asked else [default] if default else []
        unknown = [name for name in names if name not in self]
        if unknown and self:
            return f"slurm_partition is {unknown[0]!r}; this cluster has {', '.join(self)}"
        objections = [self[name].objection(request, name) for name in names if name in self]
        if not objections or None in objections:
            return None
        others = [name for name, partition in self.items() if name not in names and partition.objection(request, name) is None]
        return f"{objections[0]}" + (f"; it would run in {', '.join(others)} (resource slurm_partition)" if others else "")


def ask() -> Partitions:
    """The partitions as sinfo tells them; none where it does not answer."""
    asked = queue.ask("sinfo", "--noheader", "--all", f"--format={FORMAT}")
    return parse(asked.stdout.splitlines()) if asked.returncode == 0 else Partitions()


def parse(lines: Iterable[str]) -> Partitions:
    """One line a group of equal nodes: partition (the default one with *), time limit, GRES, features."""
    found = Partitions()
    for line in lines:
        if line.count("|") < 3:  # no row: some sites print a heading
            continue
        name, limit, gres, features = line.strip().split("|", 3)
        partition = found.setdefault(name.rstrip("*"), Partition())
        partition.default |= name.endswith("*")
        partition.minutes = minutes(limit)
        for type_, count in gpus(gres).items():
            partition.gpus[type_] = max(count, partition.gpus.get(type_, 0))
        partition.features |= {feature for feature in features.split(",") if feature != "(null)"}
    return found


def minutes(limit: str) -> int | None:
    """Slurm's time limit ([days-]hours:minutes:seconds, minutes:seconds) in minutes; None for "infinite" and the like."""
    matched = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", limit)
    if not matched:
        return None
    days, hours, rest, _ = (int(part or 0) for part in matched.groups())
    return (days * 24 + hours) * 60 + rest


def gpus(gres: str) -> dict[str, int]:
    """How many GPUs of each type a node has, by its GRES such as `gpu:a100:4(S:0-1),gpu:1g.18gb:7,shard:8`; "" for untyped ones."""
    found: dict[str, int] = {}
    for part in re.split(r",(?![^(]*\))", gres):
        if matched := _GPU.match(part):
            found[matched["type"] or ""] = found.get(matched["type"] or "", 0) + int(matched["count"] or 1)
    return found
