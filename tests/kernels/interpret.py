"""Runs Triton backends over their operators' awkward problems in the interpreter: `TRITON_INTERPRET=1 python interpret.py OPERATOR…`.

The interpreter is chosen when a kernel's module is imported, so the tests run this in a process of its own.
"""

from __future__ import annotations

import os
import sys

import torch

from analysis.cli import run
from kernels import interpreter, registry
from kernels.arrays import place, to_numpy


def main() -> int:
    interpreter.enable()
    torch.use_deterministic_algorithms(True)  # fills what torch.empty gives with NaN, so that what is never written shows
    failures = 0
    for word in sys.argv[1:]:
        operator = registry.operator(os.path.basename(word), [word] if os.path.isdir(word) else [])
        backend = registry.backend(operator, "triton")
        for problem in operator.awkward:
            inputs = operator.make_inputs(problem, 7)
            if backend.space.rule(problem, dict(backend.space.default)):
                continue
            tensors = place({name: array.copy() for name, array in inputs.items()}, operator.shapes(problem), "torch", "cpu")
            outputs = to_numpy(backend.run(problem, tensors, dict(backend.space.default)))
            verdict = operator.compare(problem, inputs, outputs, operator.oracle(problem, inputs))
            if not verdict.ok:
                failures += 1
                print(f"{operator.name} {problem}: {verdict.error:.3g} tolerances: {verdict.message}")
    return failures


if __name__ == "__main__":
    run(main)
