"""Where did the jobs' time go? Accounts of sweep and bench jobs; a bar a job, or, of many, how many were at what."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.patches import Patch

from analysis import style
from analysis.accounts import NONE, QUEUED, Account, accounts, minutes_of, spent, together
from analysis.cli import run
from analysis.figures import command

MOST_BARS = 120
"""Jobs beyond which bars would be too thin to tell what is in them."""
MOST_PANELS = 4
_LABELLED = 45  # jobs of a page whose bars have room for their names
_HOSTS = 8  # groups of bars for which hosts are told apart
_INCHES = 6.0  # of all bars together, at the most
_HEAD = 0.16  # inches of a line that names a group of bars
_LOOKS: dict[str, dict[str, Any]] = {  # told apart by lightness or hatching where there is no colour
    QUEUED: {"facecolor": "#FFFFFF", "edgecolor": "#888888", "linewidth": 0.4},
    "start-up": {"facecolor": "#F0E442"},
    "loading": {"facecolor": "#D55E00"},
    "ceilings": {"facecolor": "#CC79A7", "hatch": "xxxxx", "edgecolor": "#FFFFFF"},
    "inputs": {"facecolor": "#56B4E9", "hatch": "/////", "edgecolor": "#FFFFFF"},
    "kernels": {"facecolor": "#00466F"},
    "checking": {"facecolor": "#009E73", "hatch": ".....", "edgecolor": "#FFFFFF"},
    "recording": {"facecolor": "#000000"},
    "other": {"facecolor": "#A6A6A6"},
}
_NAMES = {"loading": "caches, first calls", "kernels": "in kernels", "other": "between kernels, other"}

Box = tuple[str, float, float, float, float]
"""A cause, its start and end in minutes, and between which shares of the bar's height it lies."""


@dataclass(frozen=True)
class Sitting:
    """Jobs of one time without a long silence: a panel, whose clock runs from `begun` to `over`, both in Unix time."""

    jobs: list[Account]
    begun: float
    over: float

    def boxes(self, job: Account) -> list[Box]:
        def minutes(at: float) -> float:
            return (at - self.begun) / 60

        found: list[Box] = [(QUEUED, minutes(job.since), minutes(job.held), 0.0, 1.0)] if job.queued_s else []
        for stretch in job.stretches:
            low = 0.0
            for cause, share in stretch.shares.items():
                if share > 0:
                    found.append((cause, minutes(stretch.start), minutes(stretch.end), low, low + share))
                    low += share
        return found


def sittings(jobs: Sequence[Account]) -> list[Sitting]:
    """The jobs, parted where nothing waited or ran for longer than half of all the time in which something did."""
    busy = together((job.since, job.ended) for job in jobs)
    silence = sum(end - start for start, end in busy) / 2
    spans = busy[:1]
    for start, end in busy[1:]:
        if start - spans[-1][1] > silence:
            spans.append((start, end))
        else:
            spans[-1] = spans[-1][0], end
    return [Sitting([job for job in jobs if start <= job.since <= end], start, end) for start, end in spans]


def draw(records: Sequence[Path]) -> Any:
    """The figure. Within measuring, where causes alternate by milliseconds, their shares of the time are shares of the bar's height."""
    jobs = accounts(records)
    if not jobs:
        return style.message(NONE)
    shown, many = _shown(sittings(jobs))
    panels = [panel for one in shown for panel in _by_device(one)] if many else shown
    drawn = [job for one in shown for job in one.jobs]
    inches = min(0.17, _INCHES / len(drawn))  # of a bar
    heights = [1.6 if many else inches * len(one.jobs) + _HEAD * len(_groups(one.jobs)) for one in panels]
    figure, axes = style.grid(len(panels), height=(sum(heights) + 0.4) / len(panels) + 0.35, columns=1)
    axes[0].get_subplotspec().get_gridspec().set_height_ratios(heights)
    for axis, sitting in zip(axes, panels, strict=True):
        if many:
            _crowd(axis, sitting)
        else:
            _bars(axis, sitting, _HEAD / inches)
        at = datetime.datetime.fromtimestamp(sitting.begun, datetime.UTC)
        title = [_devices(sitting.jobs)] * many + [f"from {at:%Y-%m-%d %H:%M} UTC"] * (len(shown) > 1)
        axis.set_title(", ".join(title), loc="left", fontsize=7.5)
        axis.set_xlim(0, (sitting.over - sitting.begun) / 60)
    axes[-1].set_xlabel("minutes since the first submission")
    style.head(figure, *_head(jobs, [job for job in jobs if job not in drawn]))
    used = {cause for one in panels for job in one.jobs for cause, *_ in one.boxes(job)}
    style.legend(figure, [Patch(label=_NAMES.get(cause, cause), **look) for cause, look in _LOOKS.items() if cause in used])
    return figure


