"""The report of a run as PDF: its figures, tables and numbers, and what was planned but not measured. It claims nothing.

    python -m analysis.report --run results/smoke --out results/smoke/report.pdf

`paper/report.tex` is the frame; what the run has is written beside a copy of it in a temporary folder and typeset there.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis import catalog
from analysis.catalog import Item
from analysis.cli import BadInput, run
from analysis.config import devices_of, load
from analysis.environment import ROOT
from analysis.style import digits
from analysis.tables import escape
from analysis.typeset import NotTypeset, missing, typeset
from analysis.unmeasured import unmeasured

PAPER = ROOT / "paper"
STAGES = {
    "compile": "Compilation",
    "validate": "Validation",
    "sweep": "Block sweeps",
    "bench": "Benchmarks",
    "rag": "Retrieval-augmented generation",
    "time": "Where the time went",
    "environment": "Environment",
}
_ELSEWHERE = ("compile_variants",)  # hundreds of rows: for the HTML report and a spreadsheet


def prepare(folder: Path, source: Path, figures: Sequence[Path], tables: Sequence[Path], numbers: Path | None) -> None:
    """Write into `folder` all that typesetting the report of the run `source` needs."""
    config = load(source / "config.yaml")
    for path in [*PAPER.glob("*.sty"), PAPER / "report.tex", PAPER / "refs.bib"]:
        shutil.copy(path, folder / path.name)
    (folder / "run.tex").write_text(f"\\newcommand{{\\RunName}}{{{escape(source.resolve().name)}}}\n", encoding="utf-8")
    (folder / "numbers.tex").write_text(numbers.read_text(encoding="utf-8") if numbers else "", encoding="utf-8")
    (folder / "content.tex").write_text("\n".join(_content(folder, source, config, figures, tables, numbers)), encoding="utf-8")


def _content(
    folder: Path, source: Path, config: Mapping[str, Any], figures: Sequence[Path], tables: Sequence[Path], numbers: Path | None
) -> Iterator[str]:
    """The report's sections, by stage, each with the figures and tables that were given."""
    given = {"figure": {path.stem: path for path in figures}, "table": {path.stem: path for path in tables}}
    planned = _planned(config, devices_of(source))
    unknown = [str(path) for what, paths in given.items() for stem, path in paths.items() if (what, stem) not in planned]
    if unknown:
        raise BadInput(f"{unknown[0]}: not a figure or table of this run's config; give only those in its figures/ and tables/")
    here = [item for key, item in planned.items() if key[1] in given[key[0]]]
    for stage, heading in STAGES.items():
        items = [item for item in here if item.stage == stage and item.stem not in _ELSEWHERE]
        if items:
            yield f"\\FloatBarrier\\section{{{heading}}}"
        for item in items:
            yield _include(folder, item, given[item.what][item.stem])
    yield "\\FloatBarrier\\section{What was not measured}"
    yield from _not_measured(source, [item for key, item in planned.items() if key[1] not in given[key[0]]])
    if numbers:
        yield "\\section{Numbers}"
        yield from _numbers(numbers)


def _planned(config: Mapping[str, Any], devices: Sequence[str]) -> dict[tuple[str, str], Item]:
    """Every figure and table of the config, by what it is and its stem, on the devices that the run has records of."""
    items = [*catalog.figures(config, devices), *catalog.tables(config, devices, lambda operator, device: ["any"])]
    return {(item.what, item.stem): item for item in items}


def _include(folder: Path, item: Item, path: Path) -> str:
    """A figure or table with its title and caption; its file is copied into `folder` under a name that LaTeX takes."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file; make the run's {item.what}s first")
    name = re.sub(r"[^A-Za-z0-9]", "-", item.stem) + path.suffix
    copied = folder / f"{item.what}s" / name
    copied.parent.mkdir(exist_ok=True)
    shutil.copyfile(path, copied)
    caption = f"\\textbf{{{escape(item.title)}.}} {latex(catalog.caption(item.kind))}"
    if item.what == "figure":
        picture = f"\\includegraphics[width=\\linewidth,height=0.78\\textheight,keepaspectratio]{{figures/{name}}}"
        return f"\\begin{{figure}}[htbp]\n\\centering\n{picture}\n\\caption{{{caption}}}\n\\end{{figure}}\n"
    if path.read_text(encoding="utf-8").count("\\toprule") > 1:  # in parts: a float cannot break over pages
        return f"\\clearpage\n\\captionof{{table}}{{{caption}}}\n{{\\small\\input{{tables/{name}}}}}\n"
    return f"\\begin{{table}}[htbp]\n\\caption{{{caption}}}\n\\centering\n\\small\\input{{tables/{name}}}\n\\end{{table}}\n"


def latex(caption: str) -> str:
    """A caption's reStructuredText as LaTeX: paragraphs, ``literals`` and *emphasis*, which is all that captions use."""
    text = escape(caption)
    text = re.sub(r"``(.+?)``", r"\\texttt{\1}", text)
    return re.sub(r"\*(.+?)\*", r"\\emph{\1}", text)


