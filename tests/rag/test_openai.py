"""An unmodified OpenAI client against the service, over real HTTP: chats whole and streamed, embeddings, models, and what is refused."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import uvicorn

from rag.batcher import Expired, Rejected
from rag.engine import Served
from rag.launch import launched
from rag.pipeline import Answer, Ask
from tests.rag.conftest import config_of
from tests.rag.fakes import app_of

PIECES = ["To", " be", ",", " or é"]


class Played:
    """An engine that streams PIECES from another thread, or fails as its query says: before the first piece or after the second."""

    def __init__(self) -> None:
        self.facts = {"model": "opt", "embedder": "minilm", "chunks": 50}
        self.running, self.cancelled, self.left = 0, threading.Event(), list[str]()

    async def ask(self, ask: Ask) -> Served:
        if ask.query == "full":
            raise Rejected("9 requests wait already")
        if ask.query == "late":
            raise Expired("no answer within 1 s")
        if ask.query == "broken":
            raise ZeroDivisionError("secret")
        try:
            for number, piece in enumerate(PIECES):
                if ask.query == "breaks" and number == 2:
                    raise ZeroDivisionError("secret")
                if (ask.query, number) in {("hangs", 2), ("never begins", 0)}:
                    await asyncio.Event().wait()
                if ask.sink:
                    await asyncio.to_thread(ask.sink, piece)
        except asyncio.CancelledError:
            self.cancelled.set()
            self.left.append(ask.query)
            raise
        return Served(Answer("".join(PIECES), ("d#0",) * ask.k, 3, 4, {"embed_ms": 1.0}), 2.0, 5)

    async def embed(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([[len(text), 0.5] for text in texts], np.float32)


@contextlib.contextmanager
def served(engine: Played) -> Iterator[str]:
    @contextlib.asynccontextmanager
    async def opening():
        yield engine

    ready = threading.Event()
    app = app_of(opening, ready.set, lambda error: ready.set())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        assert ready.wait(10)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = server.force_exit = True
            thread.join()


def client_of(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, http_client=httpx.Client(trust_env=False))


@pytest.fixture(scope="module")
def engine() -> Played:
    return Played()


@pytest.fixture(scope="module")
def url(engine: Played) -> Iterator[str]:
    with served(engine) as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> openai.OpenAI:
    return client_of(url)


def asking(query: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": query}]
    return {"model": "opt", "messages": messages, **more}


def test_a_chat_is_answered_whole(client: openai.OpenAI):
    done = client.chat.completions.create(**asking("What now?", temperature=0, extra_body={"k": 3}))
    assert done.choices[0].message.content == "".join(PIECES)
    assert done.choices[0].finish_reason == "length"
    assert (done.usage.prompt_tokens, done.usage.completion_tokens, done.usage.total_tokens) == (3, 4, 7)
    assert done.model_extra["retrieved"] == ["d#0"] * 3 and done.model_extra["stages"] == {"queue_ms": 2.0, "embed_ms": 1.0}


def test_content_may_come_in_parts(client: openai.OpenAI):
    parts = [{"type": "text", "text": "What"}, {"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "now?"}]
    assert client.chat.completions.create(model="opt", messages=[{"role": "user", "content": parts}]).choices


def test_a_chat_is_streamed_piece_by_piece(client: openai.OpenAI):
    chunks = list(client.chat.completions.create(**asking("What now?", stream=True, stream_options={"include_usage": True})))
    said = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert said == PIECES
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert chunks[-1].usage.total_tokens == 7
    assert len({chunk.id for chunk in chunks}) == 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("query", "kind"),
    [("full", openai.RateLimitError), ("late", openai.APIStatusError), ("broken", openai.InternalServerError)],
)
def test_a_failure_before_the_first_piece_has_its_status(client: openai.OpenAI, query: str, kind: type[Exception], stream: bool):
    with pytest.raises(kind) as failed:
        client.chat.completions.create(**asking(query, stream=stream))
    assert "secret" not in str(failed.value)
    if query == "full":
        assert failed.value.response.headers["Retry-After"] == "1" and "9 requests wait already" in str(failed.value)


def test_a_failure_in_the_middle_of_a_stream_reaches_the_client(client: openai.OpenAI):
    said = []
    with pytest.raises(openai.APIError, match="could not be answered"):
        for chunk in client.chat.completions.create(**asking("breaks", stream=True)):
            said.append(chunk.choices[0].delta.content)
    assert said == ["", "To", " be"]


def test_a_client_that_leaves_a_stream_cancels_the_work(client: openai.OpenAI, engine: Played):
    stream = client.chat.completions.create(**asking("hangs", stream=True))
    assert [next(stream).choices[0].delta.content for _ in range(3)] == ["", "To", " be"]
    stream.close()
    assert engine.cancelled.wait(10)


def test_a_client_that_leaves_before_the_first_piece_cancels_the_work(client: openai.OpenAI, engine: Played):
    engine.cancelled.clear()
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(**asking("never begins", stream=True), timeout=0.2)
    assert engine.cancelled.wait(10) and engine.left[-1] == "never begins"


def decoded(embedding: list[float] | str) -> list[float]:
    return np.frombuffer(base64.b64decode(embedding), "<f4").tolist() if isinstance(embedding, str) else embedding


@pytest.mark.parametrize("form", [None, "float", "base64"])
def test_embeddings_come_in_both_encodings(client: openai.OpenAI, form: str | None):
    given = {} if form is None else {"encoding_format": form}  # the client's own default is base64
    done = client.embeddings.create(model="minilm", input=["four", "fives"], **given)
    rows = [decoded(one.embedding) for one in done.data]
    assert rows == [[4.0, 0.5], [5.0, 0.5]]
    assert client.embeddings.create(model="minilm", input="one").data[0].index == 0


def test_models_are_listed(client: openai.OpenAI):
    assert [model.id for model in client.models.list()] == ["opt", "minilm"]


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        pytest.param("/chat/completions", {**asking("x"), "model": "gpt"}, 404, "model", id="unknown model"),
        pytest.param("/chat/completions", {**asking("x"), "messages": []}, 422, "messages", id="no messages"),
        pytest.param(
            "/chat/completions", {"model": "opt", "messages": [{"role": "system", "content": "x"}]}, 422, "messages", id="no user"
        ),
        pytest.param("/chat/completions", asking("x" * 4001), 422, "messages", id="too long"),
        pytest.param("/chat/completions", asking("  "), 422, "messages", id="blank"),
        pytest.param("/chat/completions", asking("x", k=0), 422, "k", id="k of zero"),
        pytest.param("/chat/completions", asking("x", k=51), 422, "k", id="k above the chunks"),
        pytest.param("/chat/completions", asking("x", n=2), 422, "n", id="two answers"),
        pytest.param("/chat/completions", [], 422, None, id="a list"),
        pytest.param("/embeddings", {"model": "opt", "input": "x"}, 404, "model", id="no encoder"),
        pytest.param("/embeddings", {"model": "minilm", "input": []}, 422, "input.constrained-str", id="nothing to embed"),
        pytest.param("/embeddings", {"model": "minilm", "input": "x", "encoding_format": "hex"}, 422, "encoding_format", id="encoding"),
        pytest.param("/nothing", {}, 404, None, id="unknown path"),
    ],
)
def test_bad_requests_are_refused_in_openais_form(url: str, path: str, body: Any, status: int, param: str | None):
    response = httpx.post(f"{url}/v1{path}", json=body, trust_env=False)
    assert response.status_code == status
    fault = response.json()["error"]
    assert set(fault) == {"message", "type", "param", "code"} and fault["message"]
    assert fault["param"] == param


def test_the_real_service_streams_what_it_answers_whole(tmp_path_factory, texts_folder, scratch):
    with config_of(tmp_path_factory.mktemp("openai"), texts_folder, scratch) as path:
        words = ["--config", str(path), "--name", "tiny", "--device", "cpu", "--arm", "batched"]
        with launched(words, path.with_name("service.log")) as address:
            client = client_of(address)
            names = [model.id for model in client.models.list()]
            whole = client.chat.completions.create(**{**asking("Who trims the mainsail?"), "model": names[0]})
            streamed = list(client.chat.completions.create(**{**asking("Who trims the mainsail?", stream=True), "model": names[0]}))
            vector = client.embeddings.create(model=names[1], input="Who trims the mainsail?", encoding_format="float").data[0].embedding
    said = "".join(chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices)
    assert said == whole.choices[0].message.content
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
