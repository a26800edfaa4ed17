"""How every command ends: one line for a user's mistake and for a full disk, and everything else as it is."""

from __future__ import annotations

import errno
import os

import pytest

from analysis.cli import BadInput, run


def raising(error: BaseException):
    def main() -> int:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        pytest.param(BadInput("config: no"), 2, "error: config: no\n", id="bad input"),
        pytest.param(
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out.parquet"),
            2,
            "error: out.parquet: No space left on device; make room and give the same command again\n",
            id="full disk",
        ),
        pytest.param(
            OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
            2,
            "error: a file: Disk quota exceeded; make room and give the same command again\n",
            id="quota",
        ),
        pytest.param(KeyboardInterrupt(), 130, "interrupted; what was measured is in the journal\n", id="interrupt"),
    ],
)
def test_it_ends_in_one_line(capsys: pytest.CaptureFixture[str], error: BaseException, code: int, line: str):
    with pytest.raises(SystemExit) as ended:
        run(raising(error))
    assert ended.value.code == code
    assert capsys.readouterr().err == line


def test_a_defect_is_not_hidden():
    with pytest.raises(FileNotFoundError):
        run(raising(FileNotFoundError(errno.ENOENT, "gone", "x")))


@pytest.mark.parametrize(("value", "code"), [(None, 0), (0, 0), (3, 3)])
def test_what_main_returns_is_the_status(value: int | None, code: int):
    with pytest.raises(SystemExit) as ended:
        run(lambda: value)
    assert ended.value.code == code
