"""Corpora are the same on every run, whole, and their questions lead back to them."""

import pytest

from analysis.cli import BadInput
from rag.corpus import Document, build, cut
from rag.questions import KEYWORDS, questions
from rag.stdlib import docstrings

STDLIB = {"source": "stdlib", "chunk_words": 40, "limit": 200}


@pytest.fixture(scope="module")
def stdlib():
    return build(STDLIB, 7, "test")


def test_the_stdlib_s_corpus_is_deterministic(stdlib, monkeypatch):
    found = list(docstrings())
    monkeypatch.setattr("rag.corpus.docstrings", lambda: found)
    again = build(STDLIB, 7, "test")
    assert stdlib == again and stdlib.digest == again.digest
    assert len(stdlib.documents) == 200 and len({chunk.id for chunk in stdlib.chunks}) == len(stdlib.chunks)
    assert build(STDLIB, 8, "test").digest != stdlib.digest
    assert build({**STDLIB, "chunk_words": 41}, 7, "test").digest != stdlib.digest


def test_docstrings_are_those_of_the_library():
    import fractions
    import json.decoder

    found = dict(docstrings())
    assert len(found) > 4000
    assert found["json.decoder.JSONDecoder.raw_decode"].split() == json.decoder.JSONDecoder.raw_decode.__doc__.split()
    assert found["fractions.Fraction"].split() == fractions.Fraction.__doc__.split()
    assert not any(part.startswith("_") and part != "__init__" for name in found for part in name.split("."))


def test_docstrings_of_a_tree(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text('"""A package."""\nraise SystemExit("imported")')
    (tmp_path / "module.py").write_text(
        'try:\n    def f():\n        """First."""\nexcept ImportError:\n    def f():\n        """Second."""\n'
        'class C:\n    """A class."""\n    def _g(self):\n        """Hidden."""\n    async def h(self):\n        """H."""\n'
    )
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "t.py").write_text('"""A test."""')
    assert list(docstrings(tmp_path)) == [
        ("module.f", "First."),
        ("module.C", "A class."),
        ("module.C.h", "H."),
        ("package", "A package."),
    ]


@pytest.mark.parametrize("words", [1, 3, 7, 100])
def test_chunks_hold_every_word_once(words):
    document = Document("d", " one two\nthree  four five six seven ")
    chunks = cut(document, words)
    kept = [word for chunk in chunks for word in chunk.text.removeprefix("d: ").split()]
    assert kept == document.text.split()
    assert [chunk.id for chunk in chunks] == [f"d#{number}" for number in range(len(chunks))]
    assert all(len(chunk.text.split()) <= words + 1 for chunk in chunks)


def test_folder_of_all_kinds(tmp_path):
    (tmp_path / "b.txt").write_text("text of b")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.md").write_text("# Title\n\nmarkdown of a")
    (tmp_path / "c.jsonl").write_text('{"id": "c1", "text": "first"}\n\n{"id": "c2", "text": "second"}\n')
    (tmp_path / "d.pdf").write_bytes(b"\x00\xff")
    corpus = build({"source": "folder", "folder": str(tmp_path), "chunk_words": 80}, 0, "test")
    assert [document.id for document in corpus.documents] == ["b.txt", "c1", "c2", "sub/a.md"]


@pytest.mark.parametrize(
    "files, message",
    [
        ({}, "no text in"),
        ({"a.txt": " \n"}, "no text in"),
        ({"a.jsonl": '{"id": "a"}'}, "line 1: not a document"),
        ({"a.jsonl": "[1]"}, "line 1: not a document"),
        ({"a.jsonl": '{"id": "x", "text": "t"}\n{"id": "x", "text": "u"}'}, "two documents are called 'x'"),
    ],
    ids=["empty", "blank", "no text", "no object", "same id"],
)
def test_bad_folders(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match=message):
        build({"source": "folder", "folder": str(tmp_path), "chunk_words": 80}, 0, "test")


def test_missing_folder_and_other_bytes(tmp_path):
    with pytest.raises(BadInput, match="not a folder"):
        build({"source": "folder", "folder": str(tmp_path / "none"), "chunk_words": 80}, 0, "test")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match=r"a\.txt: cannot be read as UTF-8"):
        build({"source": "folder", "folder": str(tmp_path), "chunk_words": 80}, 0, "test")


def test_questions_have_sources_and_hold_the_module_out(stdlib):
    asked = questions(stdlib, 50, 3, "test")
    assert asked == questions(stdlib, 50, 3, "test") != questions(stdlib, 50, 4, "test")
    texts = {document.id: document.text.lower() for document in stdlib.documents}
    assert len({question.text for question in asked}) == len(asked) == 50
    for question in asked:
        keywords = question.text.rstrip("?").rsplit(" for ", 1)[1].split(", ")
        assert len(keywords) == KEYWORDS and all(word in texts[question.source] for word in keywords)
        assert question.source not in question.text
        assert not any(word in question.source.lower() for word in keywords)


def test_no_question_possible(tmp_path):
    (tmp_path / "a.txt").write_text("too short")
    corpus = build({"source": "folder", "folder": str(tmp_path), "chunk_words": 80}, 0, "test")
    with pytest.raises(BadInput, match="no document has the 3 words"):
        questions(corpus, 5, 0, "test")
