"""On each node of a server's: starts its processes, says when one ends, and ends them all when whoever asked is gone.

`python -m rag.servers.agent SCRATCH LOGS` reads a JSON object a line from standard input and answers each with one on standard
output; in between it says {"ended": NAME, "code": CODE}. At the end of its input, and at SIGTERM, it ends every process below it,
daemons too, copies what they logged in the folder SCRATCH into the folder LOGS, and removes SCRATCH. It needs nothing but Python.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rag.servers import processes

GRACE_S = 3.0
"""Seconds between TERM and KILL: with what follows less than Slurm's KillWait, by default 30 and here and there 5."""
_KEPT_BYTES = 1 << 20


class Agent:
    """The processes of one node, by name."""

    def __init__(self, scratch: Path, logs: Path) -> None:
        self.scratch, self.logs = scratch, logs
        self._names: dict[int, str] = {}

    def start(self, name: str, command: list[str], env: dict[str, str]) -> dict[str, Any]:
        """Start a process in a session of its own, in the scratch folder, its temporary one too; what it says goes to LOGS/NAME.log."""
        environment = {**os.environ, "TMPDIR": str(self.scratch), **env}
        with (self.logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self.scratch,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=processes.end_with_parent,
            )
        process.returncode = 0  # `reap` waits for it
        self._names[process.pid] = name
        return {"pid": process.pid}

    def ports(self, host: str, count: int) -> dict[str, Any]:
        """Ports that are free on an address of this node now."""
        with contextlib.ExitStack() as stack:
            servers = [stack.enter_context(socket.create_server((host, 0))) for _ in range(count)]
            return {"ports": [server.getsockname()[1] for server in servers]}

    def free(self, host: str, port: int) -> dict[str, Any]:
        """Whether a port of this node can be listened on."""
        try:
            socket.create_server((host, port)).close()
        except OSError as error:
            return {"free": False, "why": os.strerror(error.errno or 0)}
        return {"free": True}

    def open(self, host: str, port: int) -> dict[str, Any]:
        """Whether something listens on a port."""
        try:
            socket.create_connection((host, port), timeout=2).close()
        except OSError:
            return {"open": False}
        return {"open": True}

    def titles(self) -> dict[str, Any]:
        """What runs: the command line, or the title it gave itself, of every process below this one, by its pid."""
        return {"titles": {pid: processes.title(pid) for pid in processes.below(os.getpid())}}

    def reap(self) -> Iterator[dict[str, Any]]:
        """Wait for every child that is over, adopted ones too; say which of those started by name ended, with Popen's code."""
        with contextlib.suppress(ChildProcessError):
            while (waited := os.waitpid(-1, os.WNOHANG))[0]:
                if name := self._names.pop(waited[0], None):
                    yield {"ended": name, "code": os.waitstatus_to_exitcode(waited[1])}

    def end(self) -> None:
        """End everything, the latest first; keep the logs; remove the scratch folder where no other agent uses it."""
        processes.end_all([*reversed(self._names)], GRACE_S, lambda: list(self.reap()))
        self._keep_logs()
        _mine(self.scratch).unlink(missing_ok=True)
        if not list(self.scratch.glob(".agent.*")):  # nodes of a testbed share the machine and so the folder
            shutil.rmtree(self.scratch, ignore_errors=True)

    def _keep_logs(self) -> None:
        """Copy the last MiB of each log file that the processes wrote into the scratch folder."""
        for path in sorted(self.scratch.rglob("*")):
            if path.suffix in (".log", ".out", ".err") and path.is_file() and not path.is_symlink() and path.stat().st_size:
                kept = self.logs.joinpath(*path.relative_to(self.scratch).parts)
                kept.parent.mkdir(parents=True, exist_ok=True)
                with path.open("rb") as file:
                    file.seek(max(0, path.stat().st_size - _KEPT_BYTES))
                    kept.write_bytes(file.read(_KEPT_BYTES))


def _mine(scratch: Path) -> Path:
    return scratch / f".agent.{os.getpid()}"


def gpus() -> int:
    """GPUs of this node that are ours: those that CUDA_VISIBLE_DEVICES names, else all that have a device file."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    return len([path for path in Path("/dev").glob("nvidia[0-9]*") if path.name[6:].isdigit()])


def _say(what: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # then its input ends too
        print(json.dumps(what), flush=True)


def _answer(agent: Agent, line: bytes) -> dict[str, Any]:
    """Do what one line asks; what the system refuses is an answer too."""
    asked = json.loads(line)
    try:
        return getattr(agent, asked.pop("do"))(**asked)
    except OSError as error:
        return {"error": f"{error.filename or asked}: {error.strerror}"}


def main() -> int:
    scratch, logs = Path(sys.argv[1]), Path(sys.argv[2])
    processes.adopt_orphans()
    for folder in (scratch, logs):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700 if folder == scratch else 0o777)
    _mine(scratch).touch()
    agent = Agent(scratch, logs)
    wake, alarm = socket.socketpair()
    alarm.setblocking(False)
    signal.set_wakeup_fd(alarm.fileno(), warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    _say({"host": socket.gethostname(), "pid": os.getpid(), "gpus": gpus()})
    try:
        _serve(agent, wake)
    finally:
        agent.end()
    return 0


def _serve(agent: Agent, wake: socket.socket) -> None:
    """Answer until standard input ends or a signal says so."""
    waiting = b""
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        selector.register(wake, selectors.EVENT_READ)
        while True:
            ready = {key.fd for key, _ in selector.select()}
            if wake.fileno() in ready and {signal.SIGTERM, signal.SIGINT} & set(wake.recv(4096)):
                return
            for ended in agent.reap():
                _say(ended)
            if sys.stdin.fileno() in ready:
                piece = os.read(sys.stdin.fileno(), 1 << 16)
                if not piece:
                    return
                *lines, waiting = (waiting + piece).split(b"\n")
                for line in lines:
                    _say(_answer(agent, line))


if __name__ == "__main__":
    sys.exit(main())
