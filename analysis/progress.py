"""How far a run's experiments are, from their journals: one line, while the jobs run wherever they run.

    python -m analysis.progress results/smoke
    python -m analysis.progress results/smoke --follow

`snakemake` prints the same line while its jobs run. Only what was appended to a journal since the last look is read.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.cli import BadInput, run
from analysis.config import attempt, load

if TYPE_CHECKING:
    from kernels.plan import Experiment

EVERY_S = 60.0
RECENT_S = 600.0
"""The last so many seconds say how fast points are measured."""
Asked = tuple[str, str, str]
"""Stage, experiment, planned device (none of a RAG experiment)."""
_KERNELS = ("backend", "problem", "block", "role")
_SERVICES = ("arm", "load_settings", "rate", "repeat")


@dataclass
class Target:
    """An experiment on a planned device: `wanted` points, and those that are recorded of its `attempt`, by what they measure.

    `key` names the fields of a record that say what it measures, the first of them whose code is one. A search goes on until it has
    found its rate: its points are not among those wanted, and `searches` says that there are any.
    """

    journal: Path
    records: Path
    wanted: int
    attempt: int = 1
    key: tuple[str, ...] = _KERNELS
    searches: bool = False
    points: dict[str, dict[str, Any]] = field(default_factory=dict)
    _read: dict[Path, int] = field(default_factory=dict)
    _begun: dict[Path, str] = field(default_factory=dict)

    def look(self) -> None:
        """Read what was appended since the last look; a line that is not whole yet waits for the next."""
        for path in sorted(self.journal.glob("*.jsonl")):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                whole = file.read().rpartition(b"\n")[0]
            self._read[path] = self._read.get(path, 0) + len(whole) + bool(whole)
            for line in whole.splitlines():
                try:
                    self._take(json.loads(line), path)
                except (ValueError, KeyError, TypeError):
                    continue  # torn by a kill: its point is measured again

    def _take(self, record: Mapping[str, Any], path: Path) -> None:
        key = json.dumps([record[name] for name in self.key], sort_keys=True)
        its = {name: record[name] for name in ("point", self.key[0], "started", "attempt")}
        its["failed"] = record["status"] == "failed" if "status" in record else not record["valid"]
        its["searched"] = "search" in record.get("load_settings", ())
        begun, before = self._begun.setdefault(path, its["started"]), self.points.get(key)
        if its["attempt"] < self.attempt or (before and before["attempt"] > its["attempt"]):
            return
        if before and before["point"] != its["point"]:  # the code changed: all that the backend or arm had measured is wanted again
            of = self.key[0]
            stale = [one for one, old in self.points.items() if old[of] == its[of] and old["started"] < begun]
            for one in stale:
                del self.points[one]
        self.points[key] = its

    @property
    def over(self) -> bool:
        """Whether its record file was made of all that its journal has, this attempt's points among them."""
        journal = list(self.journal.glob("*.jsonl"))
        if not self.records.is_file() or (journal and not self.points):
            return False
        made = self.records.stat().st_mtime
        return all(path.stat().st_mtime <= made for path in journal)

    @property
    def left(self) -> int:
        return 0 if self.over else max(0, self.wanted - sum(not its["searched"] for its in self.points.values()))


def targets(folder: Path, asked: Collection[Asked] | None = None) -> list[Target]:
    """Of the run in `folder`, by its config: all, or those that are asked for. Raises BadInput where there is no run."""
    from cluster import site
    from kernels import plan
    from kernels.planning.feasible import feasible

    if not (folder / "config.yaml").is_file():
        raise BadInput(f"{folder}: no config.yaml; name the folder of a run that has begun, such as results/smoke")
    config = load(folder / "config.yaml")
    found = []
    for experiment in plan.experiments(config):
        wished = attempt(folder, experiment.stage, experiment.name)
        for device in config["devices"]:
            if asked is None or (experiment.stage, experiment.name, device) in asked:
                name, stage = f"{experiment.name}.{device}", folder / experiment.stage
                gpu = site.known(device)
                problems = feasible(experiment, device, gpu.memory_gb if gpu else None).problems
                wanted = expected(replace(experiment, problems=problems), plan.kind(device))
                found.append(Target(stage / "journal" / name, stage / f"{name}.parquet", wanted, wished))
    names = [name for name in config.get("rag") or {} if asked is None or ("rag", name, "") in asked]
    return found + [served(folder, name, config["rag"][name]) for name in names]


