"""Corpora are the same on every run, whole, and their questions lead back to them."""

import os
import shutil
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.cli import BadInput
from rag import docstrings, libraries
from rag.corpus import Chunk, Corpus, Document, build, cut, part
from rag.questions import KEYWORDS, questions

STDLIB = {"source": "stdlib", "chunk_words": 40, "limit": 200}


@pytest.fixture(autouse=True)
def cache(scratch, monkeypatch):
    monkeypatch.setenv("BLOCKWISE_SCRATCH", str(scratch))


@pytest.fixture(scope="module")
def stdlib(scratch):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BLOCKWISE_SCRATCH", str(scratch))
        return build(STDLIB, 7, "test")


def test_the_stdlib_s_corpus_is_deterministic(stdlib):
    again = build(STDLIB, 7, "test")
    assert stdlib == again and stdlib.digest == again.digest
    assert len(stdlib.documents) == 200 and len({chunk.id for chunk in stdlib.chunks}) == len(stdlib.chunks)
    assert build(STDLIB, 8, "test").digest != stdlib.digest
    assert build({**STDLIB, "chunk_words": 41}, 7, "test").digest != stdlib.digest


def test_docstrings_are_those_of_the_library():
    import fractions
    import json.decoder

    found = dict(libraries.stdlib())
    assert len(found) > 4000 and len(set(found.values())) == len(found)
    assert found["json.decoder.JSONDecoder.raw_decode"].split() == json.decoder.JSONDecoder.raw_decode.__doc__.split()
    assert found["fractions.Fraction"].split() == fractions.Fraction.__doc__.split()


def test_packages_are_those_that_are_installed(tmp_path, monkeypatch):
    """Two of them, as all would take a while; what `inspect` says of them is the oracle."""
    import inspect

    import jinja2
    import tqdm

    site = tmp_path / "site-packages"
    site.mkdir()
    for package in (jinja2, tqdm):
        shutil.copytree(Path(package.__file__).parent, site / package.__name__)
    monkeypatch.setattr("sys.path", [str(tmp_path), str(site), str(tmp_path / "none" / "site-packages")])
    found = dict(libraries.packages())
    assert found["jinja2.environment.Template.render"] == inspect.getdoc(jinja2.Template.render)
    assert found["tqdm.std.tqdm"] == inspect.getdoc(tqdm.tqdm)
    assert {name.split(".")[0] for name in found} == {"jinja2", "tqdm"}


