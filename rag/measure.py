"""Measures one point: offers its load to a running service and makes the record of all that came of it."""

from __future__ import annotations

import datetime
import json
import statistics
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.cli import BadInput
from analysis.environment import environment, gpu_state, versions
from analysis.records import Record
from kernels.device import Device
from rag import models
from rag.arrivals import schedule
from rag.config import Experiment
from rag.launch import reachable
from rag.load import NAN, Measured, Outcome
from rag.points import LIBRARIES, PROTOCOL, Point, trace_of
from rag.questions import Question
from rag.senders import Senders

LITTLE_TOLERANCE = 0.1
LITTLE_REQUESTS = 0.5
"""Requests in flight that samples may be wrong by, where there are few."""
LAG_LIMIT_MS = 50.0
CEILING_SHARE = 0.5
IDLE_S = 10.0
_STAGES = ("queue_ms", "embed_ms", "retrieve_ms", "generate_ms")


@dataclass(frozen=True)
class Bench:
    """What measures: the processes that send, how many requests a second they can, the questions, and the device of the service.

    `ceilings` is by whether answers are streams.
    """

    senders: Senders
    ceilings: Mapping[bool, float]
    questions: Sequence[Question]
    device: Device


def check(experiment: Experiment) -> None:
    """Raise BadInput where a load has no request at a rate that will be asked for, or its trace is too short."""
    for name, load in experiment.settings["loads"].items():
        search = load.get("search")
        rates = [search["start"]] if search else load["rates"]
        if search and load["arrivals"] == "trace":
            rates = [*rates, search["most"] * max(1, *load.get("times", ()), 1)]
        for repeat in range(1, experiment.settings["repeats"] + 1):
            for rate in rates:
                arrivals(experiment, name, rate, repeat)


def arrivals(experiment: Experiment, name: str, rate: float, repeat: int) -> list[float]:
    """The schedule of a load, which all arms share. Raises BadInput for one without a single request, and for a trace that is too short."""
    load = experiment.settings["loads"][name]
    where = f"{experiment.where}: the load {name}"
    try:
        times = schedule(load, rate, [experiment.seed, repeat, round(rate * 1000)], trace_of(experiment, name))
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None
    if not times:
        raise BadInput(f"{where}: no request in {load['seconds']:g} s at {rate:g} a second; take more seconds or a higher rate")
    return times


