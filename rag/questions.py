"""Questions whose source document is known, so that the quality of retrieval is measured and not supposed."""

from __future__ import annotations

import collections
import re
from dataclasses import dataclass

import numpy as np

from analysis.cli import BadInput
from rag.corpus import Corpus, Document

KEYWORDS = 3
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_WORD = re.compile(r"[A-Za-z][a-z]{3,}")


@dataclass(frozen=True)
class Question:
    """A question and the id of the document that it was made from."""

    text: str
    source: str


def questions(corpus: Corpus, number: int, seed: int, where: str) -> list[Question]:
    """At most `number` different questions from documents drawn by `seed`.

    A question is the last part of a document's name in words and the document's rarest words, in their order: "How do I
    use raw decode for extraneous, trailing, begins?". What precedes the name's last part (module, class, folder) is held out.
    Documents with too few words to ask for are passed over; BadInput where none is left.
    """
    counts = collections.Counter(word for document in corpus.documents for word in _words(document))
    asked: dict[str, Question] = {}
    for at in np.random.default_rng(seed).permutation(len(corpus.documents)):
        if len(asked) == number:
            break
        document = corpus.documents[at]
        keywords = _keywords(document, counts)
        if len(keywords) == KEYWORDS:
            text = f"How do I use {_leaf(document.id)} for {', '.join(keywords)}?"
            asked.setdefault(text, Question(text, document.id))
    if not asked:
        raise BadInput(f"{where}: no document has the {KEYWORDS} words that a question is made of; take longer texts")
    return list(asked.values())


def _leaf(identifier: str) -> str:
    """The last part of a document's name in words: "json.decoder.JSONDecoder.raw_decode" → "raw decode"."""
    parts = [part for part in re.split(r"[./#]", re.sub(r"\.(txt|md)$", "", identifier)) if part and not part.startswith("__")]
    return " ".join(_CAMEL.sub(" ", (parts or [identifier])[-1].replace("_", " ").replace("-", " ")).lower().split())


def _words(document: Document) -> set[str]:
    return {word.lower() for word in _WORD.findall(document.text)}


def _keywords(document: Document, counts: collections.Counter[str]) -> list[str]:
    """The rarest words of a document that its name does not have, in the order of the text."""
    order = list(dict.fromkeys(word.lower() for word in _WORD.findall(document.text)))
    free = [word for word in order if word not in document.id.lower()]
    rarest = set(sorted(free, key=lambda word: (counts[word], word))[:KEYWORDS])
    return [word for word in free if word in rarest]