def test_docstrings_of_a_tree(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text('"""A package."""\nraise SystemExit("imported")')
    (tmp_path / "_module.py").write_text(
        'try:\n    def f():\n        """First."""\nexcept ImportError:\n    def f():\n        """Second."""\n'
        'class C:\n    """A class."""\n    def _g(self):\n        """Hidden."""\n    async def h(self):\n        """H."""\n'
    )
    for name in ("template.py", "tests/t.py", "test_t.py", "site-packages/other.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('"""Left out."""' + " {{ }}" * (name == "template.py"))
    found = [document for file in docstrings.files(tmp_path) for document in docstrings.read(file)]
    assert found == [
        ("_module.f", "First."),
        ("_module.C", "A class."),
        ("_module.C.h", "H."),
        ("package", "A package."),
    ]


LONG = "A text that is long enough"


def test_equal_names_and_texts_count_once_and_short_texts_do_not(tmp_path):
    for folder, texts in {"one": {"a": LONG, "b": "See above."}, "two": {"a": f"{LONG} too", "c": LONG, "d": f"{LONG} as well"}}.items():
        (tmp_path / folder).mkdir()
        for name, text in texts.items():
            (tmp_path / folder / f"{name}.py").write_text(f'"""{text}"""')
    assert libraries.documents([tmp_path / "one", tmp_path / "two"]) == [("a", LONG), ("d", f"{LONG} as well")]


def test_what_was_read_is_kept_until_a_file_changes(tmp_path, monkeypatch):
    file = tmp_path / "a.py"
    file.write_text(f'"""{LONG}."""')
    assert libraries.documents([tmp_path]) == [("a", f"{LONG}.")]
    with monkeypatch.context() as patch:
        patch.setattr(docstrings, "read", lambda file: pytest.fail("read again"))
        assert libraries.documents([tmp_path]) == [("a", f"{LONG}.")]
    file.write_text(f'"""{LONG}!"""')
    os.utime(file, (1, 1))
    assert libraries.documents([tmp_path]) == [("a", f"{LONG}!")]


def test_files_that_are_none_and_text_that_is_none(tmp_path):
    (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere.py")
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "half.py").write_text('"""Half a pair \\ud800 of surrogates is left out."""')
    (tmp_path / "zero.py").write_bytes(b'"""A file with a zero byte in it."""\0')
    assert libraries.documents([tmp_path]) == [("half", "Half a pair  of surrogates is left out.")]


def test_several_processes_read_what_one_does(monkeypatch):
    files = list(docstrings.files(Path(sysconfig.get_paths()["stdlib"]) / "email"))
    alone = libraries._read(files)
    monkeypatch.setattr(libraries, "_FEW", 0)
    assert libraries._read(files) == alone and len(alone) > 100


@pytest.mark.parametrize("words", [1, 3, 7, 100])
def test_chunks_hold_every_word_once(words):
    document = Document("d", " one two\nthree  four five six seven ")
    chunks = cut(document, words)
    kept = [word for chunk in chunks for word in chunk.text.removeprefix("d: ").split()]
    assert kept == document.text.split()
    assert [chunk.id for chunk in chunks] == [f"d#{number}" for number in range(len(chunks))]
    assert all(len(chunk.text.split()) <= words + 1 for chunk in chunks)


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 4), min_size=1, max_size=12), seed=st.integers(0, 9), numbers=st.data())
def test_a_part_has_its_own_chunks_and_those_of_the_sources_first(lengths, seed, numbers):
    chunks = [Chunk(f"{name}#{at}", str(name), f"{name}: text {at}") for name, length in enumerate(lengths) for at in range(length)]
    whole = Corpus(tuple(Document(str(name), "text") for name in range(len(lengths))), tuple(chunks))
    sources = numbers.draw(st.sets(st.sampled_from([document.id for document in whole.documents])))
    wanted = {chunk.id for chunk in chunks if chunk.document in sources}
    smaller = set()
    for number in range(1, len(chunks) + 1):
        some, rows = part(whole, number, sources, seed, "here")
        ids = {chunk.id for chunk in some.chunks}
        assert some.chunks == tuple(whole.chunks[row] for row in rows) and len(ids) == number and (np.diff(rows) > 0).all()
        assert ids >= wanted or ids <= wanted
        assert smaller < ids and {document.id for document in some.documents} == {chunk.document for chunk in some.chunks}
        smaller = ids
    with pytest.raises(BadInput, match=f"here: {number + 1}, but the corpus has {number}; give at most"):
        part(whole, number + 1, sources, seed, "here")


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
        ({"a.jsonl": '{"id": "a", "text": "b"}\n{"id": "c", "text": "\\ud800"}'}, "line 2: not a document"),
        ({"a.jsonl": '{"id": "x", "text": "t"}\n{"id": "x", "text": "u"}'}, "two documents are called 'x'"),
    ],
    ids=["empty", "blank", "no text", "no object", "half a surrogate", "same id"],
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
        assert question.source not in question.text or "." not in question.source
        assert not any(word in question.source.lower() for word in keywords)


def test_no_question_possible(tmp_path):
    (tmp_path / "a.txt").write_text("too short")
    corpus = build({"source": "folder", "folder": str(tmp_path), "chunk_words": 80}, 0, "test")
    with pytest.raises(BadInput, match="no document has the 3 words"):
        questions(corpus, 5, 0, "test")
