"""An endpoint with OpenAI's API that misbehaves as the prompt says, and one that answers when it is let."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.rag.fakes import answering

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
WRONG: dict[str, tuple[int, bytes]] = {
    "error with status 200": (200, b'{"error": {"message": "out of memory, key secret-key"}}'),
    "no JSON": (200, b"<html>busy</html>"),
    "a list": (200, b"[]"),
    "no choices": (200, b'{"choices": []}'),
    "a choice that is a number": (200, b'{"choices": [1]}'),
    "busy": (429, b'{"error": {"message": "slow down"}}'),
    "broken": (500, b"Traceback ... secret-key"),
    "unauthorised": (401, b'{"error": {"message": "wrong key secret-key"}}'),
    "elsewhere": (307, b""),
    "timed out": (504, b""),
    "endless": (200, b'{"choices": [' + b" " * (5 << 20)),
}
"""What is answered to a prompt with this text in it."""


class Handler(BaseHTTPRequestHandler):
    server: Endpoint
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        with contextlib.suppress(ConnectionError):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.server.asked.append(body)
            self.server.keys.add(self.headers["Authorization"])
            prompt = body["messages"][-1]["content"]
            for text, (status, said) in WRONG.items():
                if text in prompt:
                    return self._whole(status, said)
            if "hold" in prompt:
                self.server.held.set()
                self.server.gate.wait(60)
            if body.get("stream"):
                self._stream(prompt)
            elif "closes" in prompt:
                self._head(200, "application/json", 1000)
                self.close_connection = True
            else:
                said = {"choices": [{"message": {"role": "assistant", "content": f"to {prompt}"}}], "usage": USAGE}
                self._whole(200, json.dumps(said).encode())

    def _stream(self, prompt: str) -> None:
        self._head(200, "text/event-stream", None)
        for piece in ["to", " be"]:
            self.wfile.write(f"data: {json.dumps({'choices': [{'delta': {'content': piece}}]})}\n\n".encode())
            self.wfile.flush()
        if "closes" not in prompt:
            self.wfile.write(f"data: {json.dumps({'choices': [], 'usage': USAGE})}\n\ndata: [DONE]\n\n".encode())
        self.close_connection = True

    def _whole(self, status: int, said: bytes) -> None:
        self._head(status, "application/json", len(said))
        self.wfile.write(said)

    def _head(self, status: int, kind: str, length: int | None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if status == 307:
            self.send_header("Location", f"{self.server.url}/elsewhere")
        if length is not None:
            self.send_header("Content-Length", str(length))
        else:
            self.send_header("Connection", "close")
        self.end_headers()


class Endpoint(ThreadingHTTPServer):
    """`gate` lets the prompts with "hold" in them go, `held` says that one waits; `asked` and `keys` are what came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.gate, self.held = threading.Event(), threading.Event()
        self.asked: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


@contextlib.contextmanager
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    with answering(server, server.gate):
        yield server
