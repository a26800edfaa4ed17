"""`python -m rag.service` whose echo stages break when a query says so; `campaign.py` starts it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # before this folder, which has a kernels.py

from analysis.cli import run
from rag import echo, service
from rag.batcher import Lost
from rag.pipeline import Ask, Found

STALL_S = 0.6


class Breaking(echo.Echo):
    """The first word of a query is what happens while its batch is looked up."""

    def find(self, asks: Sequence[Ask]) -> list[Found]:
        for word in {ask.query.split()[0] for ask in asks}:
            if word == "poison":
                raise ZeroDivisionError("a poisoned request")
            if word == "exit":
                raise SystemExit  # the stage's thread ends
            if word == "lost":
                raise Lost("as if the GPU's context were of no use any more")
            if word == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if word == "stall":
                time.sleep(STALL_S)  # the fault itself: a stage that takes too long
        return super().find(asks)


echo.Echo = Breaking  # type: ignore[misc]  # in the instances too, which import the main module of their parent

if __name__ == "__main__":
    run(service.main)
