"""The documentation of Python's standard library, and of the packages installed beside it, as documents: real text that exists
wherever the project is installed. What was read is kept, since parsing thousands of files takes a while.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tqdm import tqdm

from analysis.cli import replacing
from analysis.environment import identity, usable_cores
from rag import cache, docstrings
from rag.docstrings import Named

LEAST_WORDS = 5
"""A shorter text ("See above.") says nothing that could be asked for."""
_FEW = 500
"""Files that one process has read before others have started."""


def stdlib() -> list[Named]:
    """The docstrings of the interpreter's own library (see `documents`)."""
    return documents([Path(sysconfig.get_paths()["stdlib"])])


def packages() -> list[Named]:
    """The docstrings of all packages that are installed where this interpreter looks for them (see `documents`)."""
    found = (Path(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages"))
    return documents([root for root in dict.fromkeys(found) if root.is_dir()])


def documents(roots: Sequence[Path]) -> list[Named]:
    """(qualified name, docstring) of every public module, class and function under `roots`, by root, file and line.

    Of equal names, and of equal texts, the first counts; a text of fewer than LEAST_WORDS words does not. They are kept in the
    cache folder until a file's name, size or time of change differs.
    """
    files = [file for root in roots for file in docstrings.files(root)]
    kept = cache.folder("docstrings") / f"{_key(files)}.jsonl"
    if not kept.is_file():
        found = _once(_read(files))
        with replacing(kept) as temporary, temporary.open("w", encoding="utf-8") as out:
            out.writelines(json.dumps(document) + "\n" for document in found)
    with kept.open(encoding="utf-8") as lines:
        return [(name, text) for name, text in map(json.loads, lines)]


def _key(files: Iterable[tuple[Path, str]]) -> str:
    """What determines the documents: the files as they are now, and how they are read."""
    stats = [(module, (stat := path.stat()).st_size, stat.st_mtime_ns) for path, module in files]
    reading = [hashlib.sha256(Path(source).read_bytes()).hexdigest() for source in (docstrings.__file__, __file__)]
    return identity(files=stats, reading=reading)


def _read(files: Sequence[tuple[Path, str]]) -> list[Named]:
    """The docstrings of `files`, in their order, by all cores where there are many."""
    with contextlib.ExitStack() as stack:
        each: Iterator[list[Named]] = map(docstrings.read, files)
        if len(files) > _FEW:
            pool = stack.enter_context(ProcessPoolExecutor(usable_cores(), multiprocessing.get_context("spawn")))
            each = pool.map(docstrings.read, files, chunksize=64)
        bar = tqdm(each, desc="reading docstrings", total=len(files), unit=" files", disable=len(files) <= _FEW)
        return [document for found in bar for document in found]


def _once(found: Iterable[Named]) -> list[Named]:
    names, texts, kept = set[str](), set[str](), list[Named]()
    for name, text in found:
        if len(text.split()) >= LEAST_WORDS and name not in names and text not in texts:
            kept.append((name, text))
            names.add(name)
            texts.add(text)
    return kept
