"""Names what a run made: its report, figures, tables and PDF.

python -m analysis.made results/smoke
"""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis.cli import BadInput, run


def main() -> int:
    parser = argparse.ArgumentParser(description="Name what a run made.")
    parser.add_argument("run", type=Path, help="the run's folder, such as results/smoke")
    folder = parser.parse_args().run
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such run; make it with snakemake")
    for label, pattern in (("figures", "figures/*.pdf"), ("tables", "tables/*.md")):
        print(f"{label + ':':9}{len(list(folder.glob(pattern)))} in {folder / label}")
    for label, name in (("numbers", "numbers.tex"), ("report", "report.html"), ("PDF", "report.pdf")):
        path = folder / name
        print(f"{label + ':':9}{path if path.is_file() else NOT_MADE[label]}")
    return 0


NOT_MADE = {
    "numbers": "not made",
    "report": "not made; snakemake report_html makes it",
    "PDF": "not made: no TeX here (README.md names the packages); all else is complete",
}

if __name__ == "__main__":
    run(main)
