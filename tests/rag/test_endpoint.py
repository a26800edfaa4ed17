"""A generator behind an endpoint: what goes there, what comes back, and what is made of an endpoint that misbehaves."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.cli import BadInput
from rag import config
from rag.batcher import Done, Ended, Expired, Rejected
from rag.endpoint import Endpoint, Remote, Session, Upstream, _text, _usage, remote
from rag.launch import launched
from rag.pipeline import Found
from tests.rag import fake_endpoint

KEY = "secret-key"


@pytest.fixture(scope="module")
def server() -> Iterator[fake_endpoint.Endpoint]:
    with fake_endpoint.endpoint() as running:
        yield running


def found(prompt: str, sink: Any = None) -> Found:
    return Found(("d#0",), prompt, {"embed_ms": 1.0}, sink)


def asked(server: fake_endpoint.Endpoint, prompt: str, sink: Any = None, seconds: float = 30) -> Done[Any]:
    async def scenario() -> Done[Any]:
        async with Endpoint(Remote(server.url, "opt", 2, KEY), most=4) as stage:
            return await stage.submit(found(prompt, sink), seconds)

    return asyncio.run(scenario())


def test_an_answer(server: fake_endpoint.Endpoint):
    done = asked(server, "or not")
    answer = done.result
    assert (answer.result, answer.retrieved, answer.tokens_in, answer.tokens_out) == ("to or not", ("d#0",), 3, 2)
    assert set(answer.stages) == {"embed_ms", "generate_ms"} and done.batch == 1
    sent = server.asked[-1]
    assert (sent["model"], sent["max_tokens"], sent["temperature"]) == ("opt", 2, 0) and "stream" not in sent
    assert server.keys == {f"Bearer {KEY}"}


def test_pieces_come_as_they_are_streamed(server: fake_endpoint.Endpoint):
    pieces: list[str] = []
    answer = asked(server, "or not", pieces.append).result
    assert pieces == ["to", " be"] and (answer.result, answer.tokens_out) == ("to be", 2)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("prompt", [*fake_endpoint.WRONG, "closes"])
def test_what_is_wrong_upstream_is_said_with_a_status_and_without_the_key(
    server: fake_endpoint.Endpoint, caplog: pytest.LogCaptureFixture, prompt: str, streamed: bool
):
    with caplog.at_level(logging.DEBUG), pytest.raises(Upstream) as failed:
        asked(server, prompt, [].append if streamed else None)
    assert failed.value.status == {"busy": 429, "timed out": 504}.get(prompt, 502)
    assert KEY not in str(failed.value) + caplog.text and "Traceback" not in str(failed.value)
    assert len([body for body in server.asked if prompt in body["messages"][0]["content"]]) <= 2  # never tried again


def test_the_key_stays_out_of_representations():
    assert KEY not in repr(Remote("http://x/v1", "opt", 2, KEY))


def test_an_endpoint_that_hangs_is_given_up_at_the_deadline(server: fake_endpoint.Endpoint):
    with pytest.raises(Expired):
        asked(server, "hold", seconds=0.2)


def test_an_endpoint_that_is_not_there():
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"

    async def scenario() -> None:
        async with Endpoint(Remote(url, "opt", 2), most=4) as stage:
            await stage.submit(found("x"), 30)

    with pytest.raises(Upstream, match=url) as failed:
        asyncio.run(scenario())
    assert failed.value.status == 502


def test_requests_do_not_wait_for_each_other_up_to_the_bound():
    async def scenario() -> tuple[list[str], int, int]:
        with fake_endpoint.endpoint() as server:
            async with Endpoint(Remote(server.url, "opt", 2), most=2) as stage:
                held = asyncio.create_task(stage.submit(found("hold"), 30))
                quick = [(await stage.submit(found(str(number)), 30)).result.result for number in range(3)]
                second = asyncio.create_task(stage.submit(found("hold too"), 30))
                third = asyncio.create_task(stage.submit(found("late"), 30))
                await asyncio.to_thread(server.held.wait, 10)
                await asyncio.sleep(0)
                counts = stage.running, stage.waiting
                third.cancel()
                await asyncio.wait({third})
                assert stage.waiting == 0
                server.gate.set()
                await asyncio.gather(held, second)
                assert stage.running == 0
        with pytest.raises(Rejected):
            await stage.submit(found("x"), 1)
        return quick, *counts

    assert asyncio.run(scenario()) == (["to 0", "to 1", "to 2"], 2, 1)


def test_what_waits_for_a_place_when_it_ends_is_told_so():
    async def scenario() -> list[object]:
        with fake_endpoint.endpoint() as server:
            async with Endpoint(Remote(server.url, "opt", 2), most=1) as stage:
                asked = [asyncio.create_task(stage.submit(found(prompt), 30)) for prompt in ("hold", "waits")]
                await asyncio.to_thread(server.held.wait, 10)
            outcomes = await asyncio.gather(*asked, return_exceptions=True)
            server.gate.set()
            return outcomes

    assert [type(one) for one in asyncio.run(scenario())] == [Ended, Ended]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.sampled_from(["choices", "message", "content", "usage", "x"]), part),
    max_leaves=8,
)


@settings(max_examples=200)
@given(choices=st.lists(json_values, max_size=3), usage=json_values)
def test_any_json_is_read_without_a_surprise(choices: list[Any], usage: Any):
    text = _text({"choices": choices}, "message")
    assert text is None or isinstance(text, str)
    assert all(isinstance(count, int) and count >= 0 for count in _usage({"usage": usage}))


def test_the_key_comes_from_the_environment_alone(write_config, block, monkeypatch):
    block["generator"] = {"endpoint": "http://127.0.0.1:1/v1/", "model": "opt", "key_env": "MY_KEY", "new_tokens": 3}
    experiment = config.read(write_config(block), "tiny")
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(BadInput, match=r"generator\.key_env: the environment variable 'MY_KEY' is not set"):
        remote(experiment.settings["generator"], f"{experiment.where}.generator")
    monkeypatch.setenv("MY_KEY", KEY)
    made = remote(experiment.settings["generator"], "here")
    assert (made.url, made.name, made.new_tokens, made.key) == ("http://127.0.0.1:1/v1", "opt", 3, KEY)


@pytest.mark.parametrize(
    ("generator", "says"),
    [
        ({"endpoint": "http://x/v1"}, "generator: endpoint needs model beside it"),
        ({"model": "x", "key_env": "K"}, "generator: key_env needs endpoint beside it"),
        ({"model": "x", "endpoint": "ftp://x"}, "generator.endpoint: 'ftp://x' does not match"),
        ({"model": "x", "endpoint": "http://me:secret@x/v1"}, "generator.endpoint"),
    ],
    ids=["no model", "a key without endpoint", "no http", "a key in the address"],
)
def test_bad_endpoints_are_named(write_config, block, generator, says):
    with pytest.raises(BadInput, match=says):
        config.read(write_config({**block, "generator": generator}), "tiny")


def test_this_service_is_such_an_endpoint(write_config, block, tmp_path):
    """Whole and streamed, against the real one with echo stages: it answers the prompt."""
    path = write_config({**block, "arms": {"echo": {"service": "echo"}}})
    with launched(["--config", str(path), "--name", "tiny", "--arm", "echo"], tmp_path / "log") as url:

        async def scenario() -> list[Any]:
            pieces: list[str] = []
            async with Session(Remote(f"{url}/v1", "echo", 3)) as session:
                return [await session.generate("to be or not"), await session.generate("to be", pieces.append), pieces]

        whole, streamed, pieces = asyncio.run(scenario())
        assert (whole.text, whole.tokens_in, streamed.text, streamed.tokens_out, pieces) == ("to be or not", 4, "to be", 2, ["to be"])
        with pytest.raises(Upstream, match="404"):

            async def wrong() -> None:
                async with Session(Remote(f"{url}/v1", "gpt", 3)) as session:
                    await session.generate("x")

            asyncio.run(wrong())
