"""Where the wall time of a run's measuring jobs went: the accounts that their processes left in the notes of sweep and bench records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.cli import BadInput
from analysis.records import read_notes

QUEUED = "queued"
CAUSES = ("start-up", "loading", "ceilings", "inputs", "kernels", "checking", "recording", "other")
"""What a job that has its node can be at.

Loading: the compile caches, and first calls of kernels; checking: a bench's results against the oracle; other: between kernels.
"""
NONE = "Its records hold no accounts of time: they were made before jobs wrote them."
_CAUSE_OF = {"planning": "start-up", "caches": "loading"}


@dataclass(frozen=True)
class Stretch:
    """From `start` to `end`, in Unix time, a job was at each of `shares` for that share of the time; they sum to 1."""

    start: float
    end: float
    shares: Mapping[str, float]


@dataclass(frozen=True)
class Account:
    """One process: it waited from `queued`, had its node (and its GPU) from `held` until `ended`, in Unix time.

    `queued` is None where no executor said when the job was submitted. `missed` explains each kernel that was compiled anew.
    """

    job: str
    name: str
    device: str
    kind: str
    host: str
    commit: str
    queued: float | None
    held: float
    ended: float
    stretches: tuple[Stretch, ...]
    hits: int
    missed: tuple[str, ...]

    @property
    def since(self) -> float:
        """When the user began to wait for it."""
        return self.held if self.queued is None else self.queued

    @property
    def held_s(self) -> float:
        return self.ended - self.held

    @property
    def queued_s(self) -> float:
        return self.held - self.since

    def seconds(self) -> dict[str, float]:
        """How much of `held_s` each of CAUSES took."""
        spent = dict.fromkeys(CAUSES, 0.0)
        for stretch in self.stretches:
            for cause, share in stretch.shares.items():
                spent[cause] += share * (stretch.end - stretch.start)
        return spent


def accounts(paths: Iterable[Path | str]) -> list[Account]:
    """The accounts in the notes of some record files, each process once, by when they began; empty where there are none.

    Raises BadInput for a file that is missing.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in paths:
        if not Path(path).is_file():
            raise BadInput(f"{path}: no such record file; run its stage first")
        found |= {each["job"]: each for each in read_notes(path).get("jobs", ()) if "kernels_s" in each}
    return list(_read(sorted(found.values(), key=lambda each: each["started"])))


def _read(every: Sequence[Mapping[str, Any]]) -> Iterator[Account]:
    """A process that goes on in a job that was requeued, or that follows another in one job, has waited since the other's end."""
    over: dict[tuple[Any, ...], float] = defaultdict(float)
    for its in every:
        about, begun, name = its["provenance"], its["started"], f"{its['stage']} {its['experiment']}"
        submitted, started = about.get("job_submitted"), about.get("job_started", begun)
        before = over[submitted or begun, name]
        held = min(max(started, before), begun)
        commit = str(about.get("commit")) + ("-dirty" if about.get("dirty") else "")
        yield Account(
            its["job"],
            name,
            its["device"],
            its["device_kind"],
            about["host"],
            commit,
            None if submitted is None else min(max(submitted, before), held),
            held,
            its["ended"],
            tuple(_stretches(its, held)),
            its["compile_hits"],
            tuple(its["compile_missed"]),
        )
        over[submitted or begun, name] = max(before, its["ended"])


def _stretches(its: Mapping[str, Any], held: float) -> Iterator[Stretch]:
    """What the process says of itself, after the job's own start: Python, Snakemake."""
    begun, measuring = its["started"], _within_measuring(its)
    if held < begun:
        yield Stretch(held, begun, {"start-up": 1.0})
    for phase, start, end in its["segments"]:
        cause = _CAUSE_OF.get(phase, phase if phase in CAUSES else "other")
        yield Stretch(begun + start, begun + end, measuring if phase == "measuring" else {cause: 1.0})


def _within_measuring(its: Mapping[str, Any]) -> dict[str, float]:
    """The shares of what alternates too quickly for a stretch of its own: calls of kernels, records, and what is between them."""
    total = sum(end - start for phase, start, end in its["segments"] if phase == "measuring")
    parts = {"kernels": its["kernels_s"], "loading": its["loading_s"]}
    parts |= {cause: its["seconds"].get(cause, 0.0) for cause in ("checking", "recording")}
    shares = {cause: part / max(total, sum(parts.values()), 1e-9) for cause, part in parts.items()}
    return {**shares, "other": 1 - sum(shares.values())}


def together(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Spans of time, with those that overlap joined to one."""
    joined: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((start, end))
    return joined


def minutes_of(some: Iterable[Account]) -> str:
    """What the minutes of some jobs are called: of GPUs, one a job, of processors, or of either."""
    kinds = {each.kind for each in some}
    return f"{kinds.pop().upper()} minutes" if len(kinds) == 1 else "minutes"


def wall_s(some: Iterable[Account]) -> float:
    """Seconds in which at least one of some jobs waited or ran."""
    return sum(end - start for start, end in together((each.since, each.ended) for each in some))


def spent(some: Iterable[Account]) -> dict[str, float]:
    """Seconds that some jobs had their nodes, by cause."""
    total = dict.fromkeys(CAUSES, 0.0)
    for each in some:
        for cause, seconds in each.seconds().items():
            total[cause] += seconds
    return total
