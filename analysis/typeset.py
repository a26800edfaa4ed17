"""Typesetting: LaTeX files in a temporary folder to a PDF whose bytes depend on nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from analysis.cli import replacing

DEBIAN = "latexmk texlive-latex-extra texlive-fonts-recommended texlive-science"
_EPOCH = "1700000000"  # any fixed time: two reports of the same records are the same bytes


class NotTypeset(RuntimeError):
    """Why there is no PDF, in one line."""


def missing() -> str | None:
    """What the machine lacks to typeset, and what installs it, in one line; None if nothing."""
    absent = [name for name in ("latexmk", "pdflatex", "bibtex") if shutil.which(name) is None]
    if not absent:
        return None
    return f"report not typeset: no {', '.join(absent)} on this machine; on Debian or Ubuntu: sudo apt install {DEBIAN}"


def typeset(folder: Path, name: str, out: Path) -> None:
    """Typeset `<folder>/<name>.tex` to `out`.

    Raises NotTypeset where TeX is missing, or with the first error that LaTeX gives; its log is then kept beside `out`.
    """
    absent = missing()
    if absent:
        raise NotTypeset(absent)
    done = subprocess.run(
        ["latexmk", "-pdf", "-norc", "-halt-on-error", "-interaction=nonstopmode", f"{name}.tex"],
        cwd=folder,
        env={**os.environ, "SOURCE_DATE_EPOCH": _EPOCH, "FORCE_SOURCE_DATE": "1", "max_print_line": "1000"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode == 0:
        with replacing(out) as path:
            shutil.copyfile(folder / f"{name}.pdf", path)
        return
    log, kept = folder / f"{name}.log", out.with_suffix(".log")
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else done.stdout + done.stderr
    with replacing(kept) as path:
        path.write_text(text, encoding="utf-8")
    raise NotTypeset(f"report not typeset: {first_error(text)}; the log: {kept}")


def first_error(log: str) -> str:
    """The first error of a LaTeX log, with its line number where one follows, in one line."""
    lines = log.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("!"):
            place = next((near for near in lines[number : number + 12] if re.match(r"l\.\d+", near)), "")
            hint = f" (on Debian or Ubuntu: sudo apt install {DEBIAN})" if "not found" in line else ""
            return f"{line} {place}".strip() + hint
    return "latexmk failed without a LaTeX error"
