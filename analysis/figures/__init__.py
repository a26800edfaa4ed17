"""Figures, one file each: what `draw` makes of raw records, and the command line that saves it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any


def command(draw: Callable[..., Any], description: str, *options: tuple[str, dict[str, Any]], several: bool = False) -> int:
    """The command line of a figure: its records, `--out STEM` and its own `options`, which `draw` takes by name.

    `several`: it is of one or more record files, and `draw` takes a list of them.
    """
    parser = argparse.ArgumentParser(description=description)
    files: Any = {"nargs": "+", "help": "record files"} if several else {"help": "a record file"}
    files["help"] += ", such as results/smoke/bench/knn_scaling.cpu.parquet"
    parser.add_argument("records", type=Path, **files)
    parser.add_argument("--out", type=Path, required=True, metavar="STEM", help="writes STEM.pdf and STEM.png")
    for name, settings in options:
        parser.add_argument(name, **settings)
    arguments = vars(parser.parse_args())
    stem = arguments.pop("out")
    from analysis.style import save

    save(draw(**arguments), stem)
    return 0
