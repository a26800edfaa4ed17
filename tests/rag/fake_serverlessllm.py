"""Stands for every program of ServerlessLLM's environment: what they print, the ports they open, and each way to fail.

`environment(folder)` makes such an environment. The variable FAKE names the fault that its programs show.
"""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

FOREVER = 3600
SAYS = "fake model says hello"


def environment(folder: Path) -> Path:
    """An environment whose python, ray and sllm are this file."""
    (folder / "bin").mkdir(parents=True)
    for name in ("python", "ray", "sllm"):
        program = folder / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).resolve()} {folder} {name} "$@"\n')
        program.chmod(0o755)
    return folder


def main() -> None:
    fault = os.environ.get("FAKE", "")
    role = _role(sys.argv[2:])
    print(role, "on", os.environ.get("SLURMD_NODENAME", "this machine"), "with", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
    if fault == f"{role} ends":
        sys.exit(f"{role}: a reason")
    if fault == f"{role} hangs":
        time.sleep(FOREVER)
    if fault == "nothing heeds TERM":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if role.startswith("ray"):
        daemon = [sys.executable, __file__, sys.argv[1], "daemon"]
        subprocess.Popen(["setsid", "--fork", *daemon])  # whose parent is gone at once, as Ray's daemons' are
        print("Ray runtime started.", flush=True)
        time.sleep(FOREVER)
    elif role == "daemon":
        time.sleep(FOREVER)
    elif role == "store":
        host, port = sys.argv[4].split(":")
        with socket.create_server((host, int(port))):
            time.sleep(FOREVER)
    elif role == "sllm":
        address = (sys.argv[sys.argv.index("--host") + 1], int(sys.argv[sys.argv.index("--port") + 1]))
        http.server.ThreadingHTTPServer(address, handler(fault)).serve_forever()


def _role(words: list[str]) -> str:
    if "ray_loopback.py" in " ".join(words) or words[0] == "ray":
        return "ray-head" if "--head" in words else "ray-worker"
    return "store" if "store.py" in " ".join(words) else words[0]


def handler(fault: str) -> type[http.server.BaseHTTPRequestHandler]:
    listed: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/health":
                self._answer({"status": "ok"}, 503 if fault == "never healthy" else 200)
            else:
                self._answer({"object": "list", "models": [{"id": name} for name in listed]})

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/register":
                self._register(asked["model"])
            elif self.path == "/v1/embeddings":
                self._answer({"data": [{"embedding": [1.0, 0.0]} for _ in asked["input"]]})
            else:
                self._chat()

        def _register(self, name: str) -> None:
            if fault != "registers nothing":
                listed.append(name)
            if fault != "no router":
                print(f"Started handler for model {name}", flush=True)
            self._answer({"detail": "Cannot register model"}, 500) if fault == "register fails" else self._answer({"status": "ok"})

        def _chat(self) -> None:
            if fault == "chat hangs":
                time.sleep(FOREVER)
            if fault == "sllm dies":
                threading.Thread(target=lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
                time.sleep(FOREVER)
            if fault == "error as 200":
                return self._answer({"error": "Instance stopped"})
            content = "" if fault == "empty answer" else SAYS
            self._answer({"choices": [{"message": {"content": content}}], "usage": {"completion_tokens": 4}})

        def _answer(self, body: dict[str, Any], status: int = 200) -> None:
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    return Handler


if __name__ == "__main__":
    main()
