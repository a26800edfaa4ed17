"""What a compiled kernel needs, read from its machine code with no GPU, and what an architecture allows."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.cli import BadInput

SHARED_LIMIT = {50: 48, 52: 48, 60: 48, 61: 48, 70: 96, 75: 64, 80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 100: 227, 103: 227, 120: 99}
"""Most shared memory of a block, opt-in included, in KiB by compute capability (CUDA C++ Programming Guide, technical specifications)."""
SPILL_LIMIT = 4096
"""Bytes a thread may spill before a variant is not worth measuring."""


@dataclass(frozen=True)
class Resources:
    """Registers a thread, bytes spilled a thread, bytes of static and dynamic shared memory a block."""

    registers: int
    spills: int
    shared_static: int
    shared_dynamic: int = 0

    def objection(self, architecture: int) -> str | None:
        """Why this kernel cannot launch, or is surely slow, on `architecture`; None where nothing speaks against it."""
        shared, allowed = self.shared_static + self.shared_dynamic, SHARED_LIMIT[architecture] << 10
        if shared > allowed:
            return f"shared memory {shared:,} B exceeds the {allowed:,} B of sm_{architecture}"
        if self.spills > SPILL_LIMIT:
            return f"spills {self.spills:,} B a thread"
        return None


def capability(architecture: str) -> int:
    """90 for "sm_90". Raises BadInput, naming those known."""
    number = int(architecture[3:]) if re.fullmatch(r"sm_\d+", architecture) else 0
    if number not in SHARED_LIMIT:
        raise BadInput(f"architecture {architecture!r}: unknown; one of {', '.join(f'sm_{known}' for known in SHARED_LIMIT)}")
    return number


def of_triton(kernel: Any, architecture: int) -> Resources:
    """The resources of a kernel compiled by Triton, by the assembler that it bundles."""
    from triton.backends.nvidia.compiler import get_ptxas

    target = re.search(r"\.target\s+(sm_\w+)", kernel.asm["ptx"])
    with tempfile.TemporaryDirectory() as folder:
        ptx = Path(folder, "kernel.ptx")
        ptx.write_text(kernel.asm["ptx"])
        command = [
            get_ptxas(architecture).path,
            "-v",
            f"--gpu-name={target.group(1) if target else f'sm_{architecture}'}",
            str(ptx),
            "-o",
            "/dev/null",
        ]
        log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return parse_ptxas(log, kernel.metadata.shared)


def parse_ptxas(log: str, shared_dynamic: int = 0) -> Resources:
    """The resources of the one kernel that a `ptxas -v` log speaks of; functions that it calls add to its spills."""

    def numbers(pattern: str) -> list[int]:
        return [int(found) for found in re.findall(pattern, log)]

    registers, static = numbers(r"Used (\d+) registers"), numbers(r"(\d+) bytes smem")
    return Resources(max(registers, default=0), sum(numbers(r"(\d+) bytes spill stores")), max(static, default=0), shared_dynamic)
