"""How a server fails: in one clear error, with the end of the log that says why."""

from __future__ import annotations

from pathlib import Path

_LINES, _BYTES = 20, 1 << 16


class ServerFailed(RuntimeError):
    """A server did not start, was not ready in time, answered wrongly or ended: the message says which, and quotes a log if any."""


def failed(what: str, log: Path | None = None) -> ServerFailed:
    """`what`, and the end of `log`."""
    return ServerFailed(f"{what}; the end of {log}:\n{tail(log)}" if log else what)


def tail(log: Path) -> str:
    """The last lines of a log; where it cannot be read, that it cannot."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError as error:
        return f"({error.strerror})"
    return "\n".join(text.splitlines()[-_LINES:])
