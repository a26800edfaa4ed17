"""Journals that survive a kill at any byte, and the Parquet gathered from them."""

from __future__ import annotations

import errno
import json
import math
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.cli import BadInput
from analysis.records import Journal, gather, read_journal, read_notes, read_parquet, write_parquet

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
records = st.lists(st.dictionaries(st.text(max_size=8), values, max_size=4), max_size=6)


def journal(folder: Path, rows: list[dict[str, object]]) -> Path:
    """Write `rows` as one process would, and return the file that this made."""
    before = set(folder.glob("*"))
    with Journal(folder) as writer:
        for row in rows:
            writer.append(row)
    return next(iter(set(folder.glob("*")) - before), folder / "nothing")


@settings(deadline=None, max_examples=60)
@given(records)
def test_what_is_appended_is_read(rows: list[dict[str, object]]):
    with tempfile.TemporaryDirectory() as folder:
        journal(Path(folder), rows)
        assert read_journal(folder) == rows


@settings(deadline=None, max_examples=100)
@given(records.filter(bool), st.data())
def test_a_writer_killed_at_any_byte_loses_at_most_the_record_it_was_writing(rows: list[dict[str, object]], data: st.DataObject):
    with tempfile.TemporaryDirectory() as folder:
        path = journal(Path(folder), rows)
        content = path.read_bytes()
        cut = data.draw(st.integers(0, len(content)), label="bytes that reached the disk")
        path.write_bytes(content[:cut])
        whole = content[:cut].count(b"\n")
        assert read_journal(folder) == rows[:whole]


def test_the_next_attempt_after_a_kill_writes_a_file_of_its_own(tmp_path: Path):
    torn = journal(tmp_path, [{"point": 1}, {"point": 2}])
    torn.write_bytes(torn.read_bytes()[:-4])
    second = journal(tmp_path, [{"point": 2}])
    assert second != torn
    assert read_journal(tmp_path) == [{"point": 1}, {"point": 2}]


def test_a_torn_line_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.jsonl").write_bytes(b'{"point": 1}\n{"poi')
    assert read_journal(tmp_path) == [{"point": 1}]
    assert "cut short" in capsys.readouterr().err


def test_a_damaged_line_in_the_middle_is_named_with_its_number(tmp_path: Path):
    (tmp_path / "a.jsonl").write_bytes(b'{"point": 1}\n{"poi\n{"point": 3}\n')
    with pytest.raises(BadInput, match=r"a.jsonl, line 2: not a JSON record"):
        read_journal(tmp_path)


def test_a_process_that_measured_nothing_leaves_nothing(tmp_path: Path):
    with Journal(tmp_path / "journal"):
        pass
    assert not (tmp_path / "journal").exists()
    assert read_journal(tmp_path / "journal") == []


def test_every_record_is_on_the_disk_before_the_next(tmp_path: Path):
    writer = Journal(tmp_path)
    for number in range(3):
        writer.append({"point": number})
        (path,) = tmp_path.iterdir()
        assert len(path.read_bytes().splitlines()) == number + 1
    writer.close()


@pytest.mark.parametrize("refuses", ["mkdir", "open"])
def test_no_room_for_the_first_record_is_one_line(refuses: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, refuses, full)
    with pytest.raises(BadInput, match=r"journal.*: No space left on device; make room and give the same command again"):
        Journal(tmp_path / "journal").append({"point": 1})


def test_no_room_for_a_further_record_is_one_line_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    writer = Journal(tmp_path)
    writer.append({"point": 1})
    with monkeypatch.context() as patched, pytest.raises(BadInput, match="Disk quota exceeded; make room"):
        patched.setattr("analysis.records.os.fsync", refuse)
        writer.append({"point": 2})
    writer.append({"point": 3})
    assert {"point": 1} in read_journal(tmp_path) and {"point": 3} in read_journal(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def refuse(descriptor: int) -> None:
    raise OSError(errno.EDQUOT, "Disk quota exceeded")


def test_gather_keeps_the_first_of_a_key_and_counts_the_others():
    keys = [("a", 1), ("a", 1), ("a", 2), ("b", 1)]
    rows = [{"point": point, "attempt": attempt, "line": line} for line, (point, attempt) in enumerate(keys)]
    kept, dropped = gather(rows, ("point", "attempt"))
    assert [row["line"] for row in kept] == [0, 2, 3]
    assert dropped == 1


def test_parquet_is_typed_by_its_values(tmp_path: Path):
    rows = [
        {"point": "a", "attempt": 1, "samples_ms": [1.0, 2.5], "problem": {"n": 3, "d": 2}, "winner": True, "noise": None},
        {"point": "b", "attempt": 2, "samples_ms": [], "problem": {"n": 4}, "winner": False, "noise": 0.5, "reason": "späte Spalte"},
    ]
    write_parquet(tmp_path / "a.parquet", rows, {"duplicates": 3})
    schema = pq.read_schema(tmp_path / "a.parquet")
    types = {name: str(schema.field(name).type) for name in schema.names}
    assert types["attempt"] == "int64"
    assert types["samples_ms"].startswith("list<") and "double" in types["samples_ms"]
    assert (types["winner"], types["noise"]) == ("bool", "double")
    assert read_notes(tmp_path / "a.parquet") == {"duplicates": 3}
    frame = read_parquet(tmp_path / "a.parquet", ("point", "samples_ms"))
    assert frame["samples_ms"].map(list).tolist() == [[1.0, 2.5], []]
    assert frame["problem"].map(json.loads).tolist() == [{"n": 3, "d": 2}, {"n": 4}]
    assert math.isnan(frame["noise"][0])
    assert frame["reason"][1] == "späte Spalte"


@pytest.mark.parametrize("content", [None, b"", b"PAR1 torn PAR1"], ids=["missing", "empty", "torn"])
def test_a_file_that_is_no_record_file_is_named(content: bytes | None, tmp_path: Path):
    path = tmp_path / "knn.cpu.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput, match=r"knn.cpu.parquet"):
        read_parquet(path)


def test_a_missing_column_is_named(tmp_path: Path):
    write_parquet(tmp_path / "a.parquet", [{"point": 1}])
    with pytest.raises(BadInput, match="no column samples_ms, noise"):
        read_parquet(tmp_path / "a.parquet", ("point", "samples_ms", "noise"))


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "a.parquet"
    write_parquet(path, [{"point": 1}])
    before = path.read_bytes()
    with pytest.raises(pa.ArrowInvalid):
        write_parquet(path, [{"point": object()}])
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["a.parquet"]
