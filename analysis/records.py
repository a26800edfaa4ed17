"""Raw records: a journal that survives a kill at any byte, and the typed Parquet gathered from it.

One file a process (never two writers), one JSON line a record, flushed to the disk before the next measurement starts.
A line cut short by a kill is dropped when read: its point has no record and is measured again.
"""

from __future__ import annotations

import datetime
import json
import os
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.cli import BadInput, replacing

Record = dict[str, Any]


class Journal:
    """The records that one process appends, in a file of its own under `folder`.

    The file is created with the first record, so that a process that measured nothing leaves nothing.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._file: Any = None

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record and wait until it is on the disk. Raises BadInput where there is no room for it."""
        try:
            if self._file is None:
                self._file = self._created()
            self._file.write(json.dumps(record, sort_keys=True, allow_nan=True) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            path, self._file = error.filename or self._file.name, None  # what follows a torn line goes into a file of its own
            raise BadInput(f"{path}: {error.strerror}; make room and give the same command again, nothing recorded is lost") from error

    def _created(self) -> Any:
        self.folder.mkdir(parents=True, exist_ok=True)
        now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S.%f")
        return (self.folder / f"{now}-{socket.gethostname()}-{os.getpid()}.jsonl").open("x", encoding="utf-8")

    @property
    def used(self) -> bool:
        """Whether this process appended anything."""
        return self._file is not None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a record appended later starts a file of its own."""
        if self._file is not None:
            self._file.close()
            self._file = None


def read_journal(folder: Path | str, needs: Sequence[str] = ()) -> list[Record]:
    """Every record that `journal_records` gives."""
    return list(journal_records(folder, needs))


def journal_records(folder: Path | str, needs: Sequence[str] = ()) -> Iterator[Record]:
    """Every whole record of every journal file under `folder`, oldest file first; none where there is no folder.

    Raises BadInput for a line that is damaged anywhere but at the torn end of a file, and for a record without a field of `needs`.
    """
    for path in sorted(Path(folder).glob("*.jsonl")):
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    print(f"note: {path}: the last record was cut short and is measured again", file=sys.stderr)
                    break
                try:
                    record = json.loads(line)
                except ValueError:
                    raise BadInput(f"{path}, line {number}: not a JSON record; move the file away to measure its points again") from None
                missing = [name for name in needs if name not in record] if isinstance(record, dict) else ["any field"]
                if missing:
                    what = f"a record without {', '.join(missing)}, so not of this version's format"
                    raise BadInput(f"{path}, line {number}: {what}; move the file away to measure its points again")
                yield record


def gather(records: Iterable[Record], key: Sequence[str]) -> tuple[list[Record], int]:
    """Keep the first record of each `key` (the fields that identify one); also return how many others were dropped."""
    kept: dict[tuple[Any, ...], Record] = {}
    total = 0
    for record in records:
        total += 1
        kept.setdefault(tuple(record[name] for name in key), record)
    return list(kept.values()), total - len(kept)


def write_parquet(path: Path | str, rows: Sequence[Record], notes: Mapping[str, Any] | None = None, columns: Sequence[str] = ()) -> None:
    """Write `rows` (dicts; nested values stay nested lists, mappings become JSON text) to `path` as Parquet.

    `notes` goes into the file's metadata under the key `blockwise`. Columns are typed by their values; rows may lack some;
    those of `columns` are there even where no row has them.
    """
    import pyarrow as pa

    def plain(value: Any) -> Any:
        return json.dumps(value, sort_keys=True) if isinstance(value, Mapping) else value

    names = list(dict.fromkeys([*columns, *(name for row in rows for name in row)]))
    table = pa.table({name: [plain(row.get(name)) for row in rows] for name in names})
    write_table(path, table, notes or {})


def write_table(path: Path | str, table: Any, notes: Mapping[str, Any]) -> None:
    """Write a pyarrow table to `path` as Parquet, with `notes` in its metadata."""
    import pyarrow.parquet as pq

    metadata = {**(table.schema.metadata or {}), b"blockwise": json.dumps(dict(notes), sort_keys=True).encode()}
    with replacing(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd")


def read_parquet(path: Path | str, needs: Sequence[str] = ()) -> Any:
    """The records of `path` as a pandas DataFrame.

    Raises BadInput for a file that is missing, damaged, or lacks one of the columns in `needs`.
    """
    import pandas as pd
    import pyarrow as pa

    if not Path(path).is_file():
        raise BadInput(f"{path}: no such record file; name one that a stage made, such as results/smoke/sweep/knn.cpu.parquet")
    try:
        frame = pd.read_parquet(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadInput(f"{path}: not a Parquet record file ({str(error).splitlines()[0]}); make it again or restore it") from None
    missing = [name for name in needs if name not in frame]
    if missing:
        raise BadInput(f"{path}: no column {', '.join(missing)}; it was not made by this version of the stage")
    return frame


def read_notes(path: Path | str) -> dict[str, Any]:
    """The notes that `write_parquet` left in the file's metadata; empty where there are none."""
    import pyarrow.parquet as pq

    notes: dict[str, Any] = json.loads((pq.read_schema(path).metadata or {}).get(b"blockwise", b"{}"))
    return notes
