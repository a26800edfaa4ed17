"""A hundred thousand requests with clients that leave, stages that crash, overload and poisoned requests mixed in, drawn by a seed.

    python docs/benchmarks/campaign.py             some minutes

Against a real service process with echo stages, so that each answer tells which request it belongs to. The first tenth also ends whole
instances, kindly and by SIGKILL; in the rest the counts of the clients and of the service's /metrics have to agree to the request, and the
memory of the one instance has to stay what it was. Replaces docs/benchmarks/records/campaign.json; ends with 1 where something was not as
it must be.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from prometheus_client.parser import text_string_to_metric_families

from analysis.cli import replacing, run
from analysis.environment import ROOT, environment, versions
from rag.launch import environment as variables
from rag.service import READY

RECORD = Path(__file__).with_name("records") / "campaign.json"
ARM = {"service": "echo", "max_batch": 16, "queue": 64}
EXPERIMENT = {"arms": {"echo": ARM}, "load": {"rates": [1], "deadline_s": 0.5}}
SHARES = {"plain": 0.93, "leave": 0.04, "poison": 0.02, "exit": 0.008, "stall": 0.002}
ENDS = {"lost": 8, "kill": 4}
"""Requests of the first part that end an instance."""
ALLOWED = {
    "plain": {200, 429, 503, 504},
    "stall": {200, 429, 503, 504},
    "poison": {500, 429, 503, 504},
    "exit": {503, 429, 504},
    "lost": {503, 429, 504},
    "kill": {503, 429, 504},
}
"""What may be answered to a request of each kind: its answer or its own fault, or a refusal for the others' sake."""
BLOCK, CLIENTS, OVERLOAD = 1000, 32, 400
FLAT = 1.05
PACKAGES = ("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "aiohttp")


@dataclass
class Part:
    """What the clients saw: statuses by kind, connections closed instead of an answer, and everything that must not be."""

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    closed: int = 0
    wrong: list[str] = field(default_factory=list)

    def saw(self, kind: str, nonce: int, status: int, body: dict[str, Any], query: str) -> None:
        self.statuses[kind, status] += 1
        if status not in ALLOWED[kind]:
            self.wrong.append(f"{kind} {nonce}: status {status}")
        if status == 200 and (body["query"], body["result"]) != (query, query):
            self.wrong.append(f"{kind} {nonce}: the answer of another, {body['result']!r}")
        if status != 200 and set(body["error"]) != {"message", "type", "param", "code"}:
            self.wrong.append(f"{kind} {nonce}: an error of another form, {body}")


def main() -> int:
    arguments = _parser().parse_args()
    with tempfile.TemporaryDirectory() as folder, _service(Path(folder)) as (process, url):
        record = asyncio.run(_campaign(process, url, arguments.requests, random.Random(arguments.seed)))
        process.terminate()
        record["exit_code"] = process.wait(60)
        said = Path(folder, "service.log").read_text()
    record |= {"seed": arguments.seed, "arm": ARM, "shares": SHARES, "stage_restarts_logged": said.count("broke and starts anew")}
    record["instance_restarts_logged"] = said.count("another one starts in its place")
    record |= {"versions": versions(*PACKAGES), "provenance": environment()}
    faults = _faults(record)
    with replacing(arguments.out) as temporary:
        temporary.write_text(json.dumps({**record, "faults": faults}, indent=1) + "\n")
    print(json.dumps({name: record[name] for name in ("requests", "seconds", "statuses", "closed_first_part", "rss_mb")}))
    for fault in faults:
        print(f"not as it must be: {fault}", file=sys.stderr)
    return int(bool(faults))


async def _campaign(process: subprocess.Popen[str], url: str, number: int, rng: random.Random) -> dict[str, Any]:
    started, first, rest = time.monotonic(), Part(), Part()
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2)
    async with aiohttp.ClientSession(url, connector=connector, timeout=aiohttp.ClientTimeout(60)) as http:
        await _offer(http, url, first, _kinds(rng, number // 10, ENDS), 0, rng)
        await _idle(http)
        before, pid = await _counted(http), _instance(process.pid)
        memory = [_rss_mb(pid)]
        plan = _kinds(rng, number - number // 10, {})
        for at in range(0, len(plan), 10 * BLOCK):
            await _offer(http, url, rest, plan[at : at + 10 * BLOCK], number // 10 + at, rng)
            memory.append(_rss_mb(pid))
            print(f"{at + 10 * BLOCK:7d}: {dict(_by_status(rest))}, {memory[-1]:.1f} MB", file=sys.stderr)
        await _idle(http)
        after = await _counted(http)
    return {
        "requests": number,
        "seconds": round(time.monotonic() - started, 1),
        "statuses": _by_status(_sum(first, rest)),
        "by_kind": {f"{kind} {status}": count for (kind, status), count in sorted(_sum(first, rest).statuses.items())},
        "closed_first_part": first.closed,
        "closed_rest": rest.closed,
        "wrong": first.wrong + rest.wrong,
        "first_part_accounted": sum(first.statuses.values()) + first.closed,
        "rest_clients": _by_status(rest),
        "rest_service": {status: after[status] - before.get(status, 0) for status in sorted(after)},
        "same_instance": _instance(process.pid) == pid,
        "rss_mb": memory,
    }


def _kinds(rng: random.Random, number: int, ends: dict[str, int]) -> list[str]:
    kinds = rng.choices(list(SHARES), list(SHARES.values()), k=number)
    for kind, count in ends.items():
        for at in rng.sample(range(number), count):
            kinds[at] = kind
    return kinds


async def _offer(http: aiohttp.ClientSession, url: str, part: Part, kinds: list[str], first: int, rng: random.Random) -> None:
    """Send the requests, block by block, from a few clients or from far more than the service admits."""
    for at in range(0, len(kinds), BLOCK):
        waiting = iter(list(enumerate(kinds[at : at + BLOCK], first + at)))

        async def client(waiting: Iterator[tuple[int, str]] = waiting) -> None:
            for nonce, kind in waiting:
                await (_leave(url, part, nonce, rng.random()) if kind == "leave" else _ask(http, part, nonce, kind))

        await asyncio.gather(*(client() for _ in range(rng.choice([CLIENTS, OVERLOAD]))))


async def _ask(http: aiohttp.ClientSession, part: Part, nonce: int, kind: str) -> None:
    query = f"{kind} {nonce}"
    try:
        async with http.post("/rag", json={"query": query}) as response:
            part.saw(kind, nonce, response.status, await response.json(), query)
    except aiohttp.ClientError:
        part.closed += 1
    except TimeoutError:
        part.wrong.append(f"{kind} {nonce}: no answer")


async def _leave(url: str, part: Part, nonce: int, patience: float) -> None:
    """Ask and close the connection, mostly before the answer can be there."""
    body = json.dumps({"query": f"plain {nonce}"}).encode()
    head = f"POST /rag HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    host, port = url.removeprefix("http://").split(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(head + body)
        await writer.drain()
        await asyncio.sleep(patience * 0.01)
        writer.close()
        await writer.wait_closed()
    except OSError:
        part.closed += 1
    else:
        part.statuses["leave", 0] += 1


async def _idle(http: aiohttp.ClientSession) -> None:
    """Wait until every request is out of the service. Raises TimeoutError where one stays."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with http.get("/ready") as response:
                    if (await response.json()).get("running") == 0 and await _in_flight(http) == 1:
                        return
            await asyncio.sleep(0.1)  # what is still in it is behind HTTP


async def _in_flight(http: aiohttp.ClientSession) -> float:
    return next(sample.value for sample in await _samples(http) if sample.name == "rag_in_flight")


async def _counted(http: aiohttp.ClientSession) -> Counter[str]:
    """The requests to /rag that the service has answered, by status."""
    samples = [sample for sample in await _samples(http) if sample.name == "rag_requests_total" and sample.labels["route"] == "/rag"]
    return Counter({sample.labels["status"]: int(sample.value) for sample in samples})


async def _samples(http: aiohttp.ClientSession) -> list[Any]:
    async with http.get("/metrics") as response:
        return [sample for family in text_string_to_metric_families(await response.text()) for sample in family.samples]


def _by_status(part: Part) -> dict[str, int]:
    found = Counter[str]()
    for (_, status), count in part.statuses.items():
        found[str(status) if status else "left"] += count
    return dict(sorted(found.items()))


def _sum(first: Part, rest: Part) -> Part:
    return Part(first.statuses + rest.statuses)


def _faults(record: dict[str, Any]) -> list[str]:
    """What is not as it must be."""
    faults = [*record["wrong"][:20]]
    accounted = record["first_part_accounted"] + sum(record["rest_clients"].values()) + record["closed_rest"]
    if accounted != record["requests"]:
        faults.append(f"{accounted} of {record['requests']} requests are accounted for")
    if record["closed_rest"]:
        faults.append(f"{record['closed_rest']} connections closed without an answer although no instance ended")
    clients, service = dict(record["rest_clients"]), dict(record["rest_service"])
    left = clients.pop("left", 0)
    extra = {status: service.get(status, 0) - clients.get(status, 0) for status in {*service, *clients}}
    if sum(extra.values()) != left or min(extra.values(), default=0) < 0:
        faults.append(f"the clients saw {clients} and {left} left, the service counted {service}")
    if not record["same_instance"]:
        faults.append("an instance ended in the part in which none may")
    if record["rss_mb"][-1] > FLAT * record["rss_mb"][1]:
        faults.append(f"memory grew from {record['rss_mb'][1]} to {record['rss_mb'][-1]} MB")
    if record["exit_code"]:
        faults.append(f"the service ended with code {record['exit_code']}")
    return faults


def _instance(parent: int) -> int:
    """The process of the only instance."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return next(int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes())


def _rss_mb(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return round(int(line.split()[1]) / 1024, 1)


@contextlib.contextmanager
def _service(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump({"rag": {"campaign": EXPERIMENT}}))
    words = ["--config", str(config), "--name", "campaign", "--arm", "echo", "--device", "cpu", "--port", "0"]
    command = [sys.executable, str(ROOT / "docs" / "benchmarks" / "campaign_service.py"), *words]
    with (folder / "service.log").open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=variables())
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip().removeprefix(READY)
        if not url:
            raise RuntimeError(f"the service did not start:\n{(folder / 'service.log').read_text()}")
        yield process, url
    finally:
        process.kill()
        process.communicate()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000, help="requests to send (default 100000)")
    parser.add_argument("--seed", type=int, default=1, help="of what happens (default 1)")
    parser.add_argument("--out", type=Path, default=RECORD, help="the record to write")
    return parser


if __name__ == "__main__":
    run(main)
