"""Slurm: does it answer, and has it what `partitions.yaml` names?"""

from __future__ import annotations

import re
import shutil
from collections.abc import Generator, Iterator

from analysis.cli import BadInput
from cluster import sinfo
from cluster.doctor.finding import Finding
from cluster.site import Gpu, Site

FILE = "cluster/partitions.yaml"
REWRITE = "python -m cluster.discover writes one from what this Slurm has"


def answers() -> Generator[Finding, None, sinfo.Cluster | None]:
    """Returns what Slurm says of itself; None where there is no Slurm that answers."""
    if shutil.which("sinfo") is None:
        yield Finding("ok", "no Slurm here: jobs run as processes of this machine")
        return None
    try:
        cluster = sinfo.read()
    except BadInput as error:
        if "configuration source" in str(error):
            remedy = "nothing, or set SLURM_CONF to the cluster's slurm.conf"
            yield Finding("note", "Slurm's commands are installed but no cluster is set up: jobs run on this machine", remedy)
        else:
            yield Finding("fail", str(error).partition(";")[0], "try later, or ask the administrators")
        return None
    yield Finding("ok", f"{cluster.version} answers: partitions {', '.join(cluster.partitions)}")
    history = sinfo.ask("sacct", "--noheader", "-X", "--starttime=now-1minute")
    if history.returncode:
        remedy = "ask the administrators for accounting: without it a job that is killed goes unseen"
        yield Finding("fail", f"sacct does not answer ({sinfo.last(history.stderr)})", remedy)
    else:
        yield Finding("ok", "accounting answers (sacct)")
    return cluster


def matches(facts: Site, cluster: sinfo.Cluster) -> Iterator[Finding]:
    """Do the partitions, GRES types and features of partitions.yaml exist on this Slurm?"""
    wrong = [finding for gpu in facts.gpus.values() if gpu.partition for finding in _wrong(gpu, cluster)]
    if facts.any_gpu.partition and facts.any_gpu.partition not in cluster.partitions:
        wrong.append(_unknown("any_gpu.partition", facts.any_gpu.partition, "partition", cluster.partitions))
    yield from wrong
    for name in (name for name in facts.partitions if name not in cluster.partitions):
        yield Finding("note", f"{FILE}: partitions.{name}: this Slurm has no such partition", "remove it")
    placed = [gpu.model for gpu in facts.gpus.values() if gpu.partition]
    if not placed:
        yield Finding("note", f"{FILE}: no GPU model has a partition: devices: [auto] takes any GPU", REWRITE)
    elif not wrong:
        yield Finding("ok", f"{FILE}: this Slurm has the partitions and GPUs that it names for {', '.join(placed)}")


def has(cluster: sinfo.Cluster, gpu: Gpu) -> bool:
    """Whether this Slurm has what an entry of partitions.yaml asks for."""
    return not any(_wrong(gpu, cluster)) and cluster.types(gpu.partition) != set()


def _wrong(gpu: Gpu, cluster: sinfo.Cluster) -> Iterator[Finding]:
    if gpu.partition and gpu.partition not in cluster.partitions:
        yield _unknown(f"gpus.{gpu.model}.partition", gpu.partition, "partition", cluster.partitions)
        return
    barred = cluster.partitions[gpu.partition].barred if gpu.partition else ""
    if barred:
        yield Finding("fail", f"{FILE}: gpus.{gpu.model}.partition: {gpu.partition} takes no job of yours ({barred})", REWRITE)
    types = cluster.types(gpu.partition)
    where = f"partition {gpu.partition or cluster.default}"
    if gpu.gres and gpu.gres not in types:
        yield _unknown(f"gpus.{gpu.model}.gres", gpu.gres, f"GRES type in {where}", sorted(name or "(untyped)" for name in types))
    words = {word for word in re.split(r"[&|()\[\]*,\s]+", gpu.constraint or "") if word and not word.isdigit()}
    if gpu.constraint and words - cluster.features(gpu.partition):
        yield _unknown(f"gpus.{gpu.model}.constraint", gpu.constraint, f"feature in {where}", sorted(cluster.features(gpu.partition)))


def _unknown(key: str, value: str, what: str, known: object) -> Finding:
    names = ", ".join(known) if isinstance(known, (list, dict)) else ""
    return Finding("fail", f"{FILE}: {key} is {value!r}: this Slurm has no such {what}, only {names or 'none'}", REWRITE)
