"""Checks what was selected: exactly the oracle's elements and ids, in its order; of a peer the elements alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.contract import Arrays, Verdict


def compare(problem: Any, inputs: Arrays, outputs: Arrays, expected: Arrays) -> Verdict:
    """Selection does not round, so there is no tolerance: values and ids are the oracle's.

    A peer whose ties come in any order gives "any_ids" instead of "ids": they must point at the values, none twice.
    """
    checks = {"values": (np.asarray(outputs["values"], np.float64), expected["values"])}
    if "any_ids" in outputs:
        ids = np.asarray(outputs["any_ids"])
        if any(len(np.unique(row)) < len(row) for row in ids):
            return Verdict(False, np.inf, "an id twice in a row")
        checks["any_ids"] = (np.take_along_axis(inputs["values"], ids, axis=1), expected["values"])
    else:
        checks["ids"] = (np.asarray(outputs["ids"]), expected["ids"])
    for name, (found, true) in checks.items():
        if found.shape != true.shape:
            return Verdict(False, np.inf, f"{name} have shape {list(found.shape)}, not {list(true.shape)}")
        wrong = (found != true) & ~((found != found) & (true != true))
        if wrong.any():
            at = np.unravel_index(wrong.argmax(), wrong.shape)
            return Verdict(False, np.inf, f"{name}{[int(i) for i in at]} is {found[at]}, the oracle says {true[at]}")
    return Verdict(True, 0.0)
