"""What an experiment's job takes at most, for what it asks of a cluster: run time, memory, instances of a service."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rag.search import most_probes

START_S = 60.0
"""To start a service and load its models: once an arm, and once a series again, for a service that an overload left busy."""
BETWEEN_S = 5.0
"""Between two loads, until the service is idle and the record is written."""
PREPARE_S = 600.0
"""To embed the corpus, where it is not in the cache."""
INSTANCE_MB = 4000
SLACK = 1.2
"""For points that come out invalid and are measured once more."""


def minutes(settings: Mapping[str, Any]) -> int:
    """Minutes that an experiment of these settings takes at most (`rag.config.Experiment`); a search, with as many rates as it may try."""
    loads = settings["loads"].values()
    every = sum(points(load) * (load["seconds"] + load["deadline_s"] + BETWEEN_S) + START_S for load in loads)
    seconds = PREPARE_S + len(settings["arms"]) * (START_S + settings["repeats"] * every) * SLACK
    return math.ceil(seconds / 60)


def memory_mb(settings: Mapping[str, Any]) -> int:
    """Megabytes of an experiment's job: `INSTANCE_MB` for each instance, and as much for the load and its records."""
    return INSTANCE_MB * (1 + instances(settings))


def instances(settings: Mapping[str, Any]) -> int:
    """The most instances that one of the arms has."""
    return max(int(arm.get("instances", 1)) for arm in settings["arms"].values())


def points(load: Mapping[str, Any]) -> int:
    """How many points a load has at most, on one arm in one repeat."""
    return len(load["rates"]) if "rates" in load else most_probes(load) + len(load.get("times", ()))
