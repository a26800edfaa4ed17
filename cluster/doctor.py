"""`python -m cluster.doctor`: is this machine ready? One line a check, and what to do about each that fails.

Needs no valid config, and imports nothing that a broken installation could lack.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from analysis.cli import BadInput, run

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = "snakemake_executor_plugin_submitit"
NEEDED_GB = 5  # for results and caches of the paper's config


@dataclass(frozen=True)
class Finding:
    """`level`: ok, note (works, with something left out) or fail (something required is broken)."""

    level: str
    text: str
    remedy: str = ""


def python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    fine = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield Finding("ok" if fine else "fail", f"Python {version} ({sys.executable})", "" if fine else "use Python 3.11 to 3.13")


def snakemake() -> Iterator[Finding]:
    version = _version("snakemake")
    if version is None:
        yield Finding("fail", "snakemake is not installed", "pip install -e .")
        return
    old = tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < (9, 19)
    yield Finding("fail" if old else "ok", f"snakemake {version}", "pip install -U 'snakemake>=9.19'" if old else "")
    if importlib.util.find_spec(PLUGIN):
        yield Finding("ok", f"executor plugin submitit (submitit {_version('submitit')})")
    else:
        yield Finding("fail", "the executor plugin submitit is not installed", "pip install -e cluster/snakemake-executor-plugin-submitit")


def slurm() -> Iterator[Finding]:
    if shutil.which("sinfo") is None:
        yield Finding("ok", "no Slurm here: jobs run as processes of this machine")
        return
    asked = _ask("sinfo", "--noheader", "--format=%P %G")
    if asked.returncode:
        if "configuration source" in asked.stderr:
            remedy = "nothing, or set SLURM_CONF to the cluster's slurm.conf"
            yield Finding("note", "Slurm's commands are installed but no cluster is set up: jobs run on this machine", remedy)
        else:
            yield Finding("fail", f"Slurm does not answer ({_last(asked.stderr)})", "try later, or ask the administrators")
        return
    yield Finding("ok", f"Slurm answers: {len(asked.stdout.splitlines())} partition(s) and GPU kinds")
    history = _ask("sacct", "--noheader", "-X", "--starttime=now-1minute")
    if history.returncode:
        remedy = "ask the administrators for accounting: without it a job that is killed goes unseen"
        yield Finding("fail", f"sacct does not answer ({_last(history.stderr)})", remedy)
    else:
        yield Finding("ok", "sacct answers")


def site() -> Iterator[Finding]:
    try:
        from cluster import site as facts

        known = facts.load()
        names, here = facts.names_here(), known.planned(["auto"])[0]
    except ImportError as error:
        yield Finding("fail", f"cluster/partitions.yaml cannot be checked: {error}", "pip install -e .")
        return
    except BadInput as error:
        yield Finding("fail", str(error), "correct the file")
        return
    yield Finding("ok", f"cluster/partitions.yaml: {len(known.gpus)} GPU models")
    if not names:
        yield Finding("ok", "no GPU here: CPU backends are measured, kernels are still compiled for every GPU")
        return
    yield Finding("ok", f"GPU here: {', '.join(names)} (device {here})")
    if here not in known.gpus:
        yield Finding("note", f"{names[0]} is not in cluster/partitions.yaml", "add it under gpus, to plan jobs for it by name")
        return
    yield from _wheels(known.gpus[here].install)


def _wheels(group: str) -> Iterator[Finding]:
    """Do the installed CUDA wheels run on this GPU and its driver?"""
    wanted = {"cuda13": "13", "cuda126": "12"}[group]
    driver = re.search(r"CUDA Version: (\d+)\.(\d+)", _ask("nvidia-smi").stdout)
    found = {"torch": _torch_cuda(), "cupy": next((n for n in ("12", "13") if _version(f"cupy-cuda{n}x")), None)}
    for library, cuda in found.items():
        if cuda is None:
            yield Finding("note", f"{library} without CUDA: its GPU backends are left out", f"install the group {group}")
        elif cuda.split(".")[0] != wanted:
            yield Finding("fail", f"{library} is built for CUDA {cuda}; this GPU needs CUDA {wanted}", f"install the group {group}")
        elif driver and int(driver[1]) < int(wanted):
            text = f"{library} needs a driver for CUDA {wanted}; this one is for {driver[1]}.{driver[2]}"
            yield Finding("fail", text, "ask the administrators for a newer driver")
        else:
            yield Finding("ok", f"{library} for CUDA {cuda}; driver for CUDA {'.'.join(driver.groups()) if driver else 'unknown'}")


def _torch_cuda() -> str | None:
    """The CUDA version of the installed torch, read from its files: importing it takes seconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    found = re.search(r"^cuda\b[^=]*= ['\"]([\d.]+)", Path(spec.origin).with_name("version.py").read_text(), re.MULTILINE)
    return found[1] if found else None


def folders() -> Iterator[Finding]:
    scratch = Path(os.environ.get("BLOCKWISE_SCRATCH") or Path.home() / ".cache").expanduser()
    for what, folder in {"caches": scratch, "results": ROOT / "results", "home": Path.home()}.items():
        there = next(path for path in (folder, *folder.parents) if path.exists())
        try:
            with tempfile.TemporaryFile(dir=there):
                pass
        except OSError as error:
            remedy = "set BLOCKWISE_SCRATCH to a folder that you may write to"
            yield Finding("fail", f"{what}: cannot write to {there} ({error.strerror})", remedy)
            continue
        free = shutil.disk_usage(there).free / 1e9
        small = free < NEEDED_GB
        remedy = f"{NEEDED_GB} GB are wanted; set BLOCKWISE_SCRATCH to a bigger file system" if small else ""
        yield Finding("note" if small else "ok", f"{what}: {free:.0f} GB free for {folder} (a quota may allow less)", remedy)


def tex() -> Iterator[Finding]:
    if shutil.which("latexmk") and shutil.which("pdflatex"):
        yield Finding("ok", "TeX: latexmk and pdflatex")
    else:
        yield Finding("note", "no TeX: figures, tables and numbers are made, the PDF is not", "apt-get install latexmk texlive-latex-extra")


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (python, snakemake, slurm, site, folders, tex)


def main() -> int:
    argparse.ArgumentParser(prog="python -m cluster.doctor", description=__doc__).parse_args()
    broken = False
    for check in CHECKS:
        for finding in check():
            print(f"{finding.level:4s}  {finding.text}" + (f"; to do: {finding.remedy}" if finding.remedy else ""))
            broken |= finding.level == "fail"
    return 1 if broken else 0


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _ask(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]


if __name__ == "__main__":
    run(main)
