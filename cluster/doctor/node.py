"""What a probe's report means: is this the GPU that was planned, do the wheels run on it, is the environment the one here?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cluster import models
from cluster.doctor.finding import Finding
from cluster.site import Gpu, Site

FILE = "cluster/partitions.yaml"
TMP_GB = 2  # for the copy of the compile cache


def planned(report: dict[str, Any], mine: dict[str, Any], gpu: Gpu | None, where: str) -> Iterator[Finding]:
    """Findings on a node from its report, this machine's own (`mine`), and the entry of partitions.yaml that was asked for, if one."""
    yield from same(report, mine, where)
    cuda = report["cuda"]
    if cuda["gpus"]:
        yield from _model(cuda["gpus"][0], gpu, where)
    elif cuda["driver"] is None:
        remedy = "ask the administrators for a driver on that node (the testbed's GPUs are files with nothing behind them)"
        yield Finding("fail", f"{where}: {cuda['error']}", remedy)
    else:
        remedy = f"CUDA_VISIBLE_DEVICES is {report['visible']!r} there: ask the administrators whether its GPUs are healthy"
        yield Finding("fail", f"{where}: no GPU to be used ({cuda['error'] or 'none is visible'})", remedy)
    group = models.install_group(cuda["gpus"][0]["architecture"]) if cuda["gpus"] else gpu.install if gpu else None
    if group:
        yield from wheels(report, group, where)
    if report["unseen"]:
        remedy = "put it into a folder that all nodes share (HF_HOME moves Hugging Face's cache)"
        yield Finding("fail", f"{where} does not see {', '.join(report['unseen'])}", remedy)
    if report["tmp_free_gb"] < TMP_GB:
        remedy = "set TMPDIR to a folder with more space"
        yield Finding("note", f"{where}: {report['tmp_free_gb']:.1f} GB free in its temporary folder, {TMP_GB} are wanted", remedy)


def here(report: dict[str, Any], facts: Site | None) -> Iterator[Finding]:
    """Findings on this machine, where there is no Slurm to ask."""
    cuda = report["cuda"]
    if not cuda["gpus"]:
        why = f" ({cuda['error']})" if cuda["error"] else ""
        yield Finding("ok", f"no GPU here{why}: CPU backends are measured, kernels are still compiled for every GPU")
        return
    first = cuda["gpus"][0]
    known = next((gpu.model for gpu in facts.gpus.values() if models.same(gpu.name, first["name"])), None) if facts else None
    names = ", ".join(gpu["name"] for gpu in cuda["gpus"])
    yield Finding("ok", f"GPU here: {names} ({_describe(first)}; device {known or 'gpu'}; driver for CUDA {cuda['driver']})")
    if facts and known is None:
        yield Finding("note", f"{first['name']} is not in {FILE}", "add it under gpus, to plan for it by name")
    yield from wheels(report, models.install_group(first["architecture"]), "here")


def same(report: dict[str, Any], mine: dict[str, Any], where: str) -> Iterator[Finding]:
    """Triton's cache is keyed by Python's minor version and its own: compiled kernels are found only where both are the same."""
    for name in ("python", "triton"):
        if report[name] != mine[name]:
            there, own = report[name] or "absent", mine[name] or "absent"
            text = f"{name.capitalize()} is {there} on {where} and {own} here: kernels compiled here are of no use there"
            yield Finding("fail", text, "use one environment, in a folder that all nodes share, with one Python")
    if all(report[name] == mine[name] for name in ("python", "triton")):
        yield Finding("ok", f"{where}: Python {report['python']} and Triton {report['triton'] or '(none)'}, as here")


def wheels(report: dict[str, Any], group: str, where: str) -> Iterator[Finding]:
    """Do the installed CUDA wheels run on this GPU, which needs an install group, and with its driver?"""
    wanted, driver = {"cuda13": "13", "cuda126": "12"}[group], report["cuda"]["driver"]
    for library, cuda in report["wheels"].items():
        if cuda is None:
            yield Finding("note", f"{where}: {library} without CUDA: its GPU backends are left out", f"make setup GROUP={group}")
        elif cuda.split(".")[0] != wanted:
            yield Finding("fail", f"{where}: {library} is built for CUDA {cuda}; this GPU needs CUDA {wanted}", f"make setup GROUP={group}")
        elif driver and int(driver.split(".")[0]) < int(wanted):
            text = f"{where}: {library} needs a driver for CUDA {wanted}; this one is for {driver}"
            yield Finding("fail", text, "ask the administrators for a newer driver")
        else:
            yield Finding("ok", f"{where}: {library} for CUDA {cuda}" + (f", driver for CUDA {driver}" if driver else ""))


def _model(found: dict[str, Any], gpu: Gpu | None, where: str) -> Iterator[Finding]:
    if gpu is None or models.same(gpu.name, found["name"]):
        yield Finding("ok", f"{where}: {found['name']} ({_describe(found)})")
        return
    known = models.named(found["name"])
    remedy = f"name the entry {known.model}" if known else f'give it name: "{found["name"]}", architecture and memory_gb'
    wrong = found["architecture"] != gpu.architecture
    text = f"{where}: {found['name']} ({_describe(found)}), where {FILE} has {gpu.model} for {gpu.name} ({gpu.architecture})"
    yield Finding("fail" if wrong else "note", text, remedy)


def _describe(gpu: dict[str, Any]) -> str:
    return f"{gpu['architecture']}, {gpu['memory_gb']:.0f} GB"
