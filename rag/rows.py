"""Between the journal, one record a point, and the Parquet file, one row a request."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from analysis.records import Journal, Record, gather, read_journal, read_parquet, write_parquet
from rag.config import Experiment
from rag.points import Point

REQUEST = (
    *("request", "scheduled_s", "sent_s", "first_token_s", "end_s", "status", "http", "reason"),
    *("queue_ms", "embed_ms", "retrieve_ms", "generate_ms", "batch"),
    *("question", "source", "retrieved", "rank", "tokens_in", "tokens_out", "lag_ms"),
)
"""The columns that each request has of its own; all others are its point's."""
_NESTED = ("arm_settings", "versions", "provenance")
_DERIVED = ("slo_ms",)


def measured(journal: Path) -> set[tuple[str, int]]:
    """The points, with their attempts, that are in the journal."""
    return {(record["point"], record["attempt"]) for record in read_journal(journal)}


def take_over(source: Path, points: Sequence[Point], journal: Journal) -> None:
    """Append to `journal`, from another run's Parquet, the records of those points that are the same and not there yet."""
    have, planned = measured(journal.folder), {point.id for point in points}
    frame = read_parquet(source, ["point", "attempt", *REQUEST])
    for (identifier, attempt), rows in frame[frame["point"].isin(planned)].groupby(["point", "attempt"], sort=False):
        if (identifier, int(attempt)) not in have:
            journal.append(_record(rows.to_dict("records")))


def write(experiment: Experiment, points: Sequence[Point], journal: Path, out: Path) -> int:
    """Write the Parquet file of this experiment's points, every attempt, and return its number of rows.

    Points follow the plan, their attempts and requests each other. Of a point measured twice in one attempt the first counts.
    """
    place = {point.id: number for number, point in enumerate(points)}
    records, dropped = gather((record for record in read_journal(journal) if record["point"] in place), ["point", "attempt"])
    records.sort(key=lambda record: (place[record["point"]], record["attempt"]))
    rows = list(_rows(records, float(experiment.settings["slo_ms"])))
    write_parquet(out, rows, {"experiment": experiment.name, "points": len(points), "duplicates": dropped})
    return len(rows)


def _rows(records: Iterable[Record], slo_ms: float) -> Iterable[Record]:
    for record in records:
        header = {name: value for name, value in record.items() if name != "requests"}
        for request in record["requests"]:
            yield {**header, "slo_ms": slo_ms, **{name: request[name] for name in REQUEST}}


def _record(rows: Sequence[Record]) -> Record:
    """A point's record from its rows: what all of them share once, the rest under `requests`."""
    first = rows[0]
    shared = {name: value for name, value in first.items() if name not in (*REQUEST, *_DERIVED)}
    header = {name: json.loads(value) if name in _NESTED else value for name, value in shared.items()}
    requests = [{name: list(row[name]) if name == "retrieved" else row[name] for name in REQUEST} for row in rows]
    return {**header, "requests": requests}
