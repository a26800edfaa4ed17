"""A measuring job: what a sweep or bench process shares over its points, and the records it leaves."""

from __future__ import annotations

import argparse
import atexit
import datetime
import functools
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from analysis.cli import BadInput
from analysis.config import check, load
from analysis.environment import environment, gpu_state
from analysis.records import Journal, Record, gather, read_journal, read_parquet, write_parquet
from kernels import roofline, timing
from kernels.contract import Backend, Block, Problem
from kernels.device import Device, find
from kernels.phases import Phases
from kernels.plan import Experiment
from kernels.planning import shards
from kernels.points import Points

LISTS = ("samples_ms", "aa_samples_ms")
JSON_COLUMNS = ("problem", "block", "versions", "provenance", "ceilings")
KEY = ("point", "role", "attempt")
_OTHERS = "stage backend problem block device device_kind status reason samples_ms first_call_ms started versions provenance"
NEEDS = (*KEY, *_OTHERS.split())
"""The fields without which a journal's record is of no use here."""
ACCOUNTS = "jobs"
"""The folder in a journal that holds what each process says of its own time."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options that sweep and bench share."""
    parser.add_argument("--config", required=True, help="the run's config (YAML)")
    parser.add_argument("--experiment", required=True, help="the experiment's name in the config")
    parser.add_argument("--device", default="auto", help="planned device: cpu, auto, or a GPU model (default: auto)")
    parser.add_argument("--journal", required=True, type=Path, help="folder for the journal; what it holds is not measured again")
    parser.add_argument("--out", required=True, type=Path, help="record file to write (Parquet)")
    parser.add_argument("--plan", type=Path, help="the run's plan, which says what problems each shard has")
    parser.add_argument("--shard", help="measure this shard of the plan alone, by its number")
    parser.add_argument("--attempt", type=int, default=1, help="measure anew what has no record of this attempt (default: 1)")
    parser.add_argument(
        "--previous", type=Path, nargs="*", default=[], help="record files of another run: unchanged points are copied from them"
    )
    parser.add_argument("--cache", type=Path, nargs="*", default=[], help="caches that the compile stage made")


class Place:
    """A device with its clock and its ceilings, which are measured when first asked for."""

    def __init__(self, device: Device) -> None:
        self.device = device

    @functools.cached_property
    def clock(self) -> timing.CpuClock | timing.CudaClock:
        return timing.clock(self.device)

    @functools.cached_property
    def ceilings(self) -> dict[str, Any]:
        return roofline.ceilings(self.device, self.clock)

    def prepare(self) -> None:
        """Measure the ceilings now: the device may not survive the first configuration."""
        _ = self.ceilings


