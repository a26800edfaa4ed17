"""Jobs in flight, a small file each: what a driver that comes after a dead one needs to go on with them.

An entry is written before its job is submitted, completed with the job's id afterwards, and removed when Snakemake has
recorded how the job ended. So a driver may die at any moment: the next one finds the job, or the trace of a submission.
A group of Snakemake jobs, which is one submission, has an entry for each of them: the next driver may group them otherwise.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shlex
import socket
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakemake_executor_plugin_submitit import driver
from snakemake_executor_plugin_submitit.process import Process, machine_id

_DEFINING = {"--snakefile", "--config", "--configfile", "--configfiles", "--directory"}
"""Options of the command line that say what a job does; the others say how, or differ from one driver to the next."""


@dataclass(frozen=True)
class Member:
    """A Snakemake job as the ledger knows it: by what it makes, and by what determines that."""

    key: str
    definition: str


@dataclass(frozen=True)
class Entry:
    """A member's submission. `id` is None while it is under way; its `token` finds what came of it.

    It is number `index` of the `count` that one call submitted. `process` and `gpus`: of a local job.
    """

    key: str
    definition: str
    driver: str
    where: str
    token: str
    index: int
    count: int
    machine: str
    host: str
    folder: str = ""
    id: str | None = None
    process: Process | None = None
    gpus: tuple[str, ...] = ()


class Ledger:
    """`folder` is the one of all drivers, `name` this driver's."""

    def __init__(self, folder: Path, name: str):
        self.folder, self.driver = folder / "jobs", name

    def file(self, key: str) -> Path:
        return self.folder / f"{key}.json"

    def keys(self) -> set[str]:
        """Of all entries."""
        return {file.stem for file in self.folder.glob("*.json")}

    def find(self, key: str) -> Entry | None:
        try:
            content = json.loads(self.file(key).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        process = Process(**content["process"]) if content["process"] else None
        return Entry(**content | {"process": process, "gpus": tuple(content["gpus"])})

    def of(self, members: Iterable[Member]) -> list[Entry]:
        """The entries of some members that have one."""
        return [entry for member in members if (entry := self.find(member.key))]

    def open(self, members: Iterable[Member], where: str, token: str, index: int = 0, count: int = 1) -> list[Entry]:
        """Entries for a submission that is about to be tried, number `index` of `count` with the same `token`."""
        here = machine_id(), socket.gethostname()
        return self._write(Entry(each.key, each.definition, self.driver, where, token, index, count, *here) for each in members)

    def fill(self, entries: Iterable[Entry], id: str, folder: Path, process: Process | None = None, gpus: tuple[str, ...] = ()) -> None:
        """The submission was accepted as job `id`, whose files are in `folder`."""
        self._write(dataclasses.replace(entry, id=id, folder=str(folder), process=process, gpus=gpus) for entry in entries)

    def adopt(self, entries: Iterable[Entry]) -> None:
        """From now on this driver answers for the job."""
        self._write(dataclasses.replace(entry, driver=self.driver) for entry in entries)

    def close(self, keys: Iterable[str]) -> None:
        """Remove this driver's entries; another's tell of a job that may run."""
        for entry in map(self.find, keys):
            if entry and entry.driver == self.driver:
                self.drop(entry)

    def drop(self, entry: Entry) -> None:
        self.file(entry.key).unlink(missing_ok=True)

    def completed(self, entries: Iterable[Entry]) -> list[Entry]:
        """The entries, with ids that a driver did not live to write where it wrote another's of the same submission."""
        given = list(entries)
        if all(entry.id for entry in given):
            return given
        written = {other.token: other for key in self.keys() if (other := self.find(key)) and other.id}
        return [entry if entry.id or entry.token not in written else _like(entry, written[entry.token]) for entry in given]

    def _write(self, entries: Iterable[Entry]) -> list[Entry]:
        written = list(entries)
        for entry in written:
            driver.write(self.file(entry.key), dataclasses.asdict(entry))
        return written


def _like(entry: Entry, other: Entry) -> Entry:
    """Of one array."""
    assert other.id is not None
    number = other.id.partition("_")[0]
    return dataclasses.replace(entry, id=f"{number}_{entry.index}" if entry.count > 1 else number, folder=other.folder)


def token() -> str:
    """A word that no other submission has."""
    return uuid.uuid4().hex


def members(job: Any, line: str) -> tuple[Member, ...]:
    """A Snakemake job, or those of a group, by what they make and by what determines it.

    That is the options of the command line that define them, their commands, code and parameters, and the times of a single
    job's inputs (a group makes some of its own). A job of a dead driver is only gone on with where this is the same.
    """
    options, defining = [], False
    for word in shlex.split(line):
        if word.startswith("--"):
            defining = word in _DEFINING
        if defining:
            options.append(word)
    inputs = [] if job.is_group() else [[file, _time(file)] for file in sorted(map(str, job.input))]
    return tuple(Member(key(each), _digest([options, each.shellcmd, _code(each), str(each.params), inputs])) for each in _jobs(job))


def keys(job: Any) -> list[str]:
    """Of a Snakemake job, or of those of a group."""
    return [key(each) for each in _jobs(job)]


def _jobs(job: Any) -> list[Any]:
    return sorted(job.jobs, key=str) if job.is_group() else [job]


def key(job: Any) -> str:
    """Names a Snakemake job by the folder it works in and by what it makes there, else by rule and wildcards."""
    made: list[Any] = sorted(map(str, job.output)) or [job.rule.name, sorted(job.wildcards_dict.items())]
    return _digest([os.path.realpath(os.curdir), made])


def _code(job: Any) -> list[str]:
    """A rule's Python, and its script, notebook or wrapper with its text where that is a file of this machine."""
    found = [str(getattr(job.rule, "run_func_src", None))]
    for kind in ("script", "notebook", "wrapper"):
        path = getattr(job.rule, kind, None)
        if path:
            found.append(str(path))
            with contextlib.suppress(OSError, AttributeError, TypeError, UnicodeDecodeError):
                found.append(Path(job.rule.basedir.join(path).get_path_or_uri(secret_free=True)).read_text())
    return found


def _time(file: str) -> int | None:
    try:
        return os.stat(file).st_mtime_ns
    except OSError:
        return None


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]
