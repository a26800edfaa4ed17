"""A sweep on a real Slurm while everything around it fails: is every point recorded exactly once?

    python docs/benchmarks/faults.py --faults 100 --seed 1 --out docs/benchmarks/records/faults.json
    python docs/benchmarks/faults.py --print docs/benchmarks/records/faults.json         the table again

Starts the testbed and ends it (root on a Debian machine, see cluster/testbed/README.md; and btrfs-progs), and gives one command,
`snakemake --profile cluster`, again and again until it has nothing left to do. Meanwhile faults hit it at random times: see
`fault_kinds`. What an administrator or systemd does (a drained node resumed, a daemon started again, room made) is done after a
while; nothing else is. A fault that found nothing to hit is not counted. Then `fault_check` compares the records with the config.
What happened is written as it happens.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # before this folder, whose kernels.py is not the package of that name

import fault_check as check
import yaml
from fault_kinds import KINDS, Hit
from fault_site import COMMAND, Site, opened

from analysis.cli import BadInput, replacing, run
from analysis.environment import commit, usable_cores, versions

PACKAGES = ("snakemake", "submitit", "snakemake-executor-plugin-submitit")
TICK_S, PAUSE_S = 0.5, 2.0


class Stuck(BadInput):
    """The campaign does not come to its end."""


@dataclass
class Pending:
    """A fault whose effect is waited for, or that is still to be undone."""

    row: dict[str, Any]
    hit: Hit
    since: float = field(default_factory=time.monotonic)
    undone: bool = False

    def tick(self) -> bool:
        """Look at it, undo it when its time has come; whether it is over."""
        age = time.monotonic() - self.since
        waiting = not self.row["effect"] and age < self.hit.patience_s
        with contextlib.suppress(BadInput):  # slurmctld is away: at the next tick
            if waiting and self.hit.seen():
                self.row["effect"], self.row["seen_after_s"], waiting = True, round(age, 1), False
            if self.hit.undo and not self.undone and (age >= self.hit.hold_s or (self.hit.brief and self.row["effect"])):
                self.hit.undo()
                self.undone, self.row["undone_after_s"] = True, round(age, 1)
        return not waiting and (self.undone or self.hit.undo is None)


class Campaign:
    """The command and the faults, from the first start to the last record; `record` is written to `out` after whatever happens."""

    def __init__(self, site: Site, options: argparse.Namespace, record: dict[str, Any]) -> None:
        self.site, self.options, self.record = site, options, record
        self.rng = random.Random(options.seed)
        self.run = site.work / "results" / check.NAME
        self.begun = self.moved = time.monotonic()
        self.deadline = self.begun + 60 * options.minutes
        self.progress: tuple[int, int] = (0, 0)
        self.pending: list[Pending] = []
        every = options.kinds or [*KINDS]
        kinds = every * (options.faults // len(every)) + self.rng.sample(every, options.faults % len(every))
        self.deck = self.rng.sample(kinds, len(kinds))
        self.next = self.begun + self._gap()
        self.paused = 0.0

    def _gap(self) -> float:
        return min(self.rng.expovariate(1 / self.options.every), 3 * self.options.every)

    def now(self) -> float:
        return round(time.monotonic() - self.begun, 1)

    def write(self) -> None:
        self.record["wall_s"] = self.now()
        with replacing(self.options.out) as temporary:
            temporary.write_text(json.dumps(self.record, indent=1) + "\n")

    def whole(self) -> None:
        """Give the command until it has ended well, and inject the faults meanwhile. Raises Stuck where that takes too long."""
        while not self._driver():
            if self.deck and time.monotonic() >= self.next:
                self._inject()
            self._tick()
        while self.pending:
            self._tick()
        self.write()

    def _tick(self) -> None:
        self.pending = [each for each in self.pending if not each.tick()]
        self._look()
        time.sleep(TICK_S)  # Slurm and the journals are looked at from outside, as a user would

    def _driver(self) -> bool:
        """Start the command where it does not run; whether it has ended well."""
        process, row = self.site.driver, self.record["drivers"][-1] if self.record["drivers"] else None
        if process and row and "code" not in row and process.poll() is not None:
            row |= {"code": process.returncode, "ended_s": self.now()}
            self.write()
            self.paused = time.monotonic() + PAUSE_S
        if process and process.poll() == 0:
            return True
        if (process is None or process.poll() is not None) and time.monotonic() >= self.paused:
            self.site.start()
            self.record["drivers"].append({"started_s": self.now()})
        return False

    def _inject(self) -> None:
        kind, hit = self.deck.pop(), None
        with contextlib.suppress(ProcessLookupError):  # what was to be hit has just ended by itself
            hit = KINDS[kind](self.site, self.rng)
        if hit is None:
            self.record["missed"][kind] = self.record["missed"].get(kind, 0) + 1
            self.deck.insert(self.rng.randrange(len(self.deck) + 1), kind)
            self.next = time.monotonic() + PAUSE_S
            return
        row: dict[str, Any] = {"kind": kind, "at_s": self.now(), "hit": hit.what, "effect": False, "cut": hit.cut}
        self.record["faults"].append(row)
        self.pending.append(Pending(row, hit))
        self.next = time.monotonic() + self._gap()
        print(f"{self.now():7.1f} s  {self.options.faults - len(self.deck)}: {kind}: {hit.what}", file=sys.stderr)
        self.write()

    def _look(self) -> None:
        """Whether it goes on: a record more, or a file more."""
        made = check.recorded(self.run), sum(1 for _ in self.run.rglob("*.*"))
        if made != self.progress:
            self.progress, self.moved = made, time.monotonic()
        if time.monotonic() > min(self.deadline, self.moved + self.options.stuck_s):
            queue = self.site.ask("squeue", "--array") or "squeue does not answer"
            nodes = self.site.ask("sinfo", "--Node", "--format=%N %T %E") or ""
            why = f"{self.options.minutes} minutes are over" if time.monotonic() > self.deadline else "nothing was recorded"
            raise Stuck(f"{why} ({self.options.stuck_s} s without progress allowed); {self.progress[0]} records\n{queue}{nodes}")

    def once_more(self) -> None:
        """The command where all is done: it must find nothing to do."""
        before = self.site.log.stat().st_size
        self.site.start()
        assert self.site.driver
        try:
            code = self.site.driver.wait(120)
        except subprocess.TimeoutExpired:
            raise Stuck("the command does not end although all is done") from None
        said = self.site.log.read_bytes()[before:].decode(errors="replace")
        self.record["nothing_to_be_done"] = code == 0 and "Nothing to be done" in said


def begin(options: argparse.Namespace, config: dict[str, Any]) -> dict[str, Any]:
    code, dirty = commit()
    return {
        "schema": 1,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "command": " ".join(COMMAND),
        "commit": code + ("-dirty" if dirty else ""),
        "machine": f"{usable_cores()} cores",
        "versions": versions(*PACKAGES),
        "seed": options.seed,
        "asked": options.faults,
        "every_s": options.every,
        "samples": options.samples,
        "points": len(check.expected(config)),
        "drivers": [],
        "faults": [],
        "missed": {},
    }


def campaign(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, from the testbed's start to its end."""
    config = check.config(options.points, options.samples, options.seed)
    record = begin(options, config)
    with contextlib.ExitStack() as stack:
        folder = tempfile.mkdtemp(prefix="blockwise-faults-") if options.keep else None
        folder = folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="blockwise-faults-"))
        Path(folder).chmod(0o755)  # munge wants a path that everybody may pass
        site = stack.enter_context(opened(Path(folder), yaml.safe_dump(config, sort_keys=False)))
        print(f"in {folder}; if this is killed: {site.ending()}", file=sys.stderr)
        record["versions"]["slurm"] = (site.ask("sinfo", "--version") or "unknown").split()[-1]
        it = Campaign(site, options, record)
        try:
            it.whole()
            it.once_more()
            record["verdict"] = check.verdict(it.run, config)
        except BadInput as error:
            record["stuck"] = str(error)
            raise
        finally:
            it.write()
    return record


