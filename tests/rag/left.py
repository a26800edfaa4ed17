"""What a server that has ended left behind."""

from __future__ import annotations

import time
from pathlib import Path


def processes(mark: object) -> list[str]:
    """The command lines of living processes that name `mark`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if str(mark) in line and state not in "ZX":
            found.append(f"{folder.name}: {line[:200]}")
    return found


def listeners(ports: set[int]) -> set[int]:
    """Those of `ports` that something on this machine listens on."""
    listening = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            if state == "0A":
                listening.add(int(local.rpartition(":")[2], 16))
    return ports & listening


def gone(mark: object, seconds: float = 20) -> list[str]:
    """The processes that name `mark` after they were given `seconds` to end."""
    until = time.monotonic() + seconds
    while (left := processes(mark)) and time.monotonic() < until:
        time.sleep(0.1)
    return left