def asked(questions: Sequence[Question], number: int, seed: Sequence[int]) -> list[Question]:
    """`number` questions: all of them in an order drawn by `seed`, then all in another order, and so on."""
    rng = np.random.default_rng(seed)
    rounds = -(-number // len(questions))
    return [questions[at] for _ in range(rounds) for at in rng.permutation(len(questions))][:number]


def measure(experiment: Experiment, point: Point, bench: Bench, url: str) -> Record:
    """The record of `point`: a header, and under `requests` a list for each column, with a value a request.

    The service at `url` is the point's arm, and idle. Raises RuntimeError where it does not answer.
    """
    device, load = bench.device, experiment.settings["loads"][point.load]
    times = arrivals(experiment, point.load, point.rate, point.repeat)
    chosen = asked(bench.questions, len(times), [experiment.seed, point.repeat])
    facts, begun = _said(url, "ready"), _restarts(url)
    if not facts or begun is None:
        raise RuntimeError(f"the service at {url} no longer answers; its log says why")
    if facts["device"] != ("cuda" if device.kind == "gpu" else "cpu"):
        raise BadInput(f"the service runs on {facts['device']} beside a {device.name}: install PyTorch's CUDA build, or use --device cpu")
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    before = gpu_state() if device.kind == "gpu" else None
    path, bodies = _requests(chosen, experiment.settings["k"], facts["model"] if load["stream"] else None)
    measured = bench.senders.offer(url + path, times, bodies, load["deadline_s"], load["stream"])
    after = gpu_state() if device.kind == "gpu" else None
    restarts, invalid = _broke(url, begun)
    invalid = invalid or _invalid(measured, point.rate, bench.ceilings[load["stream"]])
    rows = list(map(_row, range(len(chosen)), measured.outcomes, chosen))
    return {
        **_header(experiment, point, bench, facts),
        "in_flight": measured.in_flight,
        "little_ratio": measured.little_ratio,
        "lag_p99_ms": measured.lag_p99_ms,
        "restarts": restarts,
        "valid": not invalid,
        "invalid": invalid,
        "provenance": {**environment(), "gpu_before": before, "gpu_after": after},
        "started": started,
        "requests": {name: [row[name] for row in rows] for name in rows[0]},
    }


def _header(experiment: Experiment, point: Point, bench: Bench, facts: Mapping[str, Any]) -> Record:
    """What of a record is known before its load; `facts` is what the service says of itself."""
    settings, load = experiment.settings, experiment.settings["loads"][point.load]
    return {
        "point": point.id,
        "experiment": experiment.name,
        "arm": point.arm,
        "rate": point.rate,
        "repeat": point.repeat,
        "service": settings["arms"][point.arm]["service"],
        "arm_settings": experiment.arm(point.arm),
        "load_settings": load,
        **{name: facts[name] for name in ("model", "weights", "embedder", "embedder_weights", "corpus", "chunks")},
        "commits": models.commits(settings, experiment.where),
        "k": settings["k"],
        "deadline_s": float(load["deadline_s"]),
        "device": bench.device.name,
        "device_kind": bench.device.kind,
        "ceiling_rps": bench.ceilings[load["stream"]],
        "generators": bench.senders.number,
        "seed": experiment.seed,
        "protocol": PROTOCOL,
        "versions": versions(*LIBRARIES),
    }


def summary(point: Point, record: Record) -> str:
    """A point in one line, for whoever watches."""
    rows = record["requests"]
    status = rows["status"]
    times = zip(status, rows["end_s"], rows["scheduled_s"], strict=True)
    good = [(end - due) * 1e3 for state, end, due in times if state == "ok"]
    median = f"median {statistics.median(good):.0f} ms" if good else "none answered"
    lost = [f"{status.count(state)} {state}" for state in ("rejected", "timeout", "error")]
    notes = [part for part in lost if not part.startswith("0 ")]
    if not record["valid"]:
        notes.append(f"not valid: {record['invalid']}")
    return f"{name_of(point)}: {len(good)} of {len(status)} ok, {median}" + "".join(f", {note}" for note in notes)


def name_of(point: Point) -> str:
    """A point, for whoever watches."""
    return f"{point.arm}, {point.load} at {point.rate:g}/s"


def idle(url: str) -> bool:
    """Whether the service works on nothing, after up to `IDLE_S` seconds for what an earlier load left behind."""
    until = time.monotonic() + IDLE_S
    while time.monotonic() < until and reachable(url):
        facts = _said(url, "ready")
        if facts.get("running") == 0:
            return True
        time.sleep(0.05)  # what it still works on is behind HTTP: nothing here to wait on
    return False


def _requests(questions: Sequence[Question], k: int, model: str | None) -> tuple[str, list[dict[str, Any]]]:
    """The route and the bodies that ask `questions`, of `model` as a chat whose answer is a stream, or without one of the plain route."""
    if model is None:
        return "/rag", [{"query": question.text, "k": k} for question in questions]
    about = {"model": model, "k": k, "stream": True, "stream_options": {"include_usage": True}}
    return "/v1/chat/completions", [{**about, "messages": [{"role": "user", "content": question.text}]} for question in questions]


def _invalid(measured: Measured, rate: float, ceiling: float) -> str:
    """Why a load says nothing about the service; empty where it does."""
    off = abs(measured.in_flight - measured.expected)
    if off > max(LITTLE_TOLERANCE * measured.expected, LITTLE_REQUESTS):
        return f"Little's law does not hold: {measured.in_flight:.1f} in flight, {measured.expected:.1f} expected"
    if measured.lag_p99_ms > LAG_LIMIT_MS:
        return f"sent {measured.lag_p99_ms:.0f} ms late (99th percentile; at most {LAG_LIMIT_MS:g})"
    if rate > CEILING_SHARE * ceiling:
        return f"the load generator can send {ceiling:.0f} a second, and only {CEILING_SHARE:.0%} of that is measured"
    return ""


def _broke(url: str, begun: int) -> tuple[int, str]:
    """How often the service started anything anew since it said `begun`, and why the load is not valid; 0 where the service has ended.

    What listens and does not answer is held to be starting: an instance may have ended whose restart is not counted yet.
    """
    now = _restarts(url)
    if now is None:
        return (1, "the service listens and does not answer") if reachable(url) else (0, "")
    return now - begun, f"the service was started anew {now - begun} times" if now > begun else ""


def _restarts(url: str) -> int | None:
    """How often the service started instances and their stages anew, all of them; None where it does not answer."""
    found = _said(url, "health").get("restarts")
    return None if found is None else sum([found["instances"], *found["stages"].values()])


def _said(url: str, route: str) -> Mapping[str, Any]:
    """What a service says of itself; nothing where it does not answer."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"{url}/{route}", timeout=IDLE_S) as response:
            found: Mapping[str, Any] = json.load(response)
            return found
    except (OSError, ValueError):
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
        "first_token_s": outcome.first_token_s,
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
