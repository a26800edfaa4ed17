"""The bill: what a command would measure, as text, before it measures anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kernels.planning.estimate import ASSUMED, MEASURED, SCALED, Estimate, total

HEAD = ("experiment", "device", "partition", "jobs", "points", "recorded", "pruned", "minutes", "estimate")
LEFT = 3
"""Columns of words, which stand to the left; numbers stand to the right."""
WORDS = f"""\
minutes: of the device, for what is neither recorded nor pruned, the start of each job included.
{MEASURED}: as long as it took in another run; {SCALED}: from the nearest problem that was measured, by the hardware's limit;
{ASSUMED}: nothing was measured there yet, a rough guess"""


@dataclass(frozen=True)
class Line:
    """An experiment on a device: jobs to submit, points in all, those that are recorded or pruned, what the rest takes, where it goes."""

    experiment: str
    device: str
    jobs: int
    points: int
    recorded: int
    pruned: int
    left: Estimate
    partition: str = ""

    @property
    def missing(self) -> int:
        return self.points - self.recorded - self.pruned


def table(lines: Sequence[Line]) -> str:
    """An aligned line an experiment and device, a total a device, and what the words mean."""
    rows = [HEAD, *map(_row, lines)]
    for device in dict.fromkeys(line.device for line in lines):
        rows.append(_row(_total(device, [line for line in lines if line.device == device])))
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return "\n".join([*(_aligned(row, widths) for row in rows), "", WORDS])


def brief(lines: Sequence[Line]) -> str:
    """One line a device that has anything to measure."""
    said = []
    for device in dict.fromkeys(line.device for line in lines if line.missing):
        its = [line for line in lines if line.device == device and line.missing]
        left, where = total(line.left for line in its), ", ".join(sorted({line.partition for line in its if line.partition}))
        counts = f"{sum(line.missing for line in its)} points to measure in {sum(line.jobs for line in its)} jobs"
        said.append(f"{device}: {counts}, about {_minutes(left)} minutes ({_basis(left)}){f', partition {where}' if where else ''}")
    return "\n".join(said)


def _total(device: str, lines: Sequence[Line]) -> Line:
    jobs, points, recorded, pruned = (
        sum(column) for column in zip(*((its.jobs, its.points, its.recorded, its.pruned) for its in lines), strict=True)
    )
    return Line("total", device, jobs, points, recorded, pruned, total(line.left for line in lines))


def _row(line: Line) -> tuple[str, ...]:
    numbers = (line.jobs, line.points, line.recorded, line.pruned)
    return (line.experiment, line.device, line.partition or "-", *map(str, numbers), _minutes(line.left), _basis(line.left))


def _minutes(left: Estimate) -> str:
    minutes = left.seconds / 60
    return f"{minutes:.1f}" if minutes < 10 else f"{minutes:.0f}"


def _basis(left: Estimate) -> str:
    """What the estimate rests on; of several the share of each."""
    shares = {basis: left.by[basis] / left.seconds for basis in (MEASURED, SCALED, ASSUMED) if left.by.get(basis)} if left.seconds else {}
    return next(iter(shares)) if len(shares) == 1 else ", ".join(f"{share:.0%} {basis}" for basis, share in shares.items()) or "-"


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    last = len(row) - 1
    cells = [
        cell.ljust(width) if column < LEFT or column == last else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()
