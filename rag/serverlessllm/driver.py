"""ServerlessLLM 0.8.0 launched on this machine or in a Slurm allocation: Ray's head, a worker and a store on each node, its HTTP server."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.cli import BadInput
from rag.serverlessllm import environment, ray
from rag.serverlessllm.deployment import Deployment
from rag.servers import nodes
from rag.servers.chat import Client
from rag.servers.errors import ServerFailed, failed
from rag.servers.nodes import Node
from rag.servers.server import Bounds, Launched

STORE_PORT = 8073
"""Written out in its control plane and its backends."""
SHIMS = Path(__file__).parent / "shims"
_INSTANCES = ("ray::TransformersBackend", "ray::VllmBackend")


class ServerlessLLM(Launched):
    """Serves `models`, whose files are in the folder `store` (on every node), with the programs of the environment in `home`.

    With `stand_in` there is no GPU: each node gets `stand_in` GPUs that are only said to be there, and a stand-in store; records say so.
    Without, each node's GPUs are those that the allocation gives, and `memory` (such as 4GB) is what its store pins for models.
    Logs go to `logs`/NODE. BadInput says what is wrong with any of this before anything is started.
    """

    def __init__(
        self,
        home: Path,
        store: Path,
        models: Sequence[Deployment],
        logs: Path,
        *,
        stand_in: int = 0,
        memory: str = "4GB",
        bounds: Bounds | None = None,
        scratch: Path = Path("/tmp"),
    ) -> None:
        super().__init__(logs, bounds or Bounds(), scratch)
        self.programs = environment.programs(home)
        self.store, self.stand_in, self.memory = store.absolute(), stand_in, memory
        for model in models:
            model.check(self.store, bool(stand_in))
        if not stand_in:
            environment.check_store(self.programs)
        self.models = {model.name: model for model in models}

    def describe(self) -> dict[str, Any]:
        return {
            "server": "serverlessllm",
            "version": environment.VERSION,
            "store": "stand-in store, no GPU" if self.stand_in else f"sllm-store, {self.memory} pinned",
            "nodes": len(self.nodes),
        }

    @property
    def log(self) -> Path:
        return self.nodes[0].log("sllm")  # Ray's driver prints what every actor says

    def start(self) -> None:
        self.nodes = nodes.nodes(self.scratch, self.logs, self.bounds.agent_s)
        head = self.nodes[0]
        self._check_nodes()
        gcs, client, http = head.ports(3)
        cluster = ray.Cluster(self.programs, head.address, gcs, self.scratch / "ray")
        head.start("ray-head", cluster.head(client, 4 + len(self.models)), self._env(head))
        self._wait_for_ray([head], "ray-head")
        for number, node in enumerate(self.nodes):
            node.start("ray-worker", cluster.worker(node.address, number, self._gpus(node)), self._env(node) | self._worker_env(node))
            if node.address == ray.LOOPBACK:  # of nodes that share a machine, two that start at once may take the same socket
                self._wait_for_ray([node], "ray-worker")
        for node in self._one_an_address():
            node.start("store", self._store_command(node), self._env(node))
        self._wait_for_ray(self.nodes, "ray-worker")
        for node in self._one_an_address():
            self._wait_for_store(node)
        command = [str(self.programs / "sllm"), "start", "--host", head.address, "--port", str(http)]
        head.start("sllm", command, self._env(head) | {"RAY_ADDRESS": cluster.address})
        self._client = Client(f"http://{head.address}:{http}")

    def deploy(self, model: str) -> None:
        if model not in self.models:
            raise BadInput(f"model {model!r}: not one that this server was made for; one of {', '.join(self.models) or 'none'}")
        client = self.client
        try:
            client.post("/register", self.models[model].body(), self.bounds.deploy_s)
            listed = client.models(self.bounds.deploy_s)
        except ServerFailed as error:
            raise self.explained(f"{model!r} was not deployed: {error}", self.log) from None
        if model not in listed:  # it answers 200 whether or not it could register the model
            raise failed(f"{model!r} was not deployed: /register answered 200 but /v1/models does not list it", self.log)
        routed = f"Started handler for model {model}".encode()  # until then it answers 200 with "Instance stopped"
        self.until(f"{model!r} has its router", lambda: routed in self.log.read_bytes(), self.bounds.deploy_s, self.log)

    def instances(self) -> int:
        """How many instances of models there are on all nodes, those that start and stop too."""
        return sum(title.startswith(_INSTANCES) for node in self.nodes for title in node.ask("titles")["titles"].values())

    def wait_instances(self, count: int, within_s: float) -> None:
        """Wait until there are `count` instances, such as 0 once models have not been asked for their `keep_alive`."""
        self.until(f"{count} instances (there are {self.instances()})", lambda: self.instances() == count, within_s, self.log)

    def _check_nodes(self) -> None:
        for node in self.nodes:
            if not self.stand_in and not node.gpus:
                raise BadInput(f"node {node.name}: no GPU in the allocation; ask for one (--gres=gpu:1), or take the stand-in store")
        for node in self._one_an_address():
            if not (answer := node.ask("free", host=node.address, port=STORE_PORT))["free"]:
                raise BadInput(
                    f"node {node.name}: port {STORE_PORT} is taken ({answer['why']}), which ServerlessLLM's store has written out;"
                    " another ServerlessLLM runs there: end it, or take another node"
                )

    def _one_an_address(self) -> list[Node]:
        """The nodes that get a store: one a machine, as its port is fixed."""
        return [*{node.address: node for node in reversed(self.nodes)}.values()]

    def _gpus(self, node: Node) -> int:
        return self.stand_in or node.gpus

    def _store_command(self, node: Node) -> list[str]:
        if self.stand_in:
            return [str(self.programs / "python"), str(SHIMS / "store.py"), f"{node.address}:{STORE_PORT}", str(self.store)]
        host = node.address if len(self.nodes) == 1 else "0.0.0.0"  # backends ask 127.0.0.1, the control plane the node's address
        return [
            *(str(self.programs / "sllm-store"), "start", "--host", host, "--port", str(STORE_PORT)),
            *("--storage-path", str(self.store), "--mem-pool-size", self.memory),
        ]

    def _wait_for_ray(self, those: Sequence[Node], name: str) -> None:
        for node in those:
            log = node.log(name)
            self.until(f"{name} on node {node.name} runs", functools.partial(ray.started, log), self.bounds.process_s, log)

    def _wait_for_store(self, node: Node) -> None:
        """Pinning a pool of 16 GB takes over 12 s: the port says when it is done."""
        self.until(
            f"the store of node {node.name} opens port {STORE_PORT}",
            lambda: node.ask("open", host=node.address, port=STORE_PORT)["open"],
            self.bounds.ready_s,
            node.log("store"),
        )

    def _env(self, node: Node) -> dict[str, str]:
        return {**ray.ENVIRONMENT, **ray.network(node.address), "PATH": f"{self.programs}:/usr/bin:/bin", "STORAGE_PATH": str(self.store)}

    def _worker_env(self, node: Node) -> dict[str, str]:
        shims = {"PYTHONPATH": str(SHIMS)}
        if not self.stand_in:
            return shims
        said = ",".join(map(str, range(self.stand_in)))  # Ray refuses more GPUs than this names
        return {**shims, "BLOCKWISE_STAND_IN": f"{node.address}:{STORE_PORT}", "CUDA_VISIBLE_DEVICES": said}
