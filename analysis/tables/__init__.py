"""Tables, one file each: what `table` makes of raw records, and the command line that writes it as LaTeX, CSV and Markdown."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.cli import replacing
from analysis.measured import Frame
from analysis.statistics import Summary
from analysis.style import digits

MISSING = "–"


def command(table: Callable[..., Frame], description: str, *options: tuple[str, dict[str, Any]]) -> int:
    """The command line of a table: its records, `--out STEM` and its own `options`, which `table` takes by name."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("records", type=Path, nargs="+", help="record files, such as results/smoke/bench/knn_scaling.cpu.parquet")
    parser.add_argument("--out", type=Path, required=True, metavar="STEM", help="writes STEM.tex, STEM.csv and STEM.md")
    for name, settings in options:
        parser.add_argument(name, **settings)
    arguments = vars(parser.parse_args())
    stem = arguments.pop("out")
    write(table(**arguments), stem)
    return 0


def write(frame: Frame, stem: Path | str) -> None:
    """Write `frame` as `<stem>.tex` (booktabs), `.csv` and `.md`; numbers are rounded in all but the CSV.

    What holds for all rows stands under the table: `frame.attrs["note"]`.
    """
    shown, note = frame.map(_text), frame.attrs.get("note", "")
    numbers = {name for name in frame if all(_missing(value) or isinstance(value, int | float | Summary) for value in frame[name])}
    with replacing(f"{stem}.tex") as path:
        path.write_text(_latex(shown, numbers, note), encoding="utf-8")
    with replacing(f"{stem}.csv") as path:
        _flat(frame).to_csv(path, index=False)
    with replacing(f"{stem}.md") as path:
        body = "" if not len(shown.columns) else _markdown(shown, numbers) + "\n" * bool(note)
        path.write_text(body + (f"{note}\n" if note else ""), encoding="utf-8")


def fixed(frame: Frame, sentences: Mapping[str, str], *notes: str) -> Frame:
    """`frame` without those columns of `sentences` that hold one value, which stands in the note instead, as `sentence.format(value)`."""
    same = [name for name in sentences if name in frame and frame[name].nunique(dropna=False) == 1]
    said = [sentences[name].format(frame[name].iloc[0]) for name in same if frame[name].iloc[0] not in (None, "", MISSING)]
    kept = frame.drop(columns=same)
    kept.attrs["note"] = " ".join(filter(None, [*said, *notes]))
    return kept


def interval(its: Summary) -> str:
    """`1.23 [1.20, 1.25]`; the median alone where there is no interval, or all of it is infinite."""
    if math.isnan(its.low) or its.low == its.high == math.inf:
        return digits(its.median)
    return f"{digits(its.median)} [{digits(its.low)}, {digits(its.high)}]"


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _text(value: Any) -> str:
    if isinstance(value, Summary):
        return interval(value)
    if _missing(value):
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return digits(value) if isinstance(value, float) else str(value)


_WIDE = 36  # characters of a cell beyond which its column breaks lines
PAGE = 40  # rows that fit a page


def _latex(shown: pd.DataFrame, numbers: set[str], note: str) -> str:
    """Pandas' booktabs with everything escaped, no wider than the text; a long table in parts that fit a page each."""
    if shown.empty:
        return f"({escape(note).rstrip('.') or 'no rows'})\n"
    frame = shown.map(escape).rename(columns={name: escape(str(name)) for name in shown})
    wide = r">{\raggedright\arraybackslash}p{5cm}"
    form = "".join("r" if name in numbers else wide if shown[name].map(len).max() > _WIDE else "l" for name in shown)
    parts = [frame.iloc[start : start + PAGE].style.hide(axis="index") for start in range(0, len(frame), PAGE)]
    bodies = [part.to_latex(hrules=True, column_format=form) for part in parts]
    fit = "max width=\\linewidth,max totalheight=0.85\\textheight"
    fitted = [f"\\begin{{adjustbox}}{{{fit}}}\n{body}\\end{{adjustbox}}\n" for body in bodies]
    return "\\par\\medskip\n".join(fitted) + (f"\\par\\smallskip{{\\footnotesize {escape(note)}\\par}}\n" if note else "")


def _flat(frame: Frame) -> Frame:
    """Summaries as three columns of full precision."""
    columns: dict[str, Any] = {}
    for name in frame:
        if any(isinstance(value, Summary) for value in frame[name]):
            for part in ("median", "low", "high"):
                columns[name if part == "median" else f"{name} {part}"] = [getattr(value, part, None) for value in frame[name]]
        else:
            columns[str(name)] = frame[name]
    return pd.DataFrame(columns)


def _markdown(shown: Frame, numbers: set[str]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |\n"

    rule = "|" + "|".join("---:" if name in numbers else "---" for name in shown) + "|\n"
    return line([str(name) for name in shown]) + rule + "".join(line(list(row)) for row in shown.itertuples(index=False))


_SPECIAL = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "–": "--",
    "∞": r"$\infty$",
    "×": r"$\times$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "…": r"\dots{}",
    "·": r"$\cdot$",
}


def escape(text: str) -> str:
    """`text` for LaTeX, one line, with its special characters escaped; characters that the fonts lack become a question mark."""
    known = (_SPECIAL.get(old, old.encode("latin-1", "replace").decode("latin-1")) for old in " ".join(text.split()))
    return "".join(known)