def table(record: dict[str, Any]) -> Iterator[str]:
    """The kinds, and what became of the points."""
    yield f"{'fault':32s} injected  took effect  found nothing to hit"
    for kind in [*KINDS, "all"]:
        its = [fault for fault in record["faults"] if kind in ("all", fault["kind"])]
        missed = sum(count for name, count in record["missed"].items() if kind in ("all", name))
        yield f"{kind:32s} {len(its):8d}  {sum(fault['effect'] for fault in its):11d}  {missed:20d}"
    killed = sum(each.get("code") == -signal.SIGKILL for each in record["drivers"])
    yield f"the command was given {len(record['drivers'])} times: {killed} were killed; wall time {record['wall_s'] / 60:.1f} minutes"
    found = record.get("verdict")
    if found:
        cut = sum(fault["cut"] for fault in record["faults"])
        yield (
            f"{found['points']} points: {len(found['lost'])} lost, {len(found['twice'])} twice, {len(found['wrong'])} wrong;"
            f" {found['twins']} A/A twins, {found['twins_lost']} lost"
        )
        yield (
            f"{found['journal_records']} records in {found['journal_files']} journals, {found['duplicates']} of them duplicates;"
            f" {cut} records were cut off; so {found['duplicates'] + cut} points were recorded once more"
        )
        yield f"the command once more: {'nothing to be done' if record['nothing_to_be_done'] else 'NOT nothing to be done'}"


def failures(record: dict[str, Any]) -> list[str]:
    injected = len(record["faults"])
    lines = check.complaints(record["verdict"]) if "verdict" in record else [record.get("stuck", "the campaign was cut off")]
    if injected < record["asked"]:
        lines.append(f"the sweep was complete after {injected} of {record['asked']} faults; give more --points or --samples")
    if not record.get("nothing_to_be_done", True):
        lines.append("the same command, given once more, still finds something to do")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=100, help="how many to inject (default: 100)")
    parser.add_argument("--kinds", nargs="+", choices=[*KINDS], metavar="KIND", help=f"only these of: {', '.join(KINDS)}")
    parser.add_argument("--seed", type=int, default=1, help="of kinds, times and victims (default: 1)")
    parser.add_argument("--points", type=int, default=840, help="points of the sweep, at the least (default: 840)")
    parser.add_argument("--samples", type=int, default=200, help="samples of a point, by which it takes longer (default: 200)")
    parser.add_argument("--every", type=float, default=12, help="seconds from one fault to the next, on average (default: 12)")
    parser.add_argument("--minutes", type=float, default=120, help="the campaign gives up after so many (default: 120)")
    parser.add_argument("--stuck-s", type=float, default=420, help="seconds without a record after which it gives up (default: 420)")
    parser.add_argument("--out", type=Path, default=Path("faults.json"), help="record file to write (JSON)")
    parser.add_argument("--keep", action="store_true", help="leave the folder with the drivers' and Slurm's logs")
    parser.add_argument("--print", type=Path, help="show the table of a record file, and do nothing else")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    record = json.loads(options.print.read_text()) if options.print else campaign(options)
    print("\n".join(table(record)))
    bad = failures(record)
    for line in bad:
        print(f"error: {line}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    run(main)
