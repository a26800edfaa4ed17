"""Space: can the folders be written, and how much do file system and quota leave?"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cluster import sinfo
from cluster.doctor.finding import Finding

ROOT = Path(__file__).resolve().parents[2]
NEEDED_GB = 5  # for results and caches of the paper's config
SCRATCH = "BLOCKWISE_SCRATCH"


def folders() -> dict[str, Path]:
    """The folders that every node must see and be able to write, by what they are for."""
    cache = Path(os.environ.get(SCRATCH) or ROOT / ".cache").expanduser()
    return {"repository": ROOT, "results": ROOT / "results", "caches": cache}


def space() -> Iterator[Finding]:
    left = quotas(sinfo.ask("quota", "-w").stdout) if shutil.which("quota") else {}
    for what, folder in {**folders(), "home": Path.home()}.items():
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        try:
            with tempfile.TemporaryFile(dir=there):
                pass
        except OSError as error:
            yield Finding("fail", f"{what}: cannot write to {there} ({error.strerror})", f"set {SCRATCH} to a folder that you may write to")
            continue
        free, by = shutil.disk_usage(there).free / 1e9, "on its file system"
        quota = left.get(_device(there))
        if quota is not None and quota < free:
            free, by = quota, "by your quota"
        small = free < NEEDED_GB
        by += f" ({NEEDED_GB} GB are wanted)" if small else " (quota unknown)" if quota is None else ""
        yield Finding("note" if small else "ok", f"{what}: {free:.1f} GB free {by}: {folder}", _more(what) if small else "")


def quotas(text: str) -> dict[str, float]:
    """GB left on each file system by the output of `quota -w`, which counts blocks of 1024 bytes; a limit of 0 is none."""
    found = {}
    for line in text.splitlines():
        if numbers := re.match(r"\s*(\S+)\s+(\d+)\*?\s+(\d+)\s+(\d+)\b", line):
            used, soft, hard = (int(number) for number in numbers.groups()[1:])
            limit = min((each for each in (soft, hard) if each), default=None)
            if limit is not None:
                found[numbers[1]] = max(0, limit - used) * 1024 / 1e9
    return found


def _more(what: str) -> str:
    if what == "caches":
        return f"set {SCRATCH} to a folder on a bigger file system"
    return "delete what is not needed" if what == "home" else "use a clone of the repository on a bigger file system"


def _device(path: Path) -> str:
    """What is mounted where `path` lies, as `quota` names it; "" where that is not to be known."""
    try:
        mounts = [line.split()[:2] for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return ""
    above = {str(path.resolve()), *map(str, path.resolve().parents)}
    return max(((len(point), device) for device, point in mounts if point in above), default=(0, ""))[1]