def _not_measured(source: Path, absent: Sequence[Item]) -> Iterator[str]:
    """Points without a time, by reason, and figures and tables that the config plans and the run lacks."""
    rows = unmeasured(source)
    if rows:
        yield "{\\footnotesize\\begin{longtable}{llrl>{\\raggedright\\arraybackslash}p{5cm}}\n\\toprule"
        yield "experiment & backend & points & status & reason, of the first \\\\\n\\midrule\n\\endhead"
        yield from (" & ".join(escape(str(cell)) for cell in row) + " \\\\" for row in rows)
        yield "\\bottomrule\n\\end{longtable}}"
    for item in absent:
        yield f"Planned and not in this run: the {item.what} \\emph{{{escape(item.title)}}}.\\par"
    if not rows and not absent:
        yield "Everything that the config plans was measured."


def _numbers(path: Path) -> Iterator[str]:
    """Every macro with its value, from the sidecar."""
    sidecar = path.with_suffix(".json")
    if not sidecar.is_file():
        raise BadInput(f"{sidecar}: missing; make {path} again with python -m analysis.numbers")
    yield "A paper quotes these by their macros; \\texttt{python -m analysis.provenance} says which records made one.\\par"
    yield "{\\scriptsize\\setlength{\\tabcolsep}{3pt}\\begin{longtable}{lrllr}\n\\toprule"
    yield "macro & value & unit & 95\\,\\% interval & n \\\\\n\\midrule\n\\endhead"
    for name, its in json.loads(sidecar.read_text(encoding="utf-8")).items():
        bounds = [digits(float(its[bound])) for bound in ("low", "high") if its[bound] is not None]
        cells = [f"\\textbackslash{{}}{name}", *(escape(str(text)) for text in (its["text"], its["unit"], " to ".join(bounds), its["n"]))]
        yield " & ".join(cells) + " \\\\"
    yield "\\bottomrule\n\\end{longtable}}"


def _given(paths: Sequence[Path] | None, folder: Path, suffix: str) -> list[Path]:
    return [path for path in (sorted(folder.iterdir()) if paths is None and folder.is_dir() else paths or []) if path.suffix == suffix]


def main() -> int:
    parser = argparse.ArgumentParser(description="Typeset the report of a run.")
    parser.add_argument("--run", type=Path, required=True, help="the run's folder, such as results/smoke")
    parser.add_argument("--figures", type=Path, nargs="*", help="its figures; files other than .pdf are ignored (default: all in figures/)")
    parser.add_argument("--tables", type=Path, nargs="*", help="its tables; files other than .tex are ignored (default: all in tables/)")
    parser.add_argument("--numbers", type=Path, help="its numbers.tex, with numbers.json beside it (default: the run's own, if it has one)")
    parser.add_argument("--out", type=Path, required=True, help="the PDF to write")
    parser.add_argument("--if-possible", action="store_true", help="without TeX, say what is missing, write nothing and succeed")
    options = parser.parse_args()
    absent = missing()
    if absent:
        print(absent, file=sys.stderr)
        return 0 if options.if_possible else 1
    if options.numbers and not options.numbers.is_file():
        raise BadInput(f"{options.numbers}: no such file; make it with python -m analysis.numbers")
    figures = _given(options.figures, options.run / "figures", ".pdf")
    tables = _given(options.tables, options.run / "tables", ".tex")
    numbers = options.numbers or next(options.run.glob("numbers.tex"), None)
    with tempfile.TemporaryDirectory(prefix="blockwise-report-") as folder:
        prepare(Path(folder), options.run, figures, tables, numbers)
        try:
            typeset(Path(folder), "report", options.out)
        except NotTypeset as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    run(main)
