"""Serve one arm of an experiment over HTTP: `python -m rag.service --config config/smoke.yaml --name batching --arm batched`."""

from __future__ import annotations

import contextlib
import socket
import sys

from analysis.cli import BadInput, run
from rag import config, settings
from rag.settings import Settings
from rag.supervisor import Supervisor, gpus

READY = "ready "
"""What the line on standard output begins with that says, with the address after it, that requests are answered."""


def main() -> int:
    chosen = settings.read(sys.argv[1:], __doc__)
    config.read(chosen.config, chosen.name).arm(chosen.arm)
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(listener) for listener in listen(chosen)]
        host, port = listeners[0].getsockname()[:2]
        address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        supervisor = Supervisor(chosen, listeners, gpus(chosen))
        print(f"loading; will answer at {address}/rag (interrupt to end)", file=sys.stderr)
        return supervisor.run(lambda: print(f"{READY}{address}", flush=True))


def listen(settings: Settings) -> list[socket.socket]:
    """Listening sockets at one address, one an instance, among which the kernel spreads the connections.

    Where an instance is started anew, the others get its share meanwhile; one alone keeps its socket open. Raises BadInput where it
    cannot be listened there.
    """
    try:
        first = _bound(settings.host, settings.port)
        if settings.instances > 1:  # the first bind, which shares with nobody, has shown that the address is free
            host, port = first.getsockname()[:2]
            first.close()
            sockets = [_bound(host, port, shared=True) for _ in range(settings.instances)]
        else:
            sockets = [first]
        for listener in sockets:
            listener.listen(2048)
        return sockets
    except (OSError, OverflowError) as error:
        where = f"--host {settings.host} --port {settings.port}"
        raise BadInput(f"{where}: cannot listen there ({error}); --port 0 takes a free port") from None


def _bound(host: str, port: int, shared: bool = False) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with contextlib.ExitStack() as undo:
        # The protocol is named for asyncio, which sends small answers at once only on sockets that say TCP.
        listener = undo.enter_context(socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        undo.pop_all()
        return listener


if __name__ == "__main__":
    run(main)
