"""In a Slurm allocation `python -m tests.cluster.serve_serverlessllm PARTS STEP…` launches ServerlessLLM and says a JSON line a step.

PARTS is a JSON object: home, store and logs (folders), and port (of the store, where it is not its own). A step that is done
twice is told apart by what follows a colon.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from rag.serverlessllm import driver
from rag.serverlessllm.deployment import Deployment, Scaling
from rag.servers.errors import ServerFailed
from rag.servers.nodes import Node
from rag.servers.server import Bounds

KEEP_ALIVE_S = 3
MODEL = Deployment("tiny", dtype="float32", scaling=Scaling(target=4, keep_alive=KEEP_ALIVE_S))


def main() -> None:
    parts = json.loads(sys.argv[1])
    driver.STORE_PORT = parts.get("port", driver.STORE_PORT)
    folders = {name: Path(parts[name]) for name in ("home", "store", "logs")}
    bounds = Bounds(cold_s=120, warm_s=20)
    with driver.ServerlessLLM(models=[MODEL], stand_in=1, bounds=bounds, **folders) as server:
        ports = [int(server.address.rpartition(":")[2]), driver.STORE_PORT]
        say("ready", ports=ports, nodes=[node.name for node in server.nodes], scratch=str(server.scratch), job=os.environ["SLURM_JOB_ID"])
        for step in sys.argv[2:]:
            begin = time.monotonic()
            try:
                result = STEPS[step.partition(":")[0]](server)
            except ServerFailed as error:
                result = {"error": str(error)}
            say(step, seconds=time.monotonic() - begin, **result)
    say("gone")


def say(step: str, **what: Any) -> None:
    print(json.dumps({"step": step, **what}), flush=True)


def deploy(server: driver.ServerlessLLM) -> dict[str, Any]:
    server.deploy("tiny")
    return {"instances": server.instances(), "models": server.client.models(20)}


def chat(server: driver.ServerlessLLM) -> dict[str, Any]:
    answer = server.probe("tiny")
    return {"text": answer.text, "tokens": answer.tokens_out, "instances": server.instances()}


def embed(server: driver.ServerlessLLM) -> dict[str, Any]:
    return {"sizes": [len(vector) for vector in server.client.embeddings("tiny", ["one", "two"], 20)]}


def zero(server: driver.ServerlessLLM) -> dict[str, Any]:
    server.wait_instances(0, 60)
    return {"instances": server.instances()}


def kill_worker(server: driver.ServerlessLLM) -> dict[str, Any]:
    """Kill Ray on the node that has the model's instance."""
    (node,) = [node for node in server.nodes if any("ray::Transformers" in each for each in titles(node).values())]
    return killed(server, node, lambda title: "raylet/raylet" in title and "--head" not in title)


def kill_head(server: driver.ServerlessLLM) -> dict[str, Any]:
    return killed(server, server.nodes[0], lambda title: "gcs/gcs_server" in title)


def killed(server: driver.ServerlessLLM, node: Node, which: Any) -> dict[str, Any]:
    """Kill processes of a node, and wait until something that was started by name has ended of it."""
    for pid, title in titles(node).items():
        if which(title):
            os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + 60
    while not server.failure() and time.monotonic() < until:
        time.sleep(0.1)
    return {"node": node.name, "failure": server.failure()}


def titles(node: Node) -> dict[int, str]:
    return {int(pid): title for pid, title in node.ask("titles")["titles"].items()}


def wait(server: driver.ServerlessLLM) -> dict[str, Any]:
    time.sleep(3600)
    return {}


STEPS = {step.__name__: step for step in (deploy, chat, embed, zero, kill_worker, kill_head, wait)}

if __name__ == "__main__":
    main()
