"""Measures one point: offers its load to a running service and makes the record of all that came of it."""

from __future__ import annotations

import asyncio
import datetime
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.cli import BadInput
from analysis.environment import environment, gpu_state, versions
from analysis.records import Record
from kernels.device import Device
from rag import traces
from rag.arrivals import schedule
from rag.config import Experiment
from rag.load import NAN, Outcome, offer
from rag.points import LIBRARIES, PROTOCOL, Point
from rag.questions import Question

LITTLE_TOLERANCE = 0.1
LAG_LIMIT_MS = 50.0
IDLE_S = 10.0
_STAGES = ("queue_ms", "embed_ms", "retrieve_ms", "generate_ms")


def arrivals(experiment: Experiment, point: Point) -> list[float]:
    """The point's schedule, which all arms share. Raises BadInput for one without a single request, and for a trace that is too short."""
    load = experiment.settings["load"]
    seed = [experiment.seed, point.repeat, round(point.rate * 1000)]
    trace = traces.named(load, f"{experiment.where}.load.trace")
    try:
        times = schedule(load, point.rate, seed, trace)
    except BadInput as error:
        raise BadInput(f"{experiment.where}.load: {error}") from None
    if not times:
        short = f"no request in {load['seconds']:g} s at {point.rate:g} a second"
        raise BadInput(f"{experiment.where}.load: {short}; take more seconds or a higher rate")
    return times


def asked(questions: Sequence[Question], number: int, seed: Sequence[int]) -> list[Question]:
    """`number` questions: all of them in an order drawn by `seed`, then all in another order, and so on."""
    rng = np.random.default_rng(seed)
    rounds = -(-number // len(questions))
    return [questions[at] for _ in range(rounds) for at in rng.permutation(len(questions))][:number]


def measure(experiment: Experiment, point: Point, attempt: int, url: str, questions: Sequence[Question], device: Device) -> Record:
    """The record of one attempt at `point`: a header, and under `requests` a row a request.

    The service at `url` is the point's arm, and idle.
    """
    settings = experiment.settings
    times = arrivals(experiment, point)
    chosen = asked(questions, len(times), [experiment.seed, point.repeat])
    facts = _ready(url)
    if not facts:
        raise RuntimeError(f"the service at {url} no longer answers; its log says why")
    if facts["device"] != ("cuda" if device.kind == "gpu" else "cpu"):
        raise BadInput(f"the service runs on {facts['device']} beside a {device.name}: install PyTorch's CUDA build, or use --device cpu")
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    before = gpu_state() if device.kind == "gpu" else None
    bodies = [{"query": question.text, "k": settings["k"]} for question in chosen]
    measured = asyncio.run(offer(f"{url}/rag", times, bodies, settings["load"]["deadline_s"]))
    after = gpu_state() if device.kind == "gpu" else None
    little, lag = measured.little_ratio, measured.lag_p99_ms
    return {
        "point": point.id,
        "attempt": attempt,
        "experiment": experiment.name,
        "arm": point.arm,
        "rate": point.rate,
        "repeat": point.repeat,
        "service": settings["arms"][point.arm]["service"],
        "arm_settings": experiment.arm(point.arm),
        "model": facts["model"],
        "weights": facts["weights"],
        "embedder": facts["embedder"],
        "embedder_weights": facts["embedder_weights"],
        "corpus": facts["corpus"],
        "k": settings["k"],
        "deadline_s": float(settings["load"]["deadline_s"]),
        "device": device.name,
        "device_kind": device.kind,
        "in_flight": measured.in_flight,
        "little_ratio": little,
        "lag_p99_ms": lag,
        "valid": bool(abs(little - 1) <= LITTLE_TOLERANCE and lag <= LAG_LIMIT_MS),
        "seed": experiment.seed,
        "protocol": PROTOCOL,
        "versions": versions(*LIBRARIES),
        "provenance": {**environment(), "gpu_before": before, "gpu_after": after},
        "started": started,
        "requests": list(map(_row, range(len(chosen)), measured.outcomes, chosen)),
    }


def summary(record: Record) -> str:
    """A point in one line, for whoever watches."""
    rows = record["requests"]
    good = sorted((row["end_s"] - row["scheduled_s"]) * 1e3 for row in rows if row["status"] == "ok")
    median = f"median {statistics.median(good):.0f} ms" if good else "none answered"
    lost = [f"{sum(row['status'] == status for row in rows)} {status}" for status in ("rejected", "timeout", "error")]
    notes = [part for part in lost if not part.startswith("0 ")]
    if not record["valid"]:
        notes.append(f"not valid: Little's ratio {record['little_ratio']:.2f}, send lag {record['lag_p99_ms']:.0f} ms")
    return f"{record['arm']} at {record['rate']:g}/s: {len(good)} of {len(rows)} ok, {median}" + "".join(f", {note}" for note in notes)


def idle(url: str) -> bool:
    """Whether the service works on nothing, after up to `IDLE_S` seconds for what an earlier load left behind."""
    until = time.monotonic() + IDLE_S
    while time.monotonic() < until:
        facts = _ready(url)
        if facts.get("running") == 0:
            return True
        time.sleep(0.05)  # what it still works on is behind HTTP: nothing here to wait on
    return False


def _ready(url: str) -> Mapping[str, Any]:
    """What a service says of itself; nothing where it does not answer."""
    import httpx

    try:
        return httpx.get(f"{url}/ready", timeout=IDLE_S, trust_env=False).json()
    except (httpx.HTTPError, ValueError):
        return {}


def _row(number: int, outcome: Outcome, question: Question) -> Record:
    body = outcome.body
    stages = body.get("stages", {})
    retrieved = list(body.get("retrieved", []))
    documents = [chunk.rpartition("#")[0] for chunk in retrieved]
    return {
        "request": number,
        "scheduled_s": outcome.scheduled_s,
        "sent_s": outcome.sent_s,
        "first_token_s": NAN,  # answers come whole
        "end_s": outcome.end_s,
        "status": outcome.status,
        "http": outcome.http,
        "reason": outcome.reason,
        **{name: float(stages.get(name, NAN)) for name in _STAGES},
        "batch": int(body.get("batch", 0)),
        "question": question.text,
        "source": question.source,
        "retrieved": retrieved,
        "rank": documents.index(question.source) + 1 if question.source in documents else 0,
        "tokens_in": int(body.get("tokens_in", 0)),
        "tokens_out": int(body.get("tokens_out", 0)),
        "lag_ms": (outcome.sent_s - outcome.scheduled_s) * 1e3,
    }
