"""Any OpenAI-compatible server that one command starts, such as `vllm serve {model} --host {host} --port {port}`."""

from __future__ import annotations

import shlex
import shutil
import string
from pathlib import Path
from typing import Any

from analysis.cli import BadInput
from rag.servers import nodes
from rag.servers.chat import Client
from rag.servers.errors import ServerFailed, failed
from rag.servers.server import Bounds, Launched

_FIELDS = {"model", "host", "port"}


class CommandServer(Launched):
    """A server started on the first node by a command in which {model}, {host} and {port} are filled in.

    `served` is the name under which it lists the model, where that differs from what stands for {model}. Raises BadInput for a template
    without {port}, with another field, or with a program that is not on PATH.
    """

    def __init__(
        self, command: str, model: str, logs: Path, *, served: str | None = None, bounds: Bounds | None = None, scratch: Path = Path("/tmp")
    ) -> None:
        super().__init__(logs, bounds or Bounds(), scratch)
        self.command, self.model, self.served = command, model, served or model
        self._words = _words(command)

    def describe(self) -> dict[str, Any]:
        return {"server": Path(self._words[0]).name, "command": self.command, "store": None}

    @property
    def log(self) -> Path:
        return self.nodes[0].log("server")

    def start(self) -> None:
        if shutil.which(self._words[0]) is None:
            raise BadInput(f"command {self.command!r}: no program {self._words[0]!r}; install it, or name its path")
        self.nodes = nodes.nodes(self.scratch, self.logs, self.bounds.agent_s)
        node = self.nodes[0]
        (port,) = node.ports(1)
        filled = [word.format(model=self.model, host=node.address, port=port) for word in self._words]
        node.start("server", filled, {})
        self._client = Client(f"http://{node.address}:{port}")

    def wait_ready(self) -> None:
        """Until it lists models: `/health` is missing here and there, and may answer while a model is loaded."""
        self.until("it answers /v1/models", self._lists, self.bounds.ready_s, self.log)

    def _lists(self) -> bool:
        try:
            return bool(self.client.models(self.bounds.warm_s))
        except ServerFailed:
            return False

    def deploy(self, model: str) -> None:
        """Nothing is sent: it serves what its command names. Sees that it lists it."""
        listed = self.client.models(self.bounds.deploy_s)
        if model not in listed:
            raise failed(f"{self.address}/v1/models does not list {model!r} but {', '.join(listed) or 'nothing'}", self.log)


def _words(command: str) -> list[str]:
    """The words of a template. BadInput where it is none."""
    try:
        words = shlex.split(command)
        fields = {field for _, field, _, _ in string.Formatter().parse(command) if field is not None}
    except ValueError as error:
        raise BadInput(f"command {command!r}: {error}") from None
    if unknown := fields - _FIELDS:
        raise BadInput(f"command {command!r}: unknown field {', '.join(sorted(unknown)) or '{}'}; there are model, host and port")
    if "port" not in fields or not words:
        raise BadInput(f"command {command!r}: no {{port}} in it; such as 'vllm serve {{model}} --host {{host}} --port {{port}}'")
    return words
