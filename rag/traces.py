"""Arrival times of recorded request traces, in the formats in which they are published.

- Azure LLM inference trace 2023 (Patel et al., ISCA 2024), CSV: `TIMESTAMP` (date and time), `ContextTokens`, `GeneratedTokens`.
- BurstGPT (Wang et al., arXiv:2401.17644), CSV: `Timestamp` (seconds), `Request tokens`, `Response tokens`, and more.
- RAGPulse (arXiv:2511.12979), JSONL: `timestamp` (seconds), `input_length`, `output_length`, `hash_ids`.

A trace is read from the path that the user names and never copied; a record keeps its sha256 and the schedule that was made of it.
"""

from __future__ import annotations

import csv
import datetime
import functools
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.cli import BadInput

MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class Trace:
    """`times` of arrival in seconds from the first, ascending, and the sha256 of the file they are from."""

    times: tuple[float, ...]
    sha256: str


def read(path: Path, where: str, sha256: str | None = None) -> Trace:
    """The trace in a file. `where` begins the message of a BadInput: of what is no trace, of two or fewer arrivals, of another sha256."""
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise BadInput(f"{where}: {path} has {size / 1e9:.1f} GB; a trace has at most {MOST_BYTES / 1e9:.1f}")
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{where}: {path} cannot be read ({error.strerror})") from None
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256.lower():
        raise BadInput(f"{where}: {path} has the sha256 {found}, not {sha256}")
    try:
        times = sorted(_arrivals(content.decode("utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        reason = f"no column or key {error}" if isinstance(error, KeyError) else str(error)
        raise BadInput(f"{where}: {path} is no trace of Azure 2023 (CSV), BurstGPT (CSV) or RAGPulse (JSONL): {reason}") from None
    if len(times) < 2 or times[0] == times[-1]:
        raise BadInput(
            f"{where}: {path} has {len(times)} arrivals in {times[-1] - times[0] if times else 0:g} s; at least two apart are needed"
        )
    return Trace(tuple(time - times[0] for time in times), found)


def named(load: Mapping[str, Any], where: str) -> Trace | None:
    """The trace that a load replays, or None for one of another kind of arrivals; read once a process."""
    if load["arrivals"] != "trace":
        return None
    return _read_once(Path(load["trace"]["path"]), where, load["trace"].get("sha256"))


@functools.cache
def _read_once(path: Path, where: str, sha256: str | None) -> Trace:
    return read(path, where, sha256)


def _arrivals(text: str) -> Iterator[float]:
    """The arrival times, in the file's order and from its own zero. Raises ValueError, KeyError or TypeError for what is no trace."""
    first = text.lstrip()[:1]
    if first == "{":
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield _number(lambda text: float(json.loads(text)["timestamp"]), line, number)
        return
    rows = csv.DictReader(io.StringIO(text))
    names = rows.fieldnames or []
    if "TIMESTAMP" in names:
        for number, row in enumerate(rows, 2):
            yield _number(_clock, row["TIMESTAMP"], number)
    elif "Timestamp" in names:
        for number, row in enumerate(rows, 2):
            yield _number(float, row["Timestamp"], number)
    else:
        raise ValueError(f"its first line is {text.splitlines()[0][:60] if text else 'missing'!r}")


def _clock(text: str) -> float:
    """Seconds of a date and time with up to seven decimals, of which Python reads six."""
    moment = datetime.datetime.fromisoformat(text[:26])
    return (moment.replace(tzinfo=moment.tzinfo or datetime.UTC)).timestamp()


def _number(read_one: Callable[[str], float], text: str, line: int) -> float:
    try:
        found = read_one(text)
    except (ValueError, TypeError) as error:
        raise ValueError(f"line {line}: {error}") from None
    if found != found or found in (float("inf"), float("-inf")):
        raise ValueError(f"line {line}: {found} is no time")
    return found
