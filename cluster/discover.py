"""Write cluster/partitions.yaml from what this Slurm says of its partitions and GPUs, with comments on what it does not say."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from analysis.cli import BadInput, replacing, run
from cluster import models, sinfo, site
from cluster.models import Model

HEADER = """\
# gpus: the GPU models to plan jobs for, by the short name that a config's `devices` uses; the first is where RAG is measured.
#   gres          its type in Slurm's GRES, as `sinfo -o %G` shows it (gpu:TYPE:count); leave out where GPUs are untyped:
#                 then `constraint` chooses the model, or any GPU is taken
#   partition     the partition to send its jobs to; without it the site's default, and `devices: [auto]` passes the model over
#   constraint    a node feature to ask for (`sinfo -o %f`)
# cluster/models.py knows name, architecture, memory and install group of most models by their short names. Give here what it lacks:
#   name          as NVML and nvidia-smi report it (with or without the leading "NVIDIA "); a MIG slice as "GPU MIG profile"
#   architecture  sm_ and the compute capability, such as sm_80
#   memory_gb     of one GPU or slice
#   install       the install group whose wheels run on it: cuda13 (sm_75 and newer) or cuda126; follows from the architecture
#
# partitions: what jobs need to know of a partition that a GPU is sent to. Every key may be left out.
#   account       the account to charge
#   max_minutes   its time limit: longer jobs ask for this, and go on after their requeue
#
# any_gpu: the partition and constraint of a job that takes any GPU; without it the site's default.
"""


@dataclass(eq=False)
class Kind:
    """GPUs that Slurm tells apart in no way: one GRES type, and what the nodes' features make of it.

    candidates: the models that they may be, the likeliest first. word: the feature that chose among them.
    places: by partition, (nodes, GPUs a node, up) of each group of nodes. features: all of their nodes'.
    """

    type: str | None
    word: str | None
    candidates: tuple[Model, ...]
    places: dict[str, list[tuple[int, int, bool]]] = field(default_factory=dict)
    features: dict[str, None] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """Lines under `gpus`. `model` is None where what Slurm says does not tell it; then they are comments, for the user to complete."""

    model: Model | None
    lines: tuple[str, ...]


def kinds(cluster: sinfo.Cluster) -> list[Kind]:
    """The GPUs of a cluster by what tells them apart."""
    found: dict[tuple[str | None, str | None, tuple[Model, ...]], Kind] = {}
    for nodes in cluster.nodes:
        for gpu in nodes.gpus:
            word, candidates = recognised(gpu.type, nodes.features)
            kind = found.setdefault((gpu.type, word, candidates), Kind(gpu.type, word, candidates))
            kind.places.setdefault(nodes.partition, []).append((nodes.count, gpu.count, nodes.up))
            kind.features |= dict.fromkeys(nodes.features)
    return list(found.values())


def recognised(gres: str | None, features: tuple[str, ...]) -> tuple[str | None, tuple[Model, ...]]:
    """The models that GPUs of a GRES type may be, and the node feature that chose among them, if one did."""
    if gres is None:
        meant = [(models.matching(feature), feature) for feature in features]
        known = sorted(((found, feature) for found, feature in meant if found), key=lambda pair: len(pair[0]))
        candidates, word = known[0] if known else ([], None)
    else:
        candidates, word = models.matching(gres), None
    for feature in features:
        fewer = models.narrowed(candidates, feature)
        if len(fewer) < len(candidates):
            candidates, word = fewer, word if gres is None else feature
    return word, tuple(candidates)


def chosen(found: list[Kind]) -> list[tuple[Kind, Model | None]]:
    """A model for each kind, none twice. None where its candidates differ in architecture, or there are none.

    Of candidates that differ in memory alone the likeliest is taken, after the kinds that leave less choice: kernels compiled
    for one run on all of them.
    """
    taken: dict[Kind, Model] = {}
    for kind in sorted(found, key=lambda kind: len(kind.candidates)):
        free = [model for model in kind.candidates if model.model not in {other.model for other in taken.values()}]
        if free and len({model.architecture for model in kind.candidates}) == 1 and not _host_unknown(kind):
            taken[kind] = free[0]
    return [(kind, taken.get(kind)) for kind in found]


def _host_unknown(kind: Kind) -> bool:
    """A bare MIG profile such as 1g.18gb, on nodes with no feature that names their GPU."""
    named = kind.word is not None and models.matching(kind.word)
    return kind.type is not None and kind.type[0].isdigit() and not named and " MIG " in kind.candidates[0].name


def best(cluster: sinfo.Cluster, places: list[str]) -> tuple[str | None, list[str]]:
    """Of some partitions the one for jobs, and the others that the user may use: the default if it is one, else the longest limit."""
    usable = [cluster.partitions[name] for name in places if cluster.partitions[name].up and not cluster.partitions[name].barred]
    usable.sort(key=lambda each: (not each.default, each.max_minutes is not None, -(each.max_minutes or 0)))
    names = [each.name for each in usable]
    return (names[0], names[1:]) if names else (None, [])


def compose(cluster: sinfo.Cluster, day: str) -> str:
    """The text of partitions.yaml for a cluster."""
    found = kinds(cluster)
    shared = {kind.type for kind in found if sum(other.type == kind.type for other in found) > 1}
    entries = [_entry(cluster, kind, model, kind.type in shared) for kind, model in chosen(found)]
    entries.sort(key=lambda entry: _power(entry.model), reverse=True)
    known = any(entry.model for entry in entries)
    lines = [f"# What {cluster.version} says of this site, written by `python -m cluster.discover` on {day}. Yours to edit;"]
    lines += [
        "# `python -m cluster.doctor` holds it against Slurm and, by a short job, against the GPU that it gets.",
        "#",
        *HEADER.splitlines(),
        "",
    ]
    lines += ["gpus:" if known else "gpus: {}", *(line for entry in entries for line in entry.lines)]
    if not found:
        lines.append("  # Slurm shows no GPU on the nodes of any partition")
    lines += ["", *_partitions(cluster), *_any_gpu(cluster)]
    return "\n".join(lines) + "\n"


def _power(model: Model | None) -> tuple[int, float]:
    return (int(model.architecture.removeprefix("sm_")), model.memory_gb) if model else (-1, 0)


def _entry(cluster: sinfo.Cluster, kind: Kind, model: Model | None, shared: bool) -> Entry:
    partition, others = best(cluster, list(kind.places))
    note = _place(kind, partition or next(iter(kind.places))) + (f"; also in {', '.join(others)}" if others else "")
    constraint = kind.word if kind.type is None or shared else None
    keys = {"gres": kind.type, "partition": partition, "constraint": constraint}
    if partition is None or model is None:
        return Entry(None, tuple(f"  # {line}" for line in (note, *_open(cluster, kind, partition, keys))))
    lines = [f"  # {note}"]
    if like := [each.model for each in kind.candidates if each != model]:
        lines.append(f"  # may also be {', '.join(like)}, by that name then: `python -m cluster.doctor --gpu {model.model}` tells")
    if shared and not constraint:
        lines.append(f"  # other nodes have the GRES type {kind.type} too, for another model: a job may land there")
    return Entry(model, (*lines, f"  {_flow(model.model)}: {_flow(keys)}  # {model}"))


def _open(cluster: sinfo.Cluster, kind: Kind, partition: str | None, keys: dict[str, str | None]) -> Iterator[str]:
    """What the user has to decide or fill in, for GPUs that have no entry yet."""
    called = f"GRES type {kind.type}" if kind.type else "no GRES type"
    if partition is None:
        yield f"{called}: its partitions take no job of yours: " + ", ".join(f"{name} ({_closed(cluster, name)})" for name in kind.places)
    elif kind.candidates:
        bare = "does not say of which GPU it is a slice" if _host_unknown(kind) else "may be each of these"
        yield f"{called} {bare}: keep the one that `nvidia-smi -L` shows on such a node"
        yield from (f"{_flow(each.model)}: {_flow(keys)}  # {each}" for each in kind.candidates)
    else:
        features = f"no feature of its nodes ({', '.join(kind.features) or 'none'})"
        untyped = f"{called}, and {features} names a model: `devices: [gpu]` takes any"
        yield f"{called}: it is none that cluster/models.py knows" if kind.type else untyped
        yield "to plan for it by name, fill in what `nvidia-smi` shows on such a node:"
        own = _flow(keys if kind.type else keys | {"constraint": "FEATURE"})
        yield f"{_flow((kind.type or 'MODEL').lower())}: {{name: ..., architecture: sm_.., memory_gb: .., {own[1:]}"


def _closed(cluster: sinfo.Cluster, partition: str) -> str:
    return cluster.partitions[partition].barred or "down"


def _place(kind: Kind, partition: str) -> str:
    groups = kind.places[partition]
    nodes = sum(count for count, _, _ in groups)
    each = sorted({gpus for _, gpus, _ in groups})
    down = sum(count for count, _, up in groups if not up)
    text = f"{nodes} node{'s' * (nodes != 1)} in {partition} with {' or '.join(map(str, each))} each"
    return text + (f", {down} of them down" if down else "")


def _partitions(cluster: sinfo.Cluster) -> Iterator[str]:
    yield "partitions:" if cluster.partitions else "partitions: {}"
    for each in cluster.partitions.values():
        types = {gpu.type or "untyped" for nodes in cluster.nodes if nodes.partition == each.name for gpu in nodes.gpus}
        notes = ["the default"] * each.default + [f"GPUs: {', '.join(sorted(types))}" if types else "no GPUs"]
        notes += ["down"] * (not each.up) + [f"not for you: {each.barred}"] * bool(each.barred)
        keys = _flow({"account": each.account, "max_minutes": each.max_minutes})
        yield f"  {_flow(each.name)}: {keys}  # {'; '.join(notes)}"


def _any_gpu(cluster: sinfo.Cluster) -> Iterator[str]:
    partition, _ = best(cluster, list(dict.fromkeys(nodes.partition for nodes in cluster.nodes if nodes.gpus)))
    if partition and partition != cluster.default:
        yield from ("", f"any_gpu: {_flow({'partition': partition})}  # the default partition is not for GPU jobs")


def _flow(value: str | dict[str, Any]) -> str:
    """A word or a mapping (less its keys without a value) in YAML on one line, quoted where YAML needs it."""
    kept = value if isinstance(value, str) else {key: part for key, part in value.items() if part is not None}
    return yaml.safe_dump([kept], default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True).strip()[1:-1]


def write(text: str, out: Path, force: bool) -> Path:
    """Write `text` to `out`, or beside it where `out` exists and `force` is not given; returns where. Loads it before it is in place."""
    path = out if force or not out.exists() else out.with_name(f"{out.stem}.discovered{out.suffix}")
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
        site.load(temporary)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m cluster.discover",
        description=__doc__,
        epilog="A GPU that Slurm's words do not tell is written as a comment that says what to fill in. Then: python -m cluster.doctor",
    )
    parser.add_argument("--out", type=Path, default=site.FILE, metavar="FILE", help="the file to write (default cluster/partitions.yaml)")
    parser.add_argument(
        "--force", action="store_true", help="replace FILE; else an existing one stays, and FILE's name.discovered.yaml is written"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the file instead of writing it")
    options = parser.parse_args()
    cluster = sinfo.read()
    text = compose(cluster, datetime.date.today().isoformat())
    if options.dry_run:
        print(text, end="")
        return
    try:
        path = write(text, options.out, options.force)
    except OSError as error:
        raise BadInput(f"--out {options.out}: cannot be written ({error.strerror}); name a file in a folder of yours") from None
    written = site.load(path)
    print(f"wrote {path}: GPU models {', '.join(written.gpus) or '(none)'}; partitions {', '.join(written.partitions)}")
    if path != options.out:
        print(f"{options.out} exists and was left as it is: compare the two, then replace it with --force")


if __name__ == "__main__":
    run(main)