def _head(jobs: Sequence[Account], left_out: Sequence[Account]) -> list[str]:
    held, unknown = sum(job.held_s for job in jobs), sum(job.queued is None for job in jobs)
    parts = [_devices(jobs), f"{len(jobs)} job{'s' * (len(jobs) > 1)}"]
    parts += [f"{style.digits(held / 60)} {minutes_of(jobs)}, {100 * spent(jobs)['kernels'] / held:.0f} % of them in kernels"]
    if 0 < unknown < len(jobs):
        parts.append(f"{unknown} without a time of submission")
    if left_out:
        parts.append(f"not drawn: {len(left_out)} jobs of shorter sittings, {style.digits(sum(job.held_s for job in left_out) / 60)} min")
    return parts


def _shown(every: Sequence[Sitting]) -> tuple[list[Sitting], bool]:
    """The sittings that took most of the jobs' time, as many as there is room for, and whether their jobs are too many for bars."""
    longest = sorted(every, key=lambda one: -sum(job.held_s for job in one.jobs))[:MOST_PANELS]
    many = sum(len(one.jobs) for one in longest) > MOST_BARS
    room = max(1, MOST_PANELS // max(len(_by_device(one)) for one in longest)) if many else MOST_PANELS
    return sorted(longest[:room], key=lambda one: one.begun), many


def _by_device(sitting: Sitting) -> list[Sitting]:
    """A panel a device, or one of all devices where they are many."""
    devices = dict.fromkeys(job.device for job in sitting.jobs)
    if len(devices) > MOST_PANELS:
        return [sitting]
    return [dataclasses.replace(sitting, jobs=[job for job in sitting.jobs if job.device == device]) for device in devices]


def _devices(jobs: Sequence[Account]) -> str:
    names = list(dict.fromkeys(job.device for job in jobs))
    return " · ".join(names) if len(names) < 4 else f"{len(names)} devices"


def _groups(jobs: Sequence[Account]) -> dict[str, list[Account]]:
    """The jobs of each device and host by start; of each device where the hosts are many."""
    hosts = len({(job.device, job.host) for job in jobs}) <= _HOSTS
    groups: dict[str, list[Account]] = {}
    for job in sorted(jobs, key=lambda job: (job.device, job.host if hosts else "", job.since, job.held)):
        groups.setdefault(f"{job.device}, {job.host}" if hosts else job.device, []).append(job)
    return groups


def _bars(axis: Any, sitting: Sitting, head: float) -> None:
    """A row a job, each group under a line that names it and is `head` rows high."""
    corners: dict[str, list[Any]] = {}
    labels: dict[float, str] = {}
    row = 0.0
    for name, jobs in _groups(sitting.jobs).items():
        about = {"textcoords": "offset points", "va": "center", "fontsize": 6.5, "color": style.GREY}
        axis.annotate(f"{name}: {len(jobs)}", (0, row + head / 2), (2, 0), **about)
        row += head
        for job in jobs:
            labels[row + 0.5] = job.name
            for cause, start, end, low, high in sitting.boxes(job):
                top, bottom = row + 0.9 - 0.8 * high, row + 0.9 - 0.8 * low
                corners.setdefault(cause, []).append([(start, bottom), (start, top), (end, top), (end, bottom)])
            row += 1
    for cause, look in _LOOKS.items():
        if cause in corners:
            axis.add_collection(PolyCollection(corners[cause], **{"edgecolor": "none", "linewidth": 0, **look}))
    named = len(labels) <= _LABELLED
    axis.set_yticks(list(labels) if named else [], labels.values() if named else [], fontsize=6.5)
    axis.tick_params(axis="y", length=0)
    axis.grid(visible=False, axis="y")
    axis.set_ylim(row, 0)


def _crowd(axis: Any, sitting: Sitting) -> None:
    """How many jobs were at what, on average over each of some hundred slices of time."""
    edges = np.linspace(0, (sitting.over - sitting.begun) / 60, 301)
    counts = {cause: np.zeros(len(edges) - 1) for cause in _LOOKS}
    for job in sitting.jobs:
        for cause, start, end, low, high in sitting.boxes(job):
            counts[cause] += (high - low) * np.diff(np.clip(edges, start, end)) / np.diff(edges)
    below = np.zeros(len(edges) - 1)
    for cause in sorted(_LOOKS, key=lambda cause: (cause == QUEUED, cause != "kernels")):  # what is wanted at the bottom
        axis.stairs(below + counts[cause], edges, baseline=below, fill=True, **{"edgecolor": "none", "linewidth": 0, **_LOOKS[cause]})
        below = below + counts[cause]
    axis.set_ylabel("jobs")
    axis.set_ylim(bottom=0)


def main() -> int:
    return command(draw, "Draw where the time of a run's measuring jobs went.", several=True)


if __name__ == "__main__":
    run(main)