class Job:
    """One process that measures the points of an experiment on the device it found."""

    def __init__(self, options: argparse.Namespace, experiment: Experiment, seed: int) -> None:
        self.phases = Phases()
        self.phases.enter("planning")
        self.experiment, self.seed, self.attempt = experiment, seed, options.attempt
        self.device: Device = find(options.device)
        self.kind = {"cpu": "cpu", "gpu": "cuda"}[self.device.kind]  # as backends and peers name it
        self.place = Place(self.device)
        self.host = self.place if self.device.kind == "cpu" else Place(find("cpu"))
        self.folder, self.out = options.journal, options.out
        self.journal, self.accounts = Journal(self.folder), Journal(self.folder / ACCOUNTS)
        self.provenance = environment()
        self.watch: Any = None  # counts what the compile stage's caches had, on a GPU
        self.gpu_before = self.gpu()  # the state before what is measured next; the measuring loop renews it
        self.wanted: set[str] = set()
        self.calls_s, self.loading_s = 0.0, 0.0  # of what this process measured: all calls of kernels, and what first ones took longer
        self.points = Points(experiment, seed)
        self.known: dict[tuple[str, ...], Record] = {}
        self.latest: dict[tuple[str, str], int] = {}  # the last attempt that is recorded, by point and role
        for record in read_journal(self.folder, NEEDS):
            self._know(record)
        self.previous = {(row["point"], row["role"]): row for path in options.previous for row in rows_of(path)}

    @classmethod
    def prepared(cls, options: argparse.Namespace, experiment: Experiment, seed: int) -> Job:
        """A job whose process uses the compile stage's caches, and counts what it finds in them."""
        from kernels.cross import Watch, adopt

        job = cls(options, experiment, seed)
        if job.device.kind == "gpu":
            job.phases.enter("caches")
            local = Path(tempfile.mkdtemp(prefix="blockwise-cache-"))
            atexit.register(shutil.rmtree, local, ignore_errors=True)
            for shipped in options.cache or [local]:
                adopt(shipped, local)
            job.watch = Watch(local)
            job.phases.enter("planning")
        return job

    def gpu(self) -> dict[str, Any] | None:
        return gpu_state() if self.device.kind == "gpu" else None

    def point(self, backend: Backend, problem: Problem, block: Block, place: Place | None = None, **more: Any) -> str:
        """The id of a point: of all that determines its result. `place` is where, if not the job's device."""
        return self.points.id(backend, problem, block, (place or self.place).device, **more)

    def has(self, point: str, role: str) -> bool:
        """Whether a point is recorded for this attempt or a later one; a point of a previous run is copied on the way."""
        self.wanted.add(point)
        if self.latest.get((point, role), 0) >= self.attempt:
            return True
        if self.attempt == 1 and (point, role) in self.previous:
            copied = dict(self.previous[point, role])
            copied["provenance"] = {**copied["provenance"], "copied": True}
            self.append({**copied, "attempt": 1})
            return True
        return False

    def record(
        self, point: str, role: str, backend: Backend, problem: Problem, block: Block, place: Place | None = None, **values: Any
    ) -> None:
        """Append one record to the journal, complete with device, its state before and after, versions and provenance."""
        with self.phases.within("recording"):
            self._record(point, role, backend, problem, block, place or self.place, values)
        first_ms, samples = values.get("first_call_ms") or 0.0, values.get("samples_ms", ())
        self.loading_s += max(0.0, first_ms - min(samples, default=0.0)) / 1e3  # a first call also runs the kernel once
        self.calls_s += values.get("spent_s") or (first_ms + sum(samples)) / 1e3

    def _record(
        self, point: str, role: str, backend: Backend, problem: Problem, block: Block, place: Place, values: Mapping[str, Any]
    ) -> None:
        operator = self.experiment.operator
        cost = operator.cost(problem)
        limit_ms, limit_by = roofline.limit(cost, place.ceilings)
        self.append(
            {
                "point": point,
                "role": role,
                "attempt": self.attempt,
                "stage": self.experiment.stage,
                "experiment": self.experiment.name,
                "operator": operator.name,
                "backend": backend.name,
                "problem": problem.fields(),
                "block": block,
                "device": place.device.name,
                "device_kind": place.device.kind,
                "limit_ms": limit_ms,
                "limit_by": limit_by,
                "bytes": cost.bytes,
                "operations": cost.operations,
                "ceilings": place.ceilings,
                "seed": self.seed,
                "protocol": timing.PROTOCOL,
                "includes": timing.INCLUDES[place.device.kind],
                "versions": self.points.same_for_all(backend)["versions"],
                "provenance": {**self.provenance, "gpu_before": self.gpu_before, "gpu": self.gpu()},
                "compile_hits": self.watch.hits if self.watch else 0,
                "compile_misses": len(self.watch.missed) if self.watch else 0,
                "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "status": "measured",
                "reason": None,
                "samples_ms": [],
                "first_call_ms": None,
                **values,
            }
        )

    def fail(self, point: str, role: str, backend: Backend, problem: Problem, block: Block, place: Place, error: Exception) -> None:
        """Record that a configuration failed; end the job where that broke the device, on which all others would fail as well."""
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        self.record(point, role, backend, problem, block, place, status="failed", reason=reason)
        if not timing.answers(place.device):
            raise SystemExit(
                f"{place.device.name}: broken by {backend.name} {block} on {problem}: {reason}; run the same command again for the rest"
            )

    def append(self, record: Record) -> None:
        self.journal.append(record)
        self._know(record)

    def _know(self, record: Record) -> None:
        point, role, attempt = (record[name] for name in KEY)
        self.known[point, role, attempt] = record
        self.latest[point, role] = max(attempt, self.latest.get((point, role), 0))

    def account(self) -> None:
        """Write down where this process's wall time went so far; the last account of a process counts."""
        self.accounts.append(
            {
                "job": f"{self.provenance['host']}-{os.getpid()}-{self.phases.begun:.3f}",
                "attempt": self.attempt,
                "stage": self.experiment.stage,
                "experiment": self.experiment.name,
                "device": self.device.name,
                "device_kind": self.device.kind,
                "provenance": {**self.provenance, "gpu": self.gpu()},
                "loading_s": round(self.loading_s, 4),
                "kernels_s": round(self.calls_s - self.loading_s, 4),
                "compile_hits": self.watch.hits if self.watch else 0,
                "compile_missed": self.watch.missed if self.watch else [],
                **self.phases.record(),
            }
        )

    def finish(self) -> None:
        """Gather the records of the wanted points, of every attempt, into the Parquet file; the jobs' accounts go into its notes."""
        if self.accounts.used:
            self.account()
        self.journal.close()
        self.accounts.close()
        mine = [record for record in read_journal(self.folder, NEEDS) if record["point"] in self.wanted]
        kept, duplicates = gather(reversed(mine), KEY)  # a bench that was killed measures its problem as a whole again
        jobs = {account["job"]: account for account in read_journal(self.folder / ACCOUNTS, ("job",))}
        notes = {"duplicates": duplicates, "experiment": self.experiment.name, "jobs": list(jobs.values())}
        write_parquet(self.out, with_noise(reversed(kept)), notes)


