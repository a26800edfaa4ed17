"""The filter leaves out no group that holds a neighbour, on data that is awkward for rounding."""

from __future__ import annotations

import pytest

from tests.commands import run_module
from tests.needs import require


@pytest.mark.parametrize("device", ["interpreter", "gpu"])
def test_no_group_with_a_neighbour_is_left_out(device: str) -> None:
    if device == "gpu":
        require("gpu")
    done = run_module("tests.kernels.chosen", TRITON_INTERPRET="1" if device == "interpreter" else "0")
    assert done.returncode == 0, done.stdout + done.stderr