def served(folder: Path, name: str, block: Mapping[str, Any]) -> Target:
    """A RAG experiment of the run in `folder`."""
    from rag.config import checked

    settings, stage = checked(block, f"{folder / 'config.yaml'}: rag.{name}"), folder / "rag"
    rates = [len(load.get("rates", ())) for load in settings["loads"].values()]
    wanted = len(settings["arms"]) * settings["repeats"] * sum(rates)
    wished = attempt(folder, "rag", name)
    return Target(stage / "journal" / name, stage / f"{name}.parquet", wanted, wished, _SERVICES, 0 in rates)


def expected(experiment: Experiment, kind: str) -> int:
    """How many records an experiment makes on a kind of device: in a sweep one a block, in a bench one a contender, and the A/A twins."""
    from kernels import plan

    if experiment.stage == "sweep":
        spaces = [experiment.space_of(name) for name in plan.backends_on(experiment, kind)]
        sweeps = [space.blocks(problem) for problem in experiment.problems for space in spaces]
        return sum(len(blocks) + any(reason is None for _, reason in blocks) for blocks in sweeps)
    spaces = [experiment.space_of(name) for name in plan.contenders(experiment, kind)]
    places = 2 if kind == "cuda" and plan.host_alone(experiment) else 1
    return sum(places + sum(space.rule(problem, dict(space.default)) is None for space in spaces) for problem in experiment.problems)


def state(every: Sequence[Target]) -> str:
    """Points done and failed, and experiments done and begun."""
    points = [its for each in every for its in each.points.values()]
    total, failed = len(points) + sum(each.left for each in every), sum(its["failed"] for its in points)
    over, begun = sum(each.over for each in every), sum(bool(each.points) and not each.over for each in every)
    share = 100 * len(points) // max(1, total)
    unknown = sum(each.searches and not each.over for each in every)
    more = f"; {unknown} with searches, whose points are not known beforehand" if unknown else ""
    return f"{len(points)} of {total} points ({share} %), {failed} failed; {over} of {len(every)} experiments done, {begun} begun{more}"


def outlook(every: Sequence[Target], now: float) -> str:
    """How long the rest takes at the rate of the last minutes; empty where there is none, or no rest."""
    moments = [datetime.datetime.fromisoformat(its["started"]).timestamp() for each in every for its in each.points.values()]
    recent, left = [now - moment for moment in moments if now - moment <= RECENT_S], sum(each.left for each in every)
    if not left or not recent:
        return ""
    return f"; about {_duration(left * max(recent) / len(recent))} left at the rate of the last {_duration(max(recent))}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def follow(every: Sequence[Target]) -> Iterator[str]:
    """The state, with the outlook: at once, and whenever it has changed a minute later. It never ends."""
    said = ""
    while True:
        for each in every:
            each.look()
        if (now := state(every)) != said:
            said = now
            yield now + outlook(every, time.time())
        time.sleep(EVERY_S)  # journals are written on other machines, of whose writing a shared file system says nothing


def follow_beside(folder: Path, asked: Collection[Asked]) -> threading.Thread:
    """Say each change of what is asked for of a run, in a thread that ends with the process: for Snakemake's own, wherever its jobs are."""

    def say(text: str) -> None:
        print(f"progress: {text}", file=sys.stderr, flush=True)

    def work() -> None:
        try:
            lines = follow(targets(folder, asked))
            next(lines)  # how it was before
            for text in lines:
                say(text)
        except (OSError, BadInput) as error:
            say(f"not followed any more ({error}); python -m analysis.progress {folder} says it")

    thread = threading.Thread(target=work, name="progress", daemon=True)
    thread.start()
    return thread


def main() -> int:
    parser = argparse.ArgumentParser(description="Say how far a run's experiments are.")
    parser.add_argument("run", type=Path, help="the run's folder, such as results/smoke")
    parser.add_argument("--follow", action="store_true", help=f"again every {EVERY_S:g} s in which it changed, until all is done")
    options = parser.parse_args()
    every = targets(options.run)
    for text in follow(every):
        print(text, flush=True)
        if not options.follow or all(each.over for each in every):
            break
    return 0


if __name__ == "__main__":
    run(main)
