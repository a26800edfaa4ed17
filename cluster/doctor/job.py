"""A short GPU job that runs `cluster.probe` on a node: sent by sbatch as every job is, waited for, and cancelled if it does not start.

It answers through files in the shared folders, which are thereby tried; its exit status tells where they are not shared.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.doctor.finding import Finding
from cluster.doctor.storage import ROOT
from cluster.probe import HERE, THERE
from cluster.sinfo import ask, fields_of, last

RUN_S = 120  # a probe takes a second, or some more on a slow file system
APPEAR_S = 60  # what a network file system may take to show a node's new file, as latency-wait in the profile
MINUTES = 5
UNSEEN = 81  # the job's exit status where the node does not see the repository
_ALIVE = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED")


@dataclass(frozen=True)
class Answer:
    """Where the job ran, what `cluster.probe` reported there, the folders tried, and which of them are not shared, with why."""

    node: str
    report: dict[str, Any]
    tried: list[str]
    unshared: dict[str, str]


def probe(
    model: str, options: list[str], folders: Mapping[str, Path], see: list[Path], wait_s: float
) -> Generator[Finding, None, Answer | None]:
    """Send the job with sbatch's `options`. Returns None, after a finding, where there is no answer.

    `folders` must be shared: each gets a word to read and to answer. `see` are paths that the node must have.
    """
    with exchange(folders) as (word, places):
        if not places:
            yield Finding("note", "no job was sent: there is no folder to which it could write its answer", "see above")
            return None
        sent = ask("sbatch", "--parsable", *_COMMON, *options, stdin=script(places, see))
        if sent.returncode:
            yield Finding("fail", f"sbatch refused a job for {model} ({last(sent.stderr)})", _REFUSED)
            return None
        job = sent.stdout.split(";")[0].strip()
        try:
            seen = _watch(job, model, wait_s)
        finally:
            ask("scancel", job)  # of no effect on a job that has ended
        node, state = seen.get("NodeList", "(null)"), seen.get("JobState", "gone")
        if state in ("PENDING", "CONFIGURING"):
            reason = seen.get("Reason", "no reason given")
            remedy = "try again when the queue is shorter, with a longer --wait, or leave it out with --no-job"
            yield Finding("note", f"no job for {model} started within {wait_s:g} s ({reason}); cancelled, its node is not checked", remedy)
            return None
        report = _read(next(iter(places.values()))) if _ended_well(seen) else None
        if report is None:
            yield _failed(job, node, state, seen, places)
            return None
        yield Finding("ok", f"a job for {model} ({' '.join(options)}) ran on {node}")
        return Answer(node, report, list(places), dict(_unshared(word, places, report["folders"])))


def script(places: Mapping[str, Path], see: list[Path]) -> str:
    """The job: go to the repository, where the first exchange folder must be, and report into it."""
    first = next(iter(places.values()))
    words = [sys.executable, "-m", "cluster.probe", *(f"--exchange={path}" for path in places.values()), *(f"--see={path}" for path in see)]
    command = f"{shlex.join(words)} > {shlex.quote(str(first / 'report.json'))} 2> {shlex.quote(str(first / 'errors'))}"
    return f"#!/bin/sh\ncd {shlex.quote(str(ROOT))} && test -r {shlex.quote(str(first / HERE))} || exit {UNSEEN}\nexec {command}\n"


@contextlib.contextmanager
def exchange(folders: Mapping[str, Path]) -> Iterator[tuple[str, dict[str, Path]]]:
    """A word, and in each of `folders` that can be written a folder of its own that holds it; removed at the end."""
    word, places = secrets.token_hex(8), {}
    try:
        for what, folder in folders.items():
            with contextlib.suppress(OSError):  # the check of the space says so
                folder.mkdir(parents=True, exist_ok=True)
                places[what] = Path(tempfile.mkdtemp(prefix=".doctor-", dir=folder))
                (places[what] / HERE).write_text(word)
        yield word, places
    finally:
        for place in places.values():
            shutil.rmtree(place, ignore_errors=True)


def _watch(job: str, model: str, wait_s: float) -> dict[str, str]:
    """The job's last state, when it has ended, has not started in `wait_s`, or has run for RUN_S; tells on standard error how it stands."""
    begun = told = time.monotonic()
    running: float | None = None
    while True:
        shown = ask("scontrol", "--oneliner", "show", "job", job)
        seen, now = fields_of(shown.stdout), time.monotonic()
        state = seen.get("JobState", "")
        if (state and state not in _ALIVE) or "Invalid job id" in shown.stderr:
            return seen
        if running is None and state in ("RUNNING", "COMPLETING"):
            running = now
        if now > (begun + wait_s if running is None else running + RUN_S):
            return seen
        if now - told > 5:
            told = now
            print(f"job {job} for {model}: {state.lower()} ({seen.get('Reason')}), {now - begun:.0f} s of {wait_s:g} s", file=sys.stderr)
        time.sleep(1 if now - begun < 10 else 5)


def _ended_well(seen: dict[str, str]) -> bool:
    return seen.get("JobState", "COMPLETED") == "COMPLETED"  # a site may forget a job at once


def _read(place: Path) -> dict[str, Any] | None:
    try:
        return json.loads(_appeared(place / "report.json", APPEAR_S))
    except ValueError:
        return None


def _appeared(file: Path, seconds: float) -> str:
    """What a file holds that another machine wrote; "" where it does not show."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            if text := file.read_text():
                return text
        if time.monotonic() > deadline:
            return ""
        time.sleep(0.5)


def _unshared(word: str, places: Mapping[str, Path], answers: dict[str, dict[str, str]]) -> Iterator[tuple[str, str]]:
    for what, place in places.items():
        said = answers[str(place)]
        if said.get("word") != word:
            yield what, said.get("error", "another file is there")
        elif _appeared(place / THERE, APPEAR_S) != word:
            yield what, "what the node wrote does not show here"


def _failed(job: str, node: str, state: str, seen: dict[str, str], places: Mapping[str, Path]) -> Finding:
    code = int(seen.get("ExitCode", "0:0").split(":")[0])
    if code == UNSEEN:
        return Finding("fail", f"{node} does not see the repository, {ROOT}", "clone it into a folder that all nodes share")
    if code in (126, 127):
        remedy = "make the environment in a folder that all nodes share, from a Python that all nodes have"
        return Finding("fail", f"{node} cannot run {sys.executable}", remedy)
    if state == "COMPLETED":
        text = f"what job {job} wrote on {node} does not show here in {APPEAR_S} s: {next(iter(places.values())).parent}"
        return Finding("fail", text, "clone the repository into a folder that all nodes share")
    why = last(_appeared(next(iter(places.values())) / "errors", min(5, APPEAR_S)))
    return Finding("fail", f"job {job} ended on {node} without an answer ({state}, exit status {code}: {why})", _REFUSED)


_COMMON = ("--job-name=blockwise-doctor", "--output=/dev/null", "--chdir=/", "--ntasks=1", "--cpus-per-task=1", "--mem=2000M")
_REFUSED = "correct gres, partition or account in cluster/partitions.yaml; python -m cluster.discover writes it"
