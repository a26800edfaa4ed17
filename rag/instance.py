"""One process of the service: it loads one engine and answers what comes in at its socket, until its parent tells it to end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from analysis.cli import BadInput
from analysis.environment import usable_cores
from rag import config
from rag.board import Board
from rag.settings import Settings

LOST, UNANSWERED = 3, 4
"""Exit codes: the device cannot be used by this process any more; requests were not answered within the time to drain."""
SWITCH_S = 0.0005
"""How long a thread may keep the others from Python: a stage asks for it before each kernel, and would wait Python's 5 ms every time."""
LAST_S = 5.0
"""Seconds for the answers in hand after the device is lost, which are refusals."""


@dataclass(frozen=True)
class Task:
    """What an instance is started for: its number, the GPU that it is to use (None: whichever), and whether it replaces one that died."""

    settings: Settings
    number: int
    gpu: str | None
    again: bool


def serve(task: Task, listener: socket.socket, board: Board, control: Connection) -> None:
    """Serve until `control` says "drain" (answer what is in hand, then end) or is closed (end at once); the body of a new process.

    Sends "ready" once requests are answered, or the message of a BadInput. Signals are for the parent, which gets them too.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whoever started the service reads no more there than that it is ready
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.setswitchinterval(SWITCH_S)
    if task.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = task.gpu
    elif task.settings.instances > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // task.settings.instances)))
    sys.exit(_Instance(task, listener, board, control).run())


class _Instance:
    def __init__(self, task: Task, listener: socket.socket, board: Board, control: Connection) -> None:
        from rag.drain import Drain
        from rag.metrics import Metrics

        self.task, self.listener, self.board, self.control = task, listener, board, control
        self.metrics, self.drain = Metrics(board, task.number), Drain()
        self.code = 0
        self._ending: asyncio.Task[None] | None = None

    def run(self) -> int:
        import uvicorn

        from rag import api

        class Server(uvicorn.Server):
            """Without handlers of signals of its own."""

            @contextlib.contextmanager
            def capture_signals(self) -> Iterator[None]:
                yield

        again = self.task.again and self.task.settings.instances > 1
        self.app = app = api.application(self._opening, self._ready, self._failed, self.metrics, self.drain, ready_first=again)
        self.server = Server(uvicorn.Config(app, log_level="warning", lifespan="on", access_log=False, timeout_graceful_shutdown=1))
        self.server.run(sockets=[self.listener])
        return self.code

    @contextlib.asynccontextmanager
    async def _opening(self) -> AsyncIterator[Any]:
        self.loop = asyncio.get_running_loop()
        threading.Thread(target=self._obey, daemon=True).start()
        async with await asyncio.to_thread(self._engine) as engine:
            yield engine

    def _engine(self) -> AbstractAsyncContextManager[Any]:
        """The engine, to be opened. It imports for seconds."""
        from rag import components, models
        from rag.batched import batched
        from rag.course import course
        from rag.echo import Echo

        settings = self.task.settings
        experiment = config.read(settings.config, settings.name)
        arm, k, deadline_s = experiment.arm(settings.arm), experiment.settings["k"], experiment.settings["load"]["deadline_s"]

        def load() -> components.Components:
            loaded = components.load(experiment, arm, settings.device)
            if k > (chunks := loaded.facts["chunks"]):
                raise BadInput(f"{experiment.where}.k: {k} chunks a request, and {chunks} are all there are")
            return loaded

        if arm["service"] == "course":
            return course(load, k, self)
        if arm["service"] == "echo":
            return batched(lambda: Echo(models.torch_device(settings.device)), arm, k, deadline_s, self)
        return batched(load, arm, k, deadline_s, self)

    def watch(self, stage: Any) -> None:
        self.metrics.watch(stage)

    def busy(self, running: int) -> None:
        self.board.tell(self.task.number, running)

    def lost(self, error: Exception) -> None:
        traceback.print_exception(error)
        print(f"instance {self.task.number}: {error}", file=sys.stderr)
        self._end(LAST_S, LOST)

    def _ready(self) -> None:
        gc.collect()
        gc.freeze()  # a full collection would go through all of PyTorch's objects, and hold every request up for a quarter of a second
        self.control.send("ready")

    def _failed(self, error: BaseException) -> None:
        self.code = 1
        if isinstance(error, BadInput):
            self.control.send(str(error))
        else:
            traceback.print_exception(error)
        self.server.should_exit = True

    def _obey(self) -> None:
        """Do what the parent says, in a thread."""
        with contextlib.suppress(EOFError, OSError):
            while self.control.recv() == "drain":
                self.loop.call_soon_threadsafe(self._end, self.task.settings.drain_s, 0)
        os._exit(self.code)

    def _end(self, seconds: float, code: int) -> None:
        """Let nothing in any more, wait for the answers in hand, and end; the first call counts."""

        async def ending() -> None:
            left = await self.drain.run(seconds)
            if left:
                print(f"instance {self.task.number}: {left} requests were not answered within {seconds:g} s", file=sys.stderr)
                self.app.state.end.set()
            self.code = code or (UNANSWERED if left else 0)
            self.server.should_exit = True

        if self._ending is None:
            self._ending = asyncio.ensure_future(ending())