def with_noise(rows: Iterable[Record]) -> list[Record]:
    """Fold each A/A record into the row of the same point: its samples beside, and the relative difference of the medians.

    `noise` then stands on every row of the same problem and attempt, and of the same backend (sweep) or device (bench), as the
    floor under which nothing is told apart.
    """
    import numpy as np

    rows = list(rows)
    again = {(row["point"], row["attempt"]): row for row in rows if row["role"] == "aa"}
    noise: dict[str, float] = {}
    kept = [row for row in rows if row["role"] != "aa"]

    def group(row: Record) -> str:
        return json.dumps(
            [row["backend"] if row["stage"] == "sweep" else row["device_kind"], row["problem"], row["attempt"]], sort_keys=True
        )

    for row in kept:
        twin = again.get((row["point"], row["attempt"]))
        row["aa_samples_ms"] = twin["samples_ms"] if twin else []
        if twin and twin["samples_ms"] and row["samples_ms"]:
            first, second = float(np.median(row["samples_ms"])), float(np.median(twin["samples_ms"]))
            noise[group(row)] = abs(first - second) / min(first, second)
    for row in kept:
        row["noise"] = noise.get(group(row))
    return kept


def rows_of(path: Path) -> list[Record]:
    """The records of a Parquet file as they were in the journal."""
    rows = []
    frame = read_parquet(path, ("point", "role", "attempt")).astype(object)
    for row in frame.where(frame.notna(), None).to_dict("records"):
        row.update({name: json.loads(row[name]) for name in JSON_COLUMNS if isinstance(row.get(name), str)})
        row.update({name: list(row[name]) for name in LISTS if row.get(name) is not None})
        row.pop("noise", None)
        twin = row.pop("aa_samples_ms", None)
        rows.append(row)
        if twin:
            rows.append({**row, "role": "aa", "samples_ms": twin})
    return rows


def experiment_of(options: argparse.Namespace, stage: str) -> tuple[Experiment, dict[str, Any]]:
    """The experiment that a command names, of one shard where it names one, and the config."""
    from kernels import plan

    config = load(options.config)
    check(config, options.config)
    experiment = plan.experiment(config, stage, options.experiment)
    if (options.plan is None) != (options.shard is None):
        raise BadInput("--plan and --shard: give both, or neither to measure every problem")
    if options.plan:
        experiment = shards.shard_of(experiment, options.plan, options.device, options.shard)
    return experiment, config
