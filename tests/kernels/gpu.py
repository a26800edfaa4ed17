"""Runs a GPU backend over its operator's awkward problems, for tests that have a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels import registry
from kernels.arrays import place, to_numpy


def on_gpu(arrays: str, array: np.ndarray) -> Any:
    """A NumPy array as one of "torch" or "cupy" on the GPU."""
    return place({"": array}, {"": ((), array.dtype.name)}, arrays, "gpu")[""]


def off_gpu(array: Any) -> np.ndarray:
    return to_numpy({"": array})[""]


def check_awkward(operator_name: str, backend_name: str) -> None:
    """Every awkward problem at the default block within the tolerance."""
    operator = registry.operator(operator_name)
    backend = registry.backend(operator, backend_name)
    for problem in operator.awkward:
        inputs = operator.make_inputs(problem, 5)
        expected = operator.oracle(problem, inputs)
        if backend.space.rule(problem, dict(backend.space.default)):
            continue
        placed = place(inputs, operator.shapes(problem), backend.arrays, "gpu")
        outputs = to_numpy(backend.run(problem, placed, dict(backend.space.default)))
        verdict = operator.compare(problem, inputs, outputs, expected)
        assert verdict.ok, (str(problem), verdict)
