"""The checks in their order, from Slurm and the site's facts to a GPU node."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Generator, Iterator
from pathlib import Path

import yaml

from analysis.cli import BadInput
from cluster import probe, site
from cluster.doctor import job, node, slurm, storage, weights
from cluster.doctor.finding import Finding
from cluster.sinfo import Cluster

PROFILE = storage.ROOT / "cluster" / "profile.v9+.yaml"


def examine(options: argparse.Namespace) -> Iterator[Finding]:
    """Every finding, in the order in which one would look."""
    yield from profile()
    facts = yield from site_file()
    cluster = yield from slurm.answers()
    if cluster and facts:
        yield from slurm.matches(facts, cluster)
    yield from storage.space()
    see = yield from weights.present()
    if cluster:
        yield from nodes(facts, cluster, options, see)
    else:
        yield from node.here(probe.report(), facts)


def profile(path: Path = PROFILE) -> Iterator[Finding]:
    """Whether Snakemake knows every key of the profile: it answers an unknown one with all its options, the reason last."""
    try:
        from snakemake.cli import get_argument_parser

        actions = get_argument_parser()._actions
    except (ImportError, OSError):  # no Snakemake, as its own check says, or one that misses a program that it calls
        return
    try:
        keys = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        yield Finding("fail", f"{path.name}: {' '.join(str(error).split())}", "correct the file")
        return
    known = {option.removeprefix("--") for action in actions for option in action.option_strings}
    unknown = [key for key in keys or {} if key not in known]
    for key in unknown:
        near = difflib.get_close_matches(key, known, 1)
        remedy = f"write {near[0]}" if near else "remove it; snakemake --help lists the keys, as flags"
        yield Finding("fail", f"{path.name}: Snakemake knows no key {key!r}", remedy)
    if not unknown:
        yield Finding("ok", f"{path.name}: {len(keys or {})} keys")


def site_file() -> Generator[Finding, None, site.Site | None]:
    """Returns what partitions.yaml says; None where it is broken."""
    try:
        facts = site.load()
    except BadInput as error:
        yield Finding("fail", str(error), "correct the file; python -m cluster.discover --force writes it anew")
        return None
    yield Finding("ok", f"cluster/partitions.yaml: {len(facts.gpus)} GPU models")
    return facts


def nodes(facts: site.Site | None, cluster: Cluster, options: argparse.Namespace, see: list[Path]) -> Iterator[Finding]:
    """A job for each GPU model that is to be tried, and what it finds on its node."""
    if options.no_job:
        yield Finding("note", "no GPU job was sent (--no-job): the nodes are not checked", "leave out --no-job")
        return
    mine, models = probe.report(), tried(facts, cluster, options)
    if not models:
        yield Finding("note", "this Slurm shows no GPU to send a job to", "python -m cluster.discover --dry-run shows what there is")
    for model in models:
        asked = sbatch(facts or site.Site({}, {}), model)
        answer = yield from job.probe(model, asked, storage.folders(), see, options.wait)
        if answer is None:
            continue
        gpu = facts.gpus.get(model) if facts else None
        yield from node.planned(answer.report, mine, gpu, answer.node)
        yield from shared(answer)


def shared(answer: job.Answer) -> Iterator[Finding]:
    """Whether the node sees and can write the folders that it must share."""
    folders = storage.folders()
    for what, why in answer.unshared.items():
        yield Finding("fail", f"{answer.node} does not share {what}, {folders[what]} ({why})", _SHARE[what])
    if both := [what for what in answer.tried if what not in answer.unshared]:
        yield Finding("ok", f"{answer.node} sees and can write what is written here: {', '.join(both)}")


def tried(facts: site.Site | None, cluster: Cluster, options: argparse.Namespace) -> list[str]:
    """The GPU models to try: the one asked for, all that this Slurm has, or the first of them; "gpu" where none has a name."""
    if options.gpu:
        if facts and options.gpu != site.ANY_GPU:
            facts.gpu(options.gpu)
        return [options.gpu]
    there = [gpu for gpu in facts.gpus.values() if slurm.has(cluster, gpu)] if facts else []
    placed = [gpu for gpu in there if gpu.partition] or there
    different = {(gpu.gres, gpu.partition, gpu.constraint): gpu.model for gpu in reversed(placed)}  # of equal requests the first
    models = [gpu.model for gpu in placed if gpu.model in different.values()]
    anything = [site.ANY_GPU] if any(each.gpus for each in cluster.nodes) else []
    return (models if options.all else models[:1]) or anything


def sbatch(facts: site.Site, model: str) -> list[str]:
    """What sbatch is asked for, as the rules ask for it: by partitions.yaml, else by the profile's default resources."""
    asked = defaults() | (facts.resources(model) if model in facts.gpus or model == site.ANY_GPU else {})
    gres = f"gpu:{asked['gpu_model']}:1" if "gpu_model" in asked else "gpu:1"
    names = {"slurm_partition": "partition", "slurm_account": "account", "constraint": "constraint"}
    minutes = facts.minutes(model, job.MINUTES)
    return [f"--gres={gres}", *(f"--{names[key]}={asked[key]}" for key in names if key in asked), f"--time={minutes}"]


def defaults() -> dict[str, int | str]:
    """Partition and account from the profile; nothing where it cannot be read."""
    try:
        given = yaml.safe_load(PROFILE.read_text())["default-resources"]
        return {key: str(given[key]).strip("'\"") for key in ("slurm_partition", "slurm_account") if key in given}
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return {}


_SHARE = {
    "repository": "clone it into a folder that all nodes share",
    "results": "link results to a folder that all nodes share",
    "caches": f"set {storage.SCRATCH} to a folder that all nodes share",
}
