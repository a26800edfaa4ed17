"""What a run has no time for: points pruned, failed or wrong, requests not answered, variants that do not compile, failed checks."""

from __future__ import annotations

from pathlib import Path

from analysis.measured import Frame, read, without_wrong

Row = tuple[str, str, int, str, str]


def unmeasured(folder: Path) -> list[Row]:
    """(experiment, backend or arm, how many, status, the first one's reason), in the order of the stages.

    What stopped early in a sweep has a time, if not of all samples.
    """
    rows: list[Row] = []
    for stage, column, fine, by, text in (
        ("compile", "verdict", ["ok"], "backend", "reason"),
        ("validate", "ok", [True], "backend", "message"),
        ("sweep", "status", ["measured", "stopped"], "backend", "reason"),
        ("bench", "status", ["measured"], "backend", "reason"),
        ("rag", "status", ["ok"], "arm", "status"),
    ):
        for path in sorted((folder / stage).glob("*.parquet")):
            frame = without_wrong(read(path, (column, by, text))) if column == "status" else read(path, (column, by, text))
            lacking = frame[~frame[column].isin(fine)]
            name = f"{stage} {path.name.removesuffix('.parquet')}"
            rows += [_row(name, key, group, text) for key, group in lacking.groupby([by, column], sort=True)]
    return rows


def _row(name: str, key: tuple[object, ...], group: Frame, text: str) -> Row:
    who, status = key
    first = str(group[text].iloc[0] or "")
    said = "wrong result" if status is False else str(status)
    return name, str(who), len(group), said, first if first != said else ""
