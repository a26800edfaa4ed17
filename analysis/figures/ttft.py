"""How long until the first token, from when a request was due? RAG records of streamed answers; as the figure `latency`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from analysis import style
from analysis.cli import run
from analysis.figures import command, latency
from analysis.load import latencies
from analysis.measured import requests


def draw(records: Path | str) -> Any:
    """The figure; it says so where no answer was streamed."""
    frame = requests(records)
    if not (latencies(frame, "first_token_s") < float("inf")).any():
        return style.message("No time to first token: no answer was streamed (the load's key stream).")
    return latency.draw(records, until="first_token_s")


def main() -> int:
    return command(draw, "Draw the distributions of the time to first token of a RAG experiment.")


if __name__ == "__main__":
    run(main)
