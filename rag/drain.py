"""The end of a service: nothing new is let in, and what was let in is answered first."""

from __future__ import annotations

import asyncio
import contextlib


class Drain:
    """Counts the requests that were let in and are not answered yet. `begun`: no more are let in."""

    def __init__(self) -> None:
        self.begun = False
        self._admitted = 0
        self._empty = asyncio.Event()

    def enter(self) -> bool:
        """Whether the request that comes now is one to wait for; it then has to `leave`."""
        if self.begun:
            return False
        self._admitted += 1
        return True

    def leave(self) -> None:
        self._admitted -= 1
        if self.begun and not self._admitted:
            self._empty.set()

    async def run(self, seconds: float) -> int:
        """Let nothing in any more, wait for what was, `seconds` at most; the number of requests that are not answered even so."""
        self.begun = True
        if self._admitted:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), seconds)
        return self._admitted
