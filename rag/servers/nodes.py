"""The nodes that a server may use: this machine, or those of the Slurm allocation that this process runs in; an agent on each."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import queue
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.cli import BadInput
from analysis.environment import ROOT
from rag.servers.errors import failed

ANSWER_S = 30.0
"""Within which an agent answers; it has nothing to wait for."""
_LOOPBACK = "127.0.0.1"


class Node:
    """One node: its agent's end of a pipe. When the pipe closes, whatever way this process ends, the agent ends all that it started."""

    def __init__(self, name: str, address: str, prefix: Sequence[str], scratch: Path, logs: Path) -> None:
        self.name, self.address, self.logs, self.gpus = name, address, logs / name, 0
        self.ended: dict[str, int] = {}
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._asking = threading.Lock()
        self.logs.mkdir(parents=True, exist_ok=True)
        command = [*prefix, sys.executable, "-m", "rag.servers.agent", str(scratch), str(self.logs.absolute())]
        self._log = self.logs / "agent.log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=_environment(), start_new_session=True
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            if "ended" in said:
                self.ended[said["ended"]] = said["code"]
            else:
                self._answers.put(said)
        self._answers.put(None)

    def meet(self, within_s: float) -> None:
        """Wait for the agent to say that it is there, and which GPUs it has."""
        self.gpus = self._answer(within_s)["gpus"]

    def _answer(self, within_s: float) -> dict[str, Any]:
        try:
            answer = self._answers.get(timeout=within_s)
        except queue.Empty:
            raise failed(f"node {self.name}: no answer within {within_s:g} s", self._log) from None
        if answer is None:
            self._answers.put(None)  # nor is there another
            raise failed(f"node {self.name}: the agent ended", self._log)
        if "error" in answer:
            raise failed(f"node {self.name}: {answer['error']}")
        return answer

    def ask(self, what: str, **details: Any) -> dict[str, Any]:
        """Have the agent do something (see `rag.servers.agent`); ServerFailed where it cannot."""
        assert self._process.stdin is not None
        with self._asking:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(json.dumps({"do": what, **details}).encode() + b"\n")
                self._process.stdin.flush()
            return self._answer(ANSWER_S)

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> int:
        """Start a process; its pid."""
        return self.ask("start", name=name, command=list(command), env=dict(env))["pid"]

    def ports(self, count: int) -> list[int]:
        """Ports that are free now."""
        return self.ask("ports", host=self.address, count=count)["ports"]

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def failure(self) -> str | None:
        """What is wrong here: a process that ended, or the agent itself; None where all runs."""
        for name, code in self.ended.items():
            return f"{name} on node {self.name} ended ({_how(code)})"
        return None if self._process.poll() is None else f"node {self.name} is gone (its agent ended: {_how(self._process.returncode)})"

    def leave(self) -> None:
        """Have the agent end everything; returns at once."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def wait(self, until: float) -> bool:
        """Wait until the agent is gone, by the monotonic clock at the latest `until`; whether it went by itself."""
        try:
            self._process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.terminate()  # srun hands it on
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
            self._process.kill()
            self._process.wait()
            return False
        finally:
            self._reader.join(5)
            assert self._process.stdout is not None
            self._process.stdout.close()
        return True


def nodes(scratch: Path, logs: Path, within_s: float) -> list[Node]:
    """An agent on each node of the allocation, the first on the node that `scontrol` names first; without Slurm one on this machine.

    Raises BadInput where Slurm's commands are missing, and ServerFailed where an agent does not come up.
    """
    names = allocated()
    addresses = dict(zip(names, _addresses(names), strict=True)) if names else {socket.gethostname(): _LOOPBACK}
    started: list[Node] = []
    try:
        for name, address in addresses.items():
            started.append(Node(name, address, _placed(name) if names else [], scratch, logs))
        for node in started:
            node.meet(within_s)
    except BaseException:
        leave(started, 30)
        raise
    return started


def leave(those: Sequence[Node], within_s: float) -> list[str]:
    """End everything on all of them; the names of those that had to be forced."""
    until = time.monotonic() + within_s
    for node in those:
        node.leave()
    return [node.name for node in those if not node.wait(until)]


def allocated() -> list[str]:
    """The nodes of the Slurm allocation that this process runs in; none outside one."""
    spelled = os.environ.get("SLURM_JOB_NODELIST")
    if not spelled:
        return []
    for program in ("scontrol", "srun"):
        if not shutil.which(program):
            raise BadInput(f"SLURM_JOB_NODELIST={spelled}: no {program} on PATH; Slurm's client programs are needed inside an allocation")
    done = subprocess.run(["scontrol", "show", "hostnames", spelled], capture_output=True, text=True)
    if done.returncode or not done.stdout.split():
        raise BadInput(f"SLURM_JOB_NODELIST={spelled}: scontrol does not know these nodes ({done.stderr.strip()})")
    return done.stdout.split()


def _placed(name: str) -> list[str]:
    """The command before a command that is to run once, on one node of the allocation, beside whatever runs there."""
    step = ["srun", "--overlap", "--nodes=1", "--ntasks=1", f"--nodelist={name}", "--cpu-bind=none"]  # all of the job's cores, not one
    return [*step, "--unbuffered", "--kill-on-bad-exit=0", "--quiet"]


def _addresses(names: Sequence[str]) -> list[str]:
    """An address of each node by which the others reach it. Nodes of one machine (a testbed's, or one alone) have the loopback's."""
    found = [_resolved(_node_address(name)) for name in names]
    if len(names) == 1 or all(ipaddress.ip_address(each).is_loopback for each in found):
        return [_LOOPBACK] * len(names)
    other = next(each for each in found if not ipaddress.ip_address(each).is_loopback)
    return [_own_address(other) if ipaddress.ip_address(each).is_loopback else each for each in found]


def _node_address(name: str) -> str:
    """What Slurm calls the node's address: an address or a name that resolves."""
    shown = subprocess.run(["scontrol", "show", "node", name, "--oneliner"], capture_output=True, text=True).stdout
    return next((word.partition("=")[2] for word in shown.split() if word.startswith("NodeAddr=")), name)


def _resolved(address: str) -> str:
    try:
        return socket.gethostbyname(address)
    except OSError as error:
        raise BadInput(f"node address {address}: it does not resolve ({error.strerror}); ask whoever runs the cluster") from None


def _own_address(other: str) -> str:
    """This machine's address towards another: Debian's /etc/hosts gives a machine's own name a loopback one. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((other, 9))
        return probe.getsockname()[0]


def _environment() -> dict[str, str]:
    """This process's environment, with the project's root on Python's path."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"code {code}"
