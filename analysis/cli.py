"""What every stage's command line shares: one clear line for bad input, and files that are never half-written."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path


class BadInput(ValueError):
    """A user's mistake. Its message names the file, key or argument, the value, and what would be right."""


def run(main: Callable[[], int | None]) -> None:
    """Run a command's `main` and exit: 0 or what it returns; 2 and one line on standard error for `BadInput` and for a full disk."""
    try:
        code = main()
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"error: {error.filename or 'a file'}: {error.strerror}; make room and give the same command again", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted; what was measured is in the journal", file=sys.stderr)
        code = 130
    sys.exit(code or 0)


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path` and rename it to `path` at the end; leave nothing behind on an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
