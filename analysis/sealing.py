"""Sealing a run: a manifest with the sha256 of every raw record file, after which the run never changes.

    python -m analysis.sealing seal results/smoke
    python -m analysis.sealing verify results/smoke

Raw is what cannot be made again without measuring: records, the tuned tables that bench was given, and the config.
Journals, the compile cache, figures, tables and numbers are not part of a sealed run.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from analysis.cli import BadInput, replacing, run
from analysis.config import sealed
from analysis.measured import mapping
from analysis.records import read_parquet

MANIFEST = "manifest.json"
SCHEMA = 1
CONFIG = "config.yaml"
_RAW = ("compile/*.parquet", "validate/*.parquet", "sweep/*.parquet", "bench/*.parquet", "rag/*.parquet", "tune/*.json")


def raw_files(folder: Path) -> list[str]:
    """Paths in the run of its raw files, its config first."""
    config = [CONFIG] if (folder / CONFIG).is_file() else []
    return config + sorted(path.relative_to(folder).as_posix() for pattern in _RAW for path in folder.glob(pattern))


def seal(folder: Path | str) -> Path:
    """Write the manifest and return its path. Raises BadInput for a run that is sealed, or has no config or no records."""
    folder = Path(folder)
    if sealed(folder):
        raise BadInput(f"{folder}: sealed already, on {_manifest(folder)['sealed']}; give a new run a name of its own (--config run=NAME)")
    files = raw_files(folder)
    if CONFIG not in files:
        raise BadInput(f"{folder}: no {CONFIG}; name a run's folder, such as results/smoke")
    if not any(name.endswith(".parquet") for name in files):
        raise BadInput(f"{folder}: no records to seal; run its stages first")
    origins = _origins(folder, files)
    for warning in _doubts(origins):
        print(f"warning: {folder}: {warning}", file=sys.stderr)
    manifest = {
        "schema": SCHEMA,
        "run": folder.resolve().name,
        "sealed": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **origins,
        "files": {name: {"sha256": _sha256(folder / name), "bytes": (folder / name).stat().st_size} for name in files},
    }
    with replacing(folder / MANIFEST) as path:
        path.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return folder / MANIFEST


def verify(folder: Path | str) -> dict[str, Any]:
    """The manifest of a sealed run whose raw files are as they were. Raises BadInput, naming what is missing, changed or extra."""
    folder = Path(folder)
    manifest = _manifest(folder)
    wrong = []
    for name, its in manifest["files"].items():
        if not (folder / name).is_file():
            wrong.append(f"{name} is missing")
        elif (folder / name).stat().st_size != its["bytes"] or _sha256(folder / name) != its["sha256"]:
            wrong.append(f"{name} has changed")
    wrong += [f"{name} is extra" for name in raw_files(folder) if name not in manifest["files"]]
    if wrong:
        raise BadInput(f"{folder}: not as sealed: {'; '.join(wrong)}; restore it, for example with git checkout -- {folder}")
    return manifest


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise BadInput(f"{folder}: not sealed (no {MANIFEST}); seal it with python -m analysis.sealing seal {folder}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise BadInput(f"{path}: not JSON; restore it, for example with git checkout -- {path}") from None
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA or not isinstance(manifest.get("files"), dict):
        raise BadInput(f"{path}: not a manifest of schema {SCHEMA}; restore it, or verify it with the version that wrote it")
    return manifest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _origins(folder: Path, files: list[str]) -> dict[str, Any]:
    """Commits, dirty flag, devices and versions that the records name."""
    commits: set[str] = set()
    devices: set[str] = set()
    versions: dict[str, set[str]] = {}
    dirty = False
    for name in files:
        if not name.endswith(".parquet"):
            continue
        frame = read_parquet(folder / name)
        for text in frame["provenance"].dropna().unique() if "provenance" in frame else []:
            found = mapping(text)
            commits.add(str(found.get("commit", "unknown")))
            dirty |= bool(found.get("dirty"))
        devices |= set(frame["device"].dropna()) if "device" in frame else set()
        for text in frame["versions"].dropna().unique() if "versions" in frame else []:
            for package, version in mapping(text).items():
                versions.setdefault(package, set()).add(str(version))
    return {
        "commits": sorted(commits),
        "dirty": dirty,
        "devices": sorted(devices),
        "versions": {package: sorted(found) for package, found in sorted(versions.items())},
    }


def _doubts(origins: dict[str, Any]) -> list[str]:
    doubts = []
    if len(origins["commits"]) > 1:
        doubts.append(f"its records come from {len(origins['commits'])} commits ({', '.join(origins['commits'])})")
    if origins["dirty"]:
        doubts.append("some of its records come from code with uncommitted changes, which nobody else can get")
    return doubts


def main() -> int:
    parser = argparse.ArgumentParser(description="Seal a run, or verify that a sealed one is as it was.")
    parser.add_argument("action", choices=["seal", "verify"])
    parser.add_argument("run", type=Path, help="the run's folder, such as results/smoke")
    options = parser.parse_args()
    if options.action == "seal":
        print(f"sealed: {seal(options.run)}")
    else:
        manifest = verify(options.run)
        print(f"{options.run}: all {len(manifest['files'])} files are as sealed on {manifest['sealed']}")
    return 0


if __name__ == "__main__":
    run(main)
