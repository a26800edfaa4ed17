"""How Ray is started under a server of ours: which commands, which ports, which environment."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"
LAUNCHER = Path(__file__).parent / "shims" / "ray_loopback.py"
ENVIRONMENT = {
    "PYTHONPATH": "",  # not the project's: transformers would take our `kernels` for Hugging Face's
    "PYTHONUNBUFFERED": "1",
    "HF_HUB_OFFLINE": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_SCHEDULER_EVENTS": "0",
    "RAY_COLOR_PREFIX": "0",
    "RAY_prestart_worker_first_driver": "0",  # else a Python process for every CPU that a node is said to have
    "RAY_memory_monitor_refresh_ms": "0",  # which kills by the whole machine's memory, others' too; Slurm watches over ours
    # gRPC takes a proxy for nodes of the cluster
    **{f"{scheme}_proxy": "" for scheme in ("http", "https", "grpc", "all")},
    **{f"{scheme}_PROXY": "" for scheme in ("HTTP", "HTTPS", "ALL")},
}
_STARTED = b"Ray runtime started."
_OBJECT_STORE = 80_000_000
"""Bytes of shared memory for objects, of which ServerlessLLM has none; Ray's least is 75 MiB."""


def network(address: str) -> dict[str, str]:
    """The environment in which Ray keeps to the loopback interface, for a cluster of one machine."""
    return {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"} if address == LOOPBACK else {}


def started(log: Path) -> bool:
    """Whether a `ray start` that writes this log says that its node belongs to the cluster."""
    return log.is_file() and _STARTED in log.read_bytes()


@dataclass(frozen=True)
class Cluster:
    """One Ray cluster: its programs, the head's address and port, and the folder of its sessions, which has the same name on every node."""

    programs: Path
    host: str
    port: int
    sessions: Path

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def head(self, client_port: int, cpus: int) -> list[str]:
        """The command of the head. Each of ServerlessLLM's actors takes a tenth of a `control_node`."""
        return [
            *self._start(self.host, cpus, 0, {"control_node": 10}),
            *("--head", f"--port={self.port}", f"--ray-client-server-port={client_port}", "--include-dashboard=false"),
            *(f"--temp-dir={self.sessions}", "--disable-usage-stats"),
        ]

    def worker(self, address: str, number: int, gpus: int) -> list[str]:
        """The command of a worker. An instance takes a tenth of a `worker_node`, and two more while it is started."""
        return [*self._start(address, 4 + 2 * gpus, gpus, {"worker_node": 10, f"worker_id_{number}": 10}), f"--address={self.address}"]

    def _start(self, address: str, cpus: int, gpus: int, resources: dict[str, int]) -> list[str]:
        loopback = address == LOOPBACK
        return [
            *([str(self.programs / "python"), str(LAUNCHER)] if loopback else [str(self.programs / "ray")]),
            *("start", "--block", f"--node-ip-address={address}", f"--num-cpus={cpus}", f"--num-gpus={gpus}"),
            *(f"--resources={json.dumps(resources)}", f"--object-store-memory={_OBJECT_STORE}"),
            *("--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"),  # 0: any that is free
        ]
