"""A thread that runs calls for an event loop, one after the other, and whose end is noticed however it comes."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any


class Crashed(RuntimeError):
    """What a request was in broke for a reason that is not its own; it has been started anew."""


class Worker:
    """Runs calls in a thread of its own, which ends with whatever a call raises that is not an Exception: that call then gets Crashed.

    A thread pool would not do: it neither starts another thread for one that has died nor fails what was waiting for it.
    """

    def __init__(self, name: str) -> None:
        self._loop, self._calls = asyncio.get_running_loop(), queue.SimpleQueue[Any]()
        self._in_hand: asyncio.Future[Any] | None = None
        self._dead: Crashed | None = None
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    def call(self, work: Callable[[Any], Any], given: Any) -> asyncio.Future[Any]:
        """The result of `work(given)`, or its exception. One call at a time. Raises Crashed where the thread has ended."""
        if self._dead:
            raise self._dead
        self._in_hand = self._loop.create_future()
        self._calls.put((self._in_hand, work, given))
        return self._in_hand

    def abandon(self) -> None:
        """End the thread after the call in hand, without waiting for it."""
        self._calls.put(None)

    async def join(self) -> None:
        """End the thread after the call in hand."""
        self.abandon()
        await asyncio.to_thread(self._thread.join)

    def _main(self) -> None:
        crashed = Crashed("the thread was ended")
        try:
            while (call := self._calls.get()) is not None:
                future, work, given = call
                try:
                    result, error = work(given), None
                except Exception as failure:
                    result, error = None, failure
                self._tell(_settle, future, result, error)
                del call, future, work, given, result, error  # or they would live until the next call
        except BaseException as failure:
            crashed = Crashed(f"its thread ended by {failure!r}")
            crashed.__cause__ = failure
        finally:
            self._tell(self._ended, crashed)

    def _tell(self, function: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is there to be told
            self._loop.call_soon_threadsafe(function, *arguments)

    def _ended(self, crashed: Crashed) -> None:
        self._dead = crashed
        if self._in_hand is not None:
            _settle(self._in_hand, None, crashed)


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if isinstance(error, StopIteration):  # which no future carries
        error = RuntimeError(f"the work raised {error!r}")
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
