"""The software of this machine: Python, Snakemake with its executor, TeX."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from collections.abc import Iterator

from cluster.doctor.finding import Finding
from cluster.probe import version

PLUGIN = "snakemake_executor_plugin_submitit"


def python() -> Iterator[Finding]:
    found = ".".join(map(str, sys.version_info[:3]))
    fine = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield Finding("ok" if fine else "fail", f"Python {found} ({sys.executable})", "" if fine else "use Python 3.11 to 3.13")


def snakemake() -> Iterator[Finding]:
    found = version("snakemake")
    if found is None:
        yield Finding("fail", "snakemake is not installed", "make setup")
        return
    old = tuple(int(part) for part in re.findall(r"\d+", found)[:2]) < (9, 19)
    yield Finding("fail" if old else "ok", f"snakemake {found}", "pip install -U 'snakemake>=9.19'" if old else "")
    if importlib.util.find_spec(PLUGIN):
        yield Finding("ok", f"executor plugin submitit (submitit {version('submitit')})")
    else:
        yield Finding("fail", "the executor plugin submitit is not installed", "pip install -e cluster/snakemake-executor-plugin-submitit")


def tex() -> Iterator[Finding]:
    if shutil.which("latexmk") and shutil.which("pdflatex"):
        yield Finding("ok", "TeX: latexmk and pdflatex")
    else:
        yield Finding("note", "no TeX: figures, tables and numbers are made, the PDF is not", "README.md names the packages")
