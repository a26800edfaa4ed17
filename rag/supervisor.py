"""Keeps the instances of a service running behind one address: it starts them, starts anew one that dies, and ends them all."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess

from analysis.cli import BadInput
from rag.board import Board
from rag.instance import Task, serve
from rag.settings import Settings

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE_S = 5.0
"""Seconds beyond the time to drain that an instance has to end by itself."""
FIRST_S, MOST_S, STEADY_S = 0.1, 60.0, 60.0
"""Seconds until an instance is started anew: so many the first time, twice as many each time, at most; from the first again once one was
ready for so long."""


@dataclass(eq=False)
class _Running:
    number: int
    process: BaseProcess
    control: Connection
    ready: float | None = None
    """When it was."""


class Supervisor:
    """The parent of the instances. `gpus` are what CUDA calls those of them, one each; empty where the models run elsewhere.

    One that dies is started anew, after a pause that grows where this comes to nothing. The whole ends where an instance is not ready
    in the first place, or none is any more and the next one does not get so far either.
    """

    def __init__(self, settings: Settings, listeners: Sequence[socket.socket], gpus: Sequence[str]) -> None:
        self.settings, self.listeners, self.gpus = settings, listeners, gpus
        self.board = Board(settings.instances)
        self._context = SpawnContext()
        self._running: dict[int, _Running] = {}
        self._pauses: dict[int, float] = {}
        self._due: dict[int, float] = {}
        """When to start which instance anew."""
        self._served = False
        self._signals, self._signal = os.pipe()
        self._until: float | None = None
        self._code = 0

    def run(self, on_ready: Callable[[], None]) -> int:
        """Serve until a signal ends it: 0 if all requests in hand were answered. `on_ready` is called once every instance answers.

        Raises BadInput for what an instance finds wrong with the user's input.
        """
        for what in SIGNALS:
            signal.signal(what, lambda *_: os.write(self._signal, b"s"))
        if self.settings.until_eof:
            threading.Thread(target=self._watch_input, daemon=True).start()
        try:
            for number in range(self.settings.instances):
                self._start(number, again=False)
            while self._running or self._due:
                self._step(on_ready)
            return self._code
        finally:
            self._end()

    def _step(self, on_ready: Callable[[], None]) -> None:
        """Wait for the next thing that happens, and do what follows from it."""
        running, times = dict(self._running), [*self._due.values(), *([] if self._until is None else [self._until])]
        happened = wait(
            [self._signals, *(one.control for one in running.values()), *(one.process.sentinel for one in running.values())],
            max(0.0, min(times) - time.monotonic()) if times else None,
        )
        now = time.monotonic()
        if not happened and self._until is not None and now >= self._until:
            self._stop(1)
        for number in [number for number, due in self._due.items() if due <= now]:
            del self._due[number]
            self._start(number, again=True)
        if self._signals in happened:
            self._told(os.read(self._signals, 1))
        for number, one in running.items():
            if one.control in happened:
                self._heard(one, on_ready)
            if one.process.sentinel in happened and number in self._running:
                self._ended(number, one)

    def _told(self, what: bytes) -> None:
        if what == b"e":
            return self._stop(0)  # nobody is there to be answered
        if self._until is not None:
            print("ending at once: a second signal", file=sys.stderr)
            return self._stop(1)
        self._until = time.monotonic() + self.settings.drain_s + GRACE_S
        self._due.clear()
        for listener in self.listeners:
            listener.close()
        for number, one in list(self._running.items()):
            if one.ready is not None:
                with contextlib.suppress(OSError):  # it has just died, as its sentinel will say
                    one.control.send("drain")
            else:
                self._kill(number)

    def _heard(self, one: _Running, on_ready: Callable[[], None]) -> None:
        try:
            said: str = one.control.recv()
        except (EOFError, OSError):
            return  # it ends: its sentinel says so
        if said == "ready":
            one.ready = time.monotonic()
            if not self._served and self._ready() == self.settings.instances:
                self._served = True
                on_ready()
        elif self._served:
            print(f"instance {one.number}: {said}", file=sys.stderr)  # and it ends, as its sentinel will say
        else:
            raise BadInput(said)

    def _ready(self) -> int:
        return sum(one.ready is not None for one in self._running.values())

    def _ended(self, number: int, one: _Running) -> None:
        """An instance has ended: as it was told to, or else another takes its place, unless there is no sense in that."""
        one.process.join()
        code = one.process.exitcode
        del self._running[number]
        one.control.close()
        if self._until is not None:
            self._code = self._code or int(code != 0)
        elif one.ready is None and not (self._served and self._ready()):
            print(f"error: instance {number} ended with code {code} before it was ready; its last lines are above", file=sys.stderr)
            self._stop(1)
        else:
            if self.settings.instances > 1:  # those that come until then go to the others: the new one listens once it is ready
                with contextlib.suppress(OSError):  # where it has not listened again yet
                    self.listeners[number].shutdown(socket.SHUT_RDWR)
            self.board.restarted(number)
            print(f"instance {number} ended with code {code}; another one starts in its place", file=sys.stderr)
            steady = one.ready is not None and time.monotonic() - one.ready >= STEADY_S
            self._pauses[number] = FIRST_S if steady or number not in self._pauses else min(MOST_S, 2 * self._pauses[number])
            self._due[number] = time.monotonic() + self._pauses[number]

    def _start(self, number: int, again: bool) -> None:
        control, theirs = self._context.Pipe()
        task = Task(self.settings, number, self.gpus[number] if self.gpus else None, again)
        process = self._context.Process(target=serve, args=(task, self.listeners[number], self.board, theirs), name=f"instance-{number}")
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until it ignores them, the new process must not see them
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self._running[number] = _Running(number, process, control)

    def _stop(self, code: int) -> None:
        self._code = code
        self._end()

    def _end(self) -> None:
        """End what still runs, at once, and start nothing more."""
        self._due.clear()
        for number in list(self._running):
            self._kill(number)

    def _kill(self, number: int) -> None:
        one = self._running.pop(number)
        one.control.close()
        one.process.kill()
        one.process.join()

    def _watch_input(self) -> None:
        """Tell of the end of standard input, which comes when the program that started this one dies, however it dies."""
        while os.read(0, 4096):
            pass
        os.write(self._signal, b"e")


def gpus(settings: Settings) -> list[str]:
    """What CUDA calls the GPUs of `settings.instances` instances; none where one instance takes what it finds, or the models run on a CPU.

    Raises BadInput where there are fewer GPUs.
    """
    if settings.instances == 1 or settings.device == "cpu":
        return []
    there = _visible()
    if not there and settings.device == "auto":
        return []
    if len(there) < settings.instances:
        raise BadInput(
            f"--instances {settings.instances}: there are {len(there)} GPUs, and each instance needs one (--device cpu shares the CPU)"
        )
    return there[: settings.instances]


def _visible() -> list[str]:
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    import pynvml

    try:
        pynvml.nvmlInit()
        return [str(number) for number in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []
