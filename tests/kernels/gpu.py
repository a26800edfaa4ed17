"""Runs a GPU backend over its operator's awkward problems, for tests that have a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels import registry


def on_gpu(arrays: str, array: np.ndarray) -> Any:
    if arrays == "cupy":
        import cupy

        return cupy.asarray(array)
    import torch

    return torch.from_numpy(array).cuda()


def off_gpu(array: Any) -> np.ndarray:
    return array.get() if hasattr(array, "get") else array.cpu().numpy()


def check_awkward(operator_name: str, backend_name: str) -> None:
    """Every awkward problem at the default block within the tolerance."""
    operator = registry.operator(operator_name)
    backend = registry.backend(operator, backend_name)
    for problem in operator.awkward:
        inputs = operator.make_inputs(problem, 5)
        expected = operator.oracle(problem, inputs)
        placed = {name: on_gpu(backend.arrays, array) for name, array in inputs.items()}
        outputs = {name: off_gpu(array) for name, array in backend.run(problem, placed, dict(backend.space.default)).items()}
        verdict = operator.compare(problem, inputs, outputs, expected)
        assert verdict.ok, (str(problem), verdict)
