"""A model hub of one model on a loopback port, which says what was asked of it and can cut or hold a download."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.rag.fakes import answering

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = "model.safetensors"
CHUNK = 10 << 20
"""What the hub's library reads at once: less than that of a cut answer is lost."""
FILES = {
    "config.json": b'{"model_type": "bert"}',
    "tokenizer.json": b"{}",
    "1_Pooling/config.json": b'{"pooling_mode": "cls"}',
    WEIGHTS: random.Random(0).randbytes(CHUNK + CHUNK // 2),
    "pytorch_model.bin": b"a pickle",
    "onnx/model.onnx": b"another form",
    "onnx/model.safetensors": b"another form",
    "code.py": b"raise SystemExit",
}


class FakeHub(ThreadingHTTPServer):
    """`asked` lists (method, file, first byte). Each of `sends` is how many bytes one GET of the weights gets before it is cut or held."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str, int]] = []
        self.sends: list[int] = []
        self.holds = False
        self.wrong = False
        self.held, self.released = threading.Event(), threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextlib.contextmanager
def running() -> Iterator[FakeHub]:
    hub = FakeHub()
    with answering(hub, hub.released):
        yield hub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeHub

    def log_message(self, format: str, *arguments: Any) -> None: ...

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = self.path.split("?")[0]
        if path.startswith("/api/models/acme/gated"):
            self._fail(403, "GatedRepo")
        elif not path.removeprefix("/api/models").startswith("/acme/tiny"):
            self._fail(401, "RepoNotFound")
        elif "/resolve/" in path:
            self._file(path.split("/resolve/")[1].split("/", 1)[1])
        elif "/tree/" in path:
            self._send(json.dumps([{"type": "file", "path": name, **_facts(name, "oid")} for name in FILES]).encode())
        elif path.rpartition("/revision/")[2] in ("/api/models/acme/tiny", "v1", "main", COMMIT):
            siblings = [{"rfilename": name, **_facts(name, "blobId")} for name in FILES]
            self._send(json.dumps({"id": "acme/tiny", "sha": COMMIT, "siblings": siblings}).encode())
        else:
            self._fail(404, "RevisionNotFound")

    def _file(self, name: str) -> None:
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.server.asked.append((self.command, name, start))
        content = FILES[name]
        if name == WEIGHTS and self.server.wrong:
            content = content[::-1]
        most = self.server.sends.pop(0) if self.command == "GET" and name == WEIGHTS and self.server.sends else None
        etag = _facts(name, "oid").get("lfs", {}).get("oid") or _facts(name, "oid")["oid"]
        self._send(content[start:], most, etag, 206 if start else 200, f"bytes {start}-{len(content) - 1}/{len(content)}" if start else "")

    def _send(self, body: bytes, most: int | None = None, etag: str = "", status: int = 200, part: str = "") -> None:
        headers = {"Content-Length": str(len(body)), "ETag": f'"{etag}"' if etag else "", "X-Repo-Commit": COMMIT, "Content-Range": part}
        self.send_response(status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:most])
        if most is not None:
            self.close_connection = True
            if self.server.holds:
                self.server.held.set()
                self.server.released.wait()

    def _fail(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _facts(name: str, key: str) -> dict[str, Any]:
    content = FILES[name]
    facts: dict[str, Any] = {"size": len(content), key: hashlib.sha1(content).hexdigest()}
    if name == WEIGHTS:
        digest = hashlib.sha256(content).hexdigest()
        facts["lfs"] = {"size": len(content), "oid": digest, "sha256": digest, "pointerSize": 134}
    return facts
