"""Which figures and tables a run has, from its config: what Snakemake's rules make is what the report includes.

Captions are `workflow/report/<kind>.rst`, one a kind, for Snakemake's HTML report and the PDF alike; their first sentence is
the question that the figure or table answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from analysis.cli import BadInput
from analysis.environment import ROOT

CAPTIONS = ROOT / "workflow" / "report"
BENCH_FIGURES = {"speedup": "d", "scaling": "n"}  # kind: the field on its x axis unless the config says otherwise
RAG_FIGURES: dict[str, tuple[str, ...]] = {
    "latency": ("slo_ms",),
    "ttft": (),
    "throughput": ("slo_ms",),
    "capacity": ("against",),
    "policy": (),
    "stages": ("against",),
    "loads": ("against",),
    "overload": (),
    "quality": (),
}  # kind: the keys of the experiment that it takes as options
RAG_DEFAULT = ("latency", "throughput")
_NEEDED = {"capacity": "search", "overload": "times", "ttft": "stream"}  # kind: the key of the load without which it has no records
_TITLES = {"ttft": "Time to first token", "capacity": "Highest rates", "loads": "Latency and goodput by load", "stages": "Time by stage"}


@dataclass(frozen=True)
class Item:
    """A figure or table: `python -m analysis.<what>s.<kind> <records> --out <stem> <options>` makes it.

    what:    "figure" or "table"
    kind:    the module's name
    stem:    the file's name in figures/ or tables/, without ending
    stage:   the stage whose records it shows
    title:   its heading in reports
    records: its record files, as paths in the run's folder
    options: further arguments
    """

    what: str
    kind: str
    stem: str
    stage: str
    title: str
    records: tuple[str, ...]
    options: tuple[str, ...] = field(default=())


def caption(kind: str) -> str:
    """The caption of a kind of figure or table, in reStructuredText."""
    return (CAPTIONS / f"{kind}.rst").read_text(encoding="utf-8").strip()


def figures(config: Mapping[str, Any], devices: Sequence[str]) -> list[Item]:
    """The figures of a run on planned `devices`. Raises BadInput for a figure that there is not."""
    items = []
    for name in _section(config, "sweep"):
        for device in devices:
            records = (f"sweep/{name}.{device}.parquet",)
            items.append(Item("figure", "blocks", f"sweep_{name}.{device}", "sweep", f"Block sizes of {name} on {device}", records))
    for name, its in _section(config, "bench").items():
        kind = its.get("figure")
        if kind is None:
            continue
        if kind not in BENCH_FIGURES:
            raise BadInput(f"bench.{name}.figure: {kind!r} is not one of {', '.join(BENCH_FIGURES)}")
        options = ("--against", str(its.get("against", BENCH_FIGURES[kind])))
        for device in devices:
            records, title = (f"bench/{name}.{device}.parquet",), f"{kind.capitalize()} of {name} on {device}"
            items.append(Item("figure", kind, f"bench_{name}.{device}", "bench", title, records, options))
    for name, its in _section(config, "rag").items():
        for kind in its.get("figures", RAG_DEFAULT):
            _check_drawn(its, kind, f"rag.{name}")
            title = f"{_TITLES.get(kind, kind.capitalize())} of {name}"
            chosen = _options(its, *RAG_FIGURES[kind])
            items.append(Item("figure", kind, f"rag_{name}_{kind}", "rag", title, (f"rag/{name}.parquet",), chosen))
    if timed := _timed(config, devices):
        items.append(Item("figure", "timeline", "timeline", "time", "Timeline of the measuring jobs", timed))
    return items


def tables(config: Mapping[str, Any], devices: Sequence[str], validated_on: Callable[[str, str], Sequence[str]]) -> list[Item]:
    """The tables of a run on planned `devices`; `validated_on(operator, device)` names the backends that are validated there."""
    architectures = config.get("architectures", [])
    compiled = tuple(f"compile/{operator}.{architecture}.parquet" for operator in operators(config) for architecture in architectures)
    places = [(operator, device) for operator in operators(config) for device in devices]
    validated = tuple(
        f"validate/{operator}.{backend}.{device}.parquet" for operator, device in places for backend in validated_on(operator, device)
    )
    items = []
    if compiled:
        items.append(Item("table", "compile", "compile", "compile", "Compiled variants", compiled))
        items.append(Item("table", "compile", "compile_variants", "compile", "Every compiled variant", compiled, ("--full",)))
    if validated:
        items.append(Item("table", "validate", "validate", "validate", "Checks against the oracle", validated))
    for stage, title in (("sweep", "Fastest blocks of {} on {}"), ("bench", "Times of {} on {}")):
        for name in _section(config, stage):
            for device in devices:
                records = (f"{stage}/{name}.{device}.parquet",)
                items.append(Item("table", stage, f"{stage}_{name}.{device}", stage, title.format(name, device), records))
    for name, its in _section(config, "rag").items():
        measured = (f"rag/{name}.parquet",)
        items.append(Item("table", "rag", f"rag_{name}", "rag", f"Arms of {name}", measured, _options(its, "slo_ms")))
        if _has(its, "search"):
            items.append(Item("table", "capacity", f"rag_{name}_capacity", "rag", f"Highest rates of {name}", measured))
    if timed := _timed(config, devices):
        items.append(Item("table", "spent", "spent", "time", "Time of the measuring jobs", timed))
        items.append(Item("table", "spent", "spent_points", "time", "What the measuring jobs' time was spent on", timed, ("--points",)))
    every = tuple(dict.fromkeys(record for item in items for record in item.records))
    if every:
        items.append(Item("table", "environment", "environment", "environment", "Machines and versions", every))
    return items


def operators(config: Mapping[str, Any]) -> list[str]:
    """The operators that a config names, each once; an experiment without one is named after its operator."""
    checked = (config.get("validate") or {}).get("operators", [])
    named = [its.get("operator", name) for stage in ("sweep", "bench") for name, its in _section(config, stage).items()]
    return list(dict.fromkeys([*checked, *named]))


def _section(config: Mapping[str, Any], stage: str) -> Mapping[str, Any]:
    return config.get(stage) or {}


def _timed(config: Mapping[str, Any], devices: Sequence[str]) -> tuple[str, ...]:
    """The record files whose jobs account for their time."""
    return tuple(
        f"{stage}/{name}.{device}.parquet" for stage in ("sweep", "bench") for name in _section(config, stage) for device in devices
    )


def _check_drawn(its: Mapping[str, Any], kind: str, where: str) -> None:
    """Raise BadInput for a figure that there is not, or that a RAG experiment will have no records for."""
    if kind not in RAG_FIGURES:
        raise BadInput(f"{where}.figures: {kind!r} is not one of {', '.join(RAG_FIGURES)}")
    if kind in _NEEDED and not _has(its, _NEEDED[kind]):
        raise BadInput(f"{where}.figures: {kind} needs the key {_NEEDED[kind]} in load, or in one of loads")
    against = its.get("against")
    places = [its.get("vary", {}), *its.get("arms", {}).values()]
    if against is not None and not any(against in place for place in places) and not _has(its, against):
        raise BadInput(f"{where}.against: no arm, vary or load has the key {against}")


def _has(its: Mapping[str, Any], key: str) -> bool:
    """Whether a RAG experiment has a key in any of its loads."""
    return any(load.get(key) for load in [its.get("load", {}), *its.get("loads", {}).values()])


def _options(its: Mapping[str, Any], *keys: str) -> tuple[str, ...]:
    """The options of a figure or table that follow from the keys of an experiment which it has."""
    given = [(f"--{key.replace('_', '-')}", str(its[key])) for key in keys if its.get(key) is not None]
    return tuple(word for option in given for word in option)
