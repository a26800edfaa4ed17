"""Between the journal, one record a point, and the Parquet file, one row a request."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analysis.records import Journal, Record, read_parquet, write_table
from rag.columns import POINT, REQUEST, schema
from rag.config import Experiment
from rag.kept import Kept
from rag.points import Point, Series


def take_over(source: Path, plan: Sequence[Series], kept: Kept, journal: Journal) -> None:
    """Append to `journal`, from another run's Parquet, the records of those points that are the same and not there yet.

    Points of a search belong to a plan by what determines all its points, whichever rates were tried.
    """
    frame = read_parquet(source, ["point", "attempt", "trial", "rate", *REQUEST])
    every = frame.groupby(["point", "attempt"], sort=False)
    rates = frame["rate"].unique()
    planned = {series.point(rate).id for series in plan for rate in rates}
    for (identifier, attempt), found in every:
        if identifier in planned and not kept.trials(identifier, int(attempt)):
            record = _record(found)
            journal.append(record)
            kept.add(record)


def write(experiment: Experiment, plan: Sequence[Series], kept: Kept, out: Path) -> list[Record]:
    """Write the Parquet file of this experiment's points, every attempt; return the header of each of its points.

    Series follow the plan, and in each series the attempts, their points and requests each other.
    """
    import pyarrow as pa

    headers, tables, searches = list[Record](), [schema().empty_table()], list[Record]()
    for series in plan:
        for attempt in kept.attempts:
            progress = kept.progress(series, attempt)
            for point in progress.points:
                found = kept.counting(point.id, attempt, series.strict)
                assert found is not None
                header = {**found[0], **_derived(point, progress.found, experiment)}
                headers.append(header)
                tables.append(_whole(header, found[1]))
            if series.strict:
                about = {"arm": series.arm, "load": series.load, "repeat": series.repeat, "attempt": attempt}
                searches.append({**about, "found_rps": progress.found, "reason": _nothing(series, kept, attempt)})
    notes = {"experiment": experiment.name, "points": len(headers), "duplicates": kept.dropped, "searches": searches}
    write_table(out, pa.concat_tables(tables).unify_dictionaries(), notes)
    return headers


def _derived(point: Point, found: float, experiment: Experiment) -> Record:
    slo_ms = float(experiment.settings["slo_ms"])
    return {"load": point.load, "probe": point.probe, "multiple": point.multiple, "found_rps": found, "slo_ms": slo_ms}


def _whole(header: Record, requests: Any) -> Any:
    """A point's rows: its requests' columns beside its own, which Arrow keeps as one value and a column of zeros where they are long."""
    import pyarrow as pa

    columns = {}
    for field in schema():
        if field.name in REQUEST:
            columns[field.name] = requests[field.name]
        elif pa.types.is_dictionary(field.type):
            text = json.dumps(header[field.name], sort_keys=True)
            columns[field.name] = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), len(requests)), [text])
        else:
            columns[field.name] = pa.repeat(pa.scalar(header[field.name], field.type), len(requests))
    return pa.table(columns, schema())


def _record(rows: Any) -> Record:
    """A point's record from its rows, a DataFrame: what all of them share once, the rest under `requests`."""
    first = rows.iloc[0]
    header = {name: _plain(first[name], kind) for name, kind in POINT.items()}
    requests = {name: [list(value) for value in rows[name]] if kind == "strings" else rows[name].tolist() for name, kind in REQUEST.items()}
    return {**header, "requests": requests}


def _plain(value: Any, kind: str) -> Any:
    if kind == "json":
        return json.loads(value)
    return value.item() if isinstance(value, np.generic) else value


def invalid(headers: Iterable[Record]) -> list[str]:
    """A line for each point that is not valid, and why."""
    return [
        f"{header['arm']} under {header['load']} at {header['rate']:g}/s (repeat {header['repeat']}): not valid: {header['invalid']}"
        for header in headers
        if not header["valid"]
    ]


def nothing_found(plan: Sequence[Series], kept: Kept) -> list[str]:
    """A line for each search in which no rate passed, with what its lowest rate came to."""
    every = [(series, _nothing(series, kept, attempt)) for series in plan for attempt in kept.attempts]
    return [f"{series.arm} under {series.load} (repeat {series.repeat}): {reason}" for series, reason in every if reason]


def _nothing(series: Series, kept: Kept, attempt: int) -> str:
    """Why a search has found 0; empty where it has not."""
    progress = kept.progress(series, attempt)
    if progress.found != 0:
        return ""
    lowest = min(progress.points, key=lambda point: point.rate)
    found = kept.counting(lowest.id, attempt, series.strict)
    assert found is not None
    outcome = f"{kept.share(found):.1%} are in time" if found[0]["valid"] else f"not valid: {found[0]['invalid']}"
    return f"no rate passes; at {lowest.rate:g}/s {outcome}"
