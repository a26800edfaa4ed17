"""What the short forms of an experiment stand for: `vary` for arms, `loads` for loads."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.cli import BadInput
from rag.config import conform, filled, fits, schema


def arms(given: Mapping[str, Mapping[str, Any]], vary: Mapping[str, Sequence[Any]], where: str) -> dict[str, dict[str, Any]]:
    """Every arm once for each combination of the values that `vary` has for its keys, under a name that says which.

    Raises BadInput for a key that no arm has or that an arm gives itself, and for values that an arm may not have.
    """
    its = schema()["experiment"]["properties"]["arms"]["additionalProperties"]
    keys = [key for key in its["properties"] if key != "service"]
    for key, values in vary.items():
        if key not in keys:
            raise BadInput(f"{where}.vary: unknown key {key!r}; one of {', '.join(keys)}")
        for value in values:
            conform(value, its["properties"][key], f"{where}.vary.{key}")
        if not any(_takes(arm, key, values) for arm in given.values()):
            raise BadInput(f"{where}.vary.{key}: none of the arms {', '.join(given)} may have it")
        for name in (name for name, arm in given.items() if key in arm):
            raise BadInput(f"{where}.arms.{name}.{key}: vary has it too; take it out of one of them")
    found = {}
    for name, arm in given.items():
        mine = [key for key, values in vary.items() if _takes(arm, key, values)]
        for values in itertools.product(*(vary[key] for key in mine)):
            chosen = dict(zip(mine, values, strict=True))
            full = " ".join([name, *(f"{key}={_text(value)}" for key, value in chosen.items())])
            found[full] = {**arm, **chosen}
            conform(found[full], its, f"{where}.arms.{full}")
    return found


def _takes(arm: Mapping[str, Any], key: str, values: Sequence[Any]) -> bool:
    """Whether the schema lets the arm have the key; its values by themselves are checked before."""
    return fits({**arm, key: values[0]}, schema()["experiment"]["properties"]["arms"]["additionalProperties"])


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def loads(base: Mapping[str, Any], given: Mapping[str, Mapping[str, Any]] | None, where: str) -> dict[str, dict[str, Any]]:
    """Every load with all its keys; the one load of an experiment without `loads` is named after its arrivals.

    Raises BadInput for a load that is not whole, or whose keys do not go together.
    """
    parts = schema()
    its = {**parts["experiment"]["properties"]["load"], **parts["load"]}
    found = {}
    for name, changes in (given or {base["arrivals"]: {}}).items():
        place = f"{where}.loads.{name}" if given else f"{where}.load"
        load = {**base, **changes}
        conform(load, its, place)
        load = filled(load, its)
        search = load.get("search")
        if search and search["start"] >= search["most"]:
            raise BadInput(f"{place}.search.start: {search['start']:g} is not below most ({search['most']:g})")
        found[name] = load
    return found
