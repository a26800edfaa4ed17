"""What is measured of an experiment: the records of its journal by point, and whether they met the objective."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from analysis.records import Record, journal_records
from rag.columns import POINT, REQUEST, table
from rag.points import Point, Progress, Series

TRIALS = 2
"""How often a point is measured, in one attempt, that came out invalid."""
ANSWERED = 0.99
"""The part of the requests that are to be answered within the objective."""


class Kept:
    """The records of a journal, each with its requests as a table, by point and attempt."""

    def __init__(self, folder: Path, slo_ms: float) -> None:
        self._slo_ms = slo_ms
        self._trials: dict[tuple[str, int], dict[int, tuple[Record, Any]]] = {}
        self.dropped = 0
        for record in journal_records(folder, [*POINT, "requests"]):
            self.add(record)

    def add(self, record: Record) -> None:
        """Take a record that is in the journal. Of a point measured twice in one trial the first counts."""
        trials = self._trials.setdefault((record["point"], record["attempt"]), {})
        if record["trial"] in trials:
            self.dropped += 1
        else:
            header = {name: value for name, value in record.items() if name != "requests"}
            trials[record["trial"]] = (header, table(record["requests"], REQUEST))

    @property
    def attempts(self) -> list[int]:
        return sorted({attempt for _, attempt in self._trials})

    def trials(self, identifier: str, attempt: int) -> int:
        """How often a point was measured."""
        return len(self._trials.get((identifier, attempt), {}))

    def counting(self, identifier: str, attempt: int, strict: bool) -> tuple[Record, Any] | None:
        """The header and the requests that count: the first that are valid, else the last trial's; None where more is to be measured.

        What came out invalid is measured again where its service ended, and if `strict` (a search turns on each of its points) always.
        """
        trials = [found for _, found in sorted(self._trials.get((identifier, attempt), {}).items())]
        valid = [found for found in trials if found[0]["valid"]]
        if valid or not trials:
            return valid[0] if valid else None
        last = trials[-1][0]
        return trials[-1] if last["trial"] >= TRIALS or not (strict or last["restarts"]) else None

    def share(self, found: tuple[Record, Any]) -> float:
        """The part of a point's requests that were answered within the objective, 0 of an invalid one."""
        header, requests = found
        took_ms = (requests["end_s"].to_numpy() - requests["scheduled_s"].to_numpy()) * 1e3
        good = (requests["status"].to_numpy() == "ok") & (took_ms <= self._slo_ms)
        return float(np.mean(good)) if header["valid"] else 0.0

    def progress(self, series: Series, attempt: int) -> Progress:
        """How far a series is in an attempt; a rate passes at which `ANSWERED` of the requests were answered within the objective."""

        def passed(point: Point) -> bool | None:
            found = self.counting(point.id, attempt, series.strict)
            return None if found is None else self.share(found) >= ANSWERED

        return series.progress(passed)
