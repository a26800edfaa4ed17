"""Serve one arm of an experiment over HTTP: `python -m rag.service --config config/smoke.yaml --name batching --arm batched`."""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
import threading
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from analysis.cli import BadInput, run
from rag import config

READY = "ready "
"""What the line on standard output begins with that says, with the address after it, that requests are answered."""


def main() -> None:
    arguments = _parser().parse_args()
    experiment = config.read(arguments.config, arguments.name)
    arm = experiment.arm(arguments.arm)
    with _listen(arguments.host, arguments.port) as listener:
        _serve(experiment, arm, arguments, listener)


def _serve(experiment: config.Experiment, arm: dict[str, object], arguments: argparse.Namespace, listener: socket.socket) -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import uvicorn

    from rag import api, components
    from rag.batched import batched
    from rag.course import course

    host, port = listener.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    settings, failures = experiment.settings, list[BaseException]()

    def opening() -> AbstractAsyncContextManager[api.Engine]:
        def load() -> components.Components:
            return components.load(experiment, arm, arguments.device)

        if arm["service"] == "course":
            return course(load, settings["k"])
        return batched(load, arm, settings["k"], settings["load"]["deadline_s"])

    def on_failure(error: BaseException) -> None:
        failures.append(error)
        server.should_exit = True

    app = api.application(opening, lambda: print(f"{READY}{address}", flush=True), on_failure)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=5))
    if arguments.until_eof:
        threading.Thread(target=_end_at_eof, args=(server,), daemon=True).start()
    print(f"loading; will answer at {address}/rag (interrupt to end)", file=sys.stderr)
    server.run(sockets=[listener])
    if failures:
        raise failures[0]


def _listen(host: str, port: int) -> socket.socket:
    """A socket bound to `host` and `port` (0: a free one), before anything is loaded. Raises BadInput where that cannot be."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with contextlib.ExitStack() as undo:
            listener = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            undo.pop_all()
            return listener
    except (OSError, OverflowError) as error:
        raise BadInput(f"--host {host} --port {port}: cannot listen there ({error}); --port 0 takes a free port") from None


def _end_at_eof(server: object) -> None:
    """End the server when standard input closes, as it does when the program that started this one dies, however it dies."""
    sys.stdin.buffer.read()
    server.should_exit = True  # type: ignore[attr-defined]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rag.service", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="a config with a block rag, such as config/smoke.yaml")
    parser.add_argument("--name", required=True, help="which experiment of that block")
    parser.add_argument("--arm", required=True, help="which of the experiment's arms to serve")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where the models run; auto: a GPU, if any")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; the default is reachable from this machine only")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on; 0 takes a free one and prints it")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input closes (for the programs that start this one)")
    return parser


if __name__ == "__main__":
    run(main)
