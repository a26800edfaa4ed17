"""Join the record files of an experiment's shards into one.

    python -m kernels.join shards/knn.cpu.1.parquet shards/knn.cpu.2.parquet --out knn.cpu.parquet

Rows stand as they are, one shard after the other. Of the notes, duplicates are added up, and each job's account is there once: the
shards share a journal, so that each shard's file has the accounts that were there when it was written.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.cli import BadInput, run
from analysis.records import read_notes, write_table


def joined_notes(notes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The notes of several shards as those of one job's file."""
    jobs: dict[str, dict[str, Any]] = {}
    for job in (job for each in notes for job in each.get("jobs", ())):
        jobs[job["job"]] = max(job, jobs.get(job["job"], job), key=lambda account: account["ended"])  # a process's last account counts
    return {**notes[0], "duplicates": sum(each.get("duplicates", 0) for each in notes), "jobs": list(jobs.values())}


def join(paths: Sequence[Path], out: Path) -> None:
    """Write the rows of `paths` to `out`. Raises BadInput for a file that is no record file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables, notes = [], []
    for path in paths:
        try:
            tables.append(pq.read_table(path))
            notes.append(read_notes(path))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise BadInput(f"{path}: not a Parquet record file ({str(error).splitlines()[0]}); remove it, and it is made again") from None
    # a column that no row of a shard fills has no type there, and takes that of the others
    table = pa.concat_tables(tables, promote_options="permissive")
    write_table(out, table, joined_notes(notes))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", nargs="+", type=Path, help="record files of the shards")
    parser.add_argument("--out", required=True, type=Path, help="record file to write (Parquet)")
    options = parser.parse_args()
    join(options.shards, options.out)
    return 0


if __name__ == "__main__":
    run(main)
