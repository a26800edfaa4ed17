"""Jobs in flight, one small file each: what a driver that comes after a dead one needs to go on with them.

An entry is written before its job is submitted, completed with the job's id afterwards, and removed when Snakemake has
recorded how the job ended. So a driver may die at any moment: the next one finds the job, or the trace of a submission.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shlex
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakemake_executor_plugin_submitit import driver
from snakemake_executor_plugin_submitit.process import Process, machine_id

_DEFINING = {"--snakefile", "--target-jobs", "--config", "--configfile", "--configfiles", "--directory"}
"""Options of the command line that say what a job does; the others say how, or differ from one driver to the next."""


@dataclass(frozen=True)
class Entry:
    """`id` is None while the submission is under way; its `token` finds what came of it. `process` and `gpus`: of a local job."""

    key: str
    definition: str
    driver: str
    where: str
    token: str
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

    def find(self, key: str) -> Entry | None:
        try:
            content = json.loads(self.file(key).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        process = Process(**content["process"]) if content["process"] else None
        return Entry(**content | {"process": process, "gpus": tuple(content["gpus"])})

    def open(self, key: str, definition: str, where: str, token: str) -> Entry:
        """An entry for a submission that is about to be tried, alone or with others of the same `token`."""
        entry = Entry(key, definition, self.driver, where, token, machine_id(), socket.gethostname())
        self._write(entry)
        return entry

    def fill(self, entry: Entry, id: str, folder: Path, process: Process | None = None, gpus: tuple[str, ...] = ()) -> None:
        """The submission was accepted as job `id`, whose files are in `folder` (submitit's pattern)."""
        self._write(dataclasses.replace(entry, id=id, folder=str(folder), process=process, gpus=gpus))

    def adopt(self, entry: Entry) -> None:
        """From now on this driver answers for the job."""
        self._write(dataclasses.replace(entry, driver=self.driver))

    def close(self, key: str) -> None:
        self.file(key).unlink(missing_ok=True)

    def _write(self, entry: Entry) -> None:
        driver.write(self.file(entry.key), dataclasses.asdict(entry))


def token() -> str:
    """A word that no other submission has."""
    return uuid.uuid4().hex


def key(job: Any) -> str:
    """Names a Snakemake job (or group of jobs) by what it makes, whatever the driver: by its outputs, else by rule and wildcards."""
    made: list[Any] = sorted(map(str, job.output)) or [[each.rule.name, sorted(each.wildcards_dict.items())] for each in members(job)]
    return _digest(made)


def definition(job: Any, line: str) -> str:
    """What determines the job's result: the options that define it, its commands and parameters, and the times of its inputs.

    A job of a dead driver is only taken over where this is the same.
    """
    words, kept, defining = shlex.split(line), [], False
    for word in words:
        if word.startswith("--"):
            defining = word in _DEFINING
        if defining:
            kept.append(word)
    commands = [[each.shellcmd, str(getattr(each, "params", ""))] for each in members(job)]
    inputs = [[str(file), Path(file).stat().st_mtime_ns] for file in sorted(map(str, job.input)) if Path(file).exists()]
    return _digest([kept, commands, inputs])


def members(job: Any) -> list[Any]:
    return sorted(job.jobs, key=str) if job.is_group() else [job]


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]
