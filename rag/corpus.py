"""A corpus: documents cut into chunks of words, the same on every run from the same source, and known by its digest."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.cli import BadInput
from rag import libraries


@dataclass(frozen=True)
class Document:
    """A text and the name it is known by."""

    id: str
    text: str


@dataclass(frozen=True)
class Chunk:
    """Consecutive words of a document, what is embedded and retrieved. Its id is `<document>#<number>`, counted from 0."""

    id: str
    document: str
    text: str


@dataclass(frozen=True)
class Corpus:
    """Documents, and their chunks in the same order."""

    documents: tuple[Document, ...]
    chunks: tuple[Chunk, ...]

    @functools.cached_property
    def digest(self) -> str:
        """The first 16 hex digits of the sha256 over every chunk's id and text."""
        hashed = hashlib.sha256()
        for chunk in self.chunks:
            hashed.update(json.dumps([chunk.id, chunk.text]).encode())
        return hashed.hexdigest()[:16]


def build(settings: Mapping[str, Any], seed: int, where: str) -> Corpus:
    """The corpus that a config's `settings` describe (keys in workflow/schemas/rag.schema.yaml).

    A `limit` below the number of documents keeps a sample of that many, drawn by `seed`, in their order.
    Raises BadInput, beginning with `where`, for a folder that is missing, empty or unreadable.
    """
    if "folder" in settings:
        documents = _unique(_folder(Path(settings["folder"]), where), where)
    else:
        read = libraries.packages if settings["source"] == "packages" else libraries.stdlib
        documents = [Document(name, text) for name, text in read()]
    limit = settings.get("limit")
    if limit and limit < len(documents):
        kept = np.sort(np.random.default_rng(seed).choice(len(documents), limit, replace=False))
        documents = [documents[number] for number in kept]
    chunks = [chunk for document in documents for chunk in cut(document, settings["chunk_words"])]
    return Corpus(tuple(documents), tuple(chunks))


def part(whole: Corpus, chunks: int, first: Container[str], seed: int, where: str) -> tuple[Corpus, np.ndarray]:
    """A corpus of `chunks` of the whole one's, in their order, and their rows in it; those of the documents `first` come before others.

    Within each group they are drawn by `seed`, and fewer are part of more. Raises BadInput for more than there are.
    """
    if chunks > len(whole.chunks):
        raise BadInput(f"{where}: {chunks}, but the corpus has {len(whole.chunks)}; give at most so many, or 0 for all")
    order = np.random.default_rng(seed).permutation(len(whole.chunks))
    wanted = np.array([whole.chunks[row].document in first for row in order])
    rows = np.sort(order[np.argsort(~wanted, kind="stable")][:chunks])
    kept = tuple(whole.chunks[row] for row in rows)
    names = {chunk.document for chunk in kept}
    return Corpus(tuple(document for document in whole.documents if document.id in names), kept), rows


def cut(document: Document, words: int) -> list[Chunk]:
    """The chunks of a document: `words` words each, the last one shorter, every one headed by the document's id."""
    found = document.text.split()
    pieces = [" ".join(found[start : start + words]) for start in range(0, len(found), words)]
    return [Chunk(f"{document.id}#{number}", document.id, f"{document.id}: {piece}") for number, piece in enumerate(pieces)]


def _folder(folder: Path, where: str) -> Iterator[Document]:
    """Documents of a folder's .txt and .md files (id: path in the folder) and .jsonl files (id and text a line), by path."""
    if not folder.is_dir():
        raise BadInput(f"{where}.folder: {folder} is not a folder; name one with .txt, .md or .jsonl files")
    empty = True
    for path in sorted(folder.rglob("*")):
        if path.suffix in {".txt", ".md"}:
            found: Iterable[Document] = [Document(path.relative_to(folder).as_posix(), _read(path))]
        elif path.suffix == ".jsonl":
            found = _lines(path)
        else:
            continue
        for document in found:
            if document.text.strip():
                empty = False
                yield document
    if empty:
        raise BadInput(f"{where}.folder: no text in {folder}; put .txt, .md or .jsonl files with some there")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read as UTF-8 text ({error})") from None


def _lines(path: Path) -> Iterator[Document]:
    for number, line in enumerate(_read(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            identifier, text = fields["id"], fields["text"]
            f"{identifier}{text}".encode()  # half a surrogate pair is no text
        except (ValueError, TypeError, KeyError):
            identifier = text = None
        if not isinstance(identifier, str) or not isinstance(text, str):
            raise BadInput(f'{path}, line {number}: not a document; write {{"id": "name", "text": "its text"}}')
        yield Document(identifier, text)


def _unique(documents: Iterable[Document], where: str) -> list[Document]:
    found: dict[str, Document] = {}
    for document in documents:
        if document.id in found:
            raise BadInput(f"{where}.folder: two documents are called {document.id!r}; ids must differ")
        found[document.id] = document
    return list(found.values())
