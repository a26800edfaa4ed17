"""The arms of one experiment differ in how they serve, not in what they answer; admission is bounded over all stages."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
import torch

from analysis.environment import ROOT
from rag import components, config
from rag.batched import BatchedEngine, batched, check
from rag.batcher import Batcher, Expired, Lost, Rejected
from rag.echo import Echo
from rag.pipeline import Answer, Ask, Stream
from tests.rag.conftest import config_of
from tests.rag.fakes import Host

QUERIES = ["How does bread rise?", "Who castles?", "What gathers starlight?", "When are roses pruned?", "What is a mortgage?"]
ARMS: dict[str, dict[str, Any]] = {
    "one at a time": {"max_batch": 1, "overlap": False, "embedding": "single", "retrieval": "numpy", "graphs": False},
    "batches": {"overlap": False, "embedding": "single", "retrieval": "numpy", "graphs": False},
    "batched embedding": {"overlap": False, "retrieval": "numpy", "graphs": False},
    "own retrieval": {"overlap": False, "graphs": False},
    "overlapped": {},
    "a timer": {"wait_ms": 20},
    "a token budget": {"tokens": 60},
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory, texts_folder, scratch) -> tuple[config.Experiment, components.Components]:
    arms = {name.replace(" ", "_"): {"service": "batched", "max_batch": 4, "queue": 16, **arm} for name, arm in ARMS.items()}
    with config_of(tmp_path_factory.mktemp("arms"), texts_folder, scratch, arms=arms) as path:
        experiment = config.read(path, "tiny")
        return experiment, components.load(experiment, experiment.arm("overlapped"), "cpu")


def answers(experiment: config.Experiment, parts: components.Components, name: str) -> list[tuple[Any, ...]]:
    arm = experiment.arm(name.replace(" ", "_"))

    async def scenario() -> list[tuple[Any, ...]]:
        async with batched(lambda: dataclasses.replace(parts, arm=arm), arm, 2, 60, Host()) as engine:
            served = await asyncio.gather(*(engine.ask(Ask(query, 2)) for query in QUERIES))
            assert engine.running == 0
        assert all(set(one.answer.stages) == {"embed_ms", "retrieve_ms", "generate_ms"} for one in served)
        assert all(one.batch <= arm["max_batch"] for one in served)
        return [(one.answer.result, one.answer.retrieved, one.answer.tokens_in) for one in served]

    return asyncio.run(scenario())


@pytest.mark.parametrize("name", [name for name in ARMS if name != "one at a time"])
def test_every_arm_answers_what_one_at_a_time_does(loaded: tuple[config.Experiment, components.Components], name: str):
    assert answers(*loaded, name) == answers(*loaded, "one at a time")


class Gate:
    """Work that waits for its gate."""

    def __init__(self) -> None:
        self.gate = threading.Event()

    def __call__(self, requests: Any) -> Any:
        assert self.gate.wait(10)
        return requests


@pytest.mark.parametrize("stage", [0, 1], ids=["while the first stage works", "while the second does"])
def test_admission_is_bounded_over_all_stages(stage: int):
    async def scenario() -> list[str]:
        gates = [Gate(), Gate()]
        gates[1 - stage].gate.set()
        async with Batcher(gates[0], 2, 9) as first, Batcher(gates[1], 2, 9) as second:
            engine = BatchedEngine([first, second], first, capacity=5, deadline_s=5, facts={}, host=Host())
            asks = [asyncio.create_task(engine.ask(Ask(str(number), 1))) for number in range(5)]
            await asyncio.sleep(0.1)
            with pytest.raises(Rejected):
                await engine.ask(Ask("one too many", 1))
            gates[stage].gate.set()
            done = [(await ask).answer.query for ask in asks]
            assert engine.running == 0
            return done

    assert asyncio.run(scenario()) == ["0", "1", "2", "3", "4"]


def test_texts_are_embedded_as_queries_are(loaded: tuple[config.Experiment, components.Components]):
    experiment, parts = loaded
    arm = experiment.arm("overlapped")

    async def scenario() -> np.ndarray:
        async with batched(lambda: parts, arm, 2, 60, Host()) as engine:
            return await engine.embed(QUERIES)

    found = asyncio.run(scenario())
    np.testing.assert_allclose(found, parts.embedder.queries(QUERIES).numpy(), atol=1e-5)


def test_the_deadline_holds_over_all_stages():
    async def scenario() -> None:
        gates = [Gate(), Gate()]
        gates[0].gate.set()
        async with Batcher(gates[0], 2, 9) as first, Batcher(gates[1], 2, 9) as second:
            engine = BatchedEngine([first, second], first, capacity=5, deadline_s=0.2, facts={}, host=Host())
            with pytest.raises(Expired, match=r"^no answer within 0\.2 s$"):
                await engine.ask(Ask("late", 1))
            gates[1].gate.set()

    asyncio.run(scenario())


def test_the_timer_and_the_lengths_are_the_first_stage_s():
    async def scenario() -> list[Any]:
        counted = []

        class Counting(Echo):
            def length(self, prompt: str) -> int:
                counted.append(threading.current_thread().name)
                return super().length(prompt)

            def write(self, found: Any) -> Any:
                assert [one.tokens for one in found] == [len(one.prompt.split()) for one in found]
                return [Answer(one.prompt, (), 1, 1, {}) for one in found]

        arm = {**config.BATCHED, "max_batch": 1, "queue": 8, "wait_ms": 5, "tokens": 9}
        async with batched(lambda: Counting("cpu"), arm, 2, 60, Host()) as engine:
            counted.clear()
            await engine.ask(Ask("one two", 1))
            return [set(counted), *(stage.wait_s for stage in engine.chain)]  # type: ignore[attr-defined]

    assert asyncio.run(scenario()) == [{"find"}, 0.005, 0.0]


@pytest.mark.parametrize("overlap", [True, False], ids=["overlapped", "in one stage"])
def test_a_stream_that_has_begun_gets_no_piece_twice(overlap: bool):
    class Breaking(Echo):
        def write(self, found: Any) -> Any:
            written = super().write(found)
            return fail() if any("poison" in one.prompt for one in found) else written

    async def scenario() -> tuple[list[str], list[object]]:
        pieces: list[str] = []
        entered, gate = threading.Event(), threading.Event()

        def sink(text: str) -> None:
            pieces.append(text)
            entered.set()
            assert gate.wait(10)

        arm = {**config.BATCHED, "max_batch": 4, "queue": 8, "overlap": overlap}
        async with batched(lambda: Breaking("cpu"), arm, 2, 60, Host()) as engine:
            first = asyncio.create_task(engine.ask(Ask("poison first", 1, Stream(sink))))
            await asyncio.to_thread(entered.wait, 10)
            others = [asyncio.create_task(engine.ask(Ask(query, 1, Stream(pieces.append)))) for query in ("streamed", "poison")]
            await asyncio.sleep(0)
            gate.set()
            outcomes = await asyncio.gather(first, *others, return_exceptions=True)
        return pieces, outcomes

    pieces, outcomes = asyncio.run(scenario())
    assert sorted(pieces) == ["poison", "poison first", "streamed"]
    assert isinstance(outcomes[0], RuntimeError) and isinstance(outcomes[2], RuntimeError)


def test_a_device_that_answers_is_not_lost(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.synchronize", lambda: None)
    check("cuda", RuntimeError("CUDA out of memory"))
    monkeypatch.setattr("torch.cuda.synchronize", fail)
    check("cpu", RuntimeError("a wrong shape"))


def fail() -> None:
    raise RuntimeError("CUDA error: device-side assert triggered")


def test_a_lost_device_is_reported_and_fails_what_is_in_hand(monkeypatch: pytest.MonkeyPatch):
    class Asserting(Echo):
        broken = False

        def write(self, found: Any) -> Any:
            return fail() if self.broken else super().write(found)

    async def scenario() -> tuple[list[object], Host]:
        arm, host = {**config.BATCHED, "max_batch": 4, "queue": 8}, Host()
        engine_of_echo = Asserting("cuda")
        async with batched(lambda: engine_of_echo, arm, 2, 60, host) as engine:
            engine_of_echo.broken = True  # the warm-up was well
            monkeypatch.setattr("torch.cuda.synchronize", fail)
            return await asyncio.gather(*(engine.ask(Ask(query, 1)) for query in QUERIES), return_exceptions=True), host

    outcomes, host = asyncio.run(scenario())
    assert all(isinstance(outcome, Lost) for outcome in outcomes)
    assert host.losses and "device-side assert" in str(host.losses[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a GPU whose kernels fail")
def test_a_failed_assertion_in_a_kernel_is_a_lost_device():
    """In a process of its own, which is of no use afterwards."""
    code = (
        "import torch; from rag.batched import check; from rag.batcher import Lost\n"
        "try: torch.zeros(2, device='cuda')[torch.tensor([9], device='cuda')].cpu()\n"
        "except Exception as error:\n"
        "    try: check('cuda', error)\n"
        "    except Lost: print('lost')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.stdout == "lost\n", done.stderr
