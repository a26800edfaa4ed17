"""OpenAI's routes, for its unmodified clients: chat completions (whole and streamed), embeddings, models.

POST /v1/chat/completions answers the last message of the user from the corpus, greedily and with the length that the service is set to;
`k` (an extra field) is the number of chunks. What a client may send beyond the fields below is accepted and has no effect.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StringConstraints
from starlette.responses import JSONResponse, Response, StreamingResponse

from rag.answering import answered, disconnected, engine_of, refusal, too_many
from rag.engine import Served
from rag.errors import error
from rag.openapi import CHAT, CHAT_ANSWER, CHAT_STREAM, EMBED, EMBED_ANSWER, MODELS, answers
from rag.pipeline import Ask, Stream

TEXT = 4000
"""Characters of a query or of a text to embed at most."""
TEXTS = 256
"""Texts to embed in one request at most."""
MOST = 100
"""Chunks that an answer is made from at most."""


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


router = APIRouter(prefix="/v1")
Chunks = Annotated[int, Field(ge=1, le=MOST, strict=True), BeforeValidator(_whole)]
"""The number of chunks to answer from. A number alone: 2.0 is the integer 2 to JSON, "2" is none."""
Text = Annotated[str, StringConstraints(min_length=1, max_length=TEXT)]


class Part(BaseModel):
    """A part of a message's content; the text parts are what is read."""

    type: str
    text: str = ""


class Message(BaseModel):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content if part.type == "text")
        return self.content or ""


class StreamOptions(BaseModel):
    include_usage: StrictBool = False


class Chat(BaseModel):
    """The body of POST /v1/chat/completions."""

    model_config = ConfigDict(json_schema_extra={"examples": [CHAT]})
    model: str
    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)]
    stream: StrictBool = False
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    k: Chunks = 2


class Embed(BaseModel):
    """The body of POST /v1/embeddings."""

    model_config = ConfigDict(json_schema_extra={"examples": [EMBED]})
    model: str
    input: Text | Annotated[list[Text], Field(min_length=1, max_length=TEXTS)]
    encoding_format: Literal["float", "base64"] = "float"


@router.get("/models", responses=answers(503, example=MODELS))
async def models(request: Request) -> Response:
    """The generator and the encoder that are served."""
    engine = engine_of(request)
    names = [engine.facts["model"], engine.facts["embedder"]]
    return JSONResponse(
        {"object": "list", "data": [{"id": name, "object": "model", "created": 0, "owned_by": "blockwise"} for name in names]}
    )


@router.post(
    "/chat/completions", responses=answers(400, 404, 408, 413, 422, 429, 500, 502, 503, 504, example=CHAT_ANSWER, stream=CHAT_STREAM)
)
async def chat(request: Request, body: Chat) -> Response:
    """The answer to the last message of the user."""
    engine = engine_of(request)
    if body.model != engine.facts["model"]:
        return _unknown(body.model, engine.facts["model"])
    query = next((message.text.strip() for message in reversed(body.messages) if message.role == "user"), "")
    if not query or len(query) > TEXT:
        return error(422, "invalid", f"messages: the last one of the user has {len(query)} characters; give 1 to {TEXT}", param="messages")
    if refused := too_many(engine, body.k):
        return refused
    about = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": body.model}
    if body.stream:
        usage = body.stream_options is not None and body.stream_options.include_usage
        return await _streamed(request, Ask(query, body.k), about, usage)

    def respond(served: Served) -> Response:
        message = {"role": "assistant", "content": served.answer.result, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": "length", "logprobs": None}
        return JSONResponse({**about, "object": "chat.completion", "choices": [choice], "usage": _usage(served), **_extra(served)})

    return await answered(request, engine.ask(Ask(query, body.k)), respond)


@router.post("/embeddings", responses=answers(400, 404, 408, 413, 422, 429, 500, 503, 504, example=EMBED_ANSWER))
async def embeddings(request: Request, body: Embed) -> Response:
    """Embeddings of texts as queries, of length 1."""
    engine = engine_of(request)
    if body.model != engine.facts["embedder"]:
        return _unknown(body.model, engine.facts["embedder"])
    texts = [body.input] if isinstance(body.input, str) else body.input

    def respond(vectors: np.ndarray) -> Response:
        data = [
            {"object": "embedding", "index": number, "embedding": _encoded(row, body.encoding_format)} for number, row in enumerate(vectors)
        ]
        usage = {"prompt_tokens": 0, "total_tokens": 0}  # not counted
        return JSONResponse({"object": "list", "data": data, "model": body.model, "usage": usage})

    return await answered(request, engine.embed(texts), respond)


def _encoded(row: np.ndarray, form: str) -> Any:
    return row.tolist() if form == "float" else base64.b64encode(row.astype("<f4").tobytes()).decode()


def _unknown(asked: str, served: str) -> Response:
    return error(404, "model_not_found", f"model: {asked[:100]!r} is not served here; {served!r} is", param="model")


def _usage(served: Served) -> dict[str, int]:
    sent, written = served.answer.tokens_in, served.answer.tokens_out
    return {"prompt_tokens": sent, "completion_tokens": written, "total_tokens": sent + written}


def _extra(served: Served) -> dict[str, Any]:
    """What this service says beyond OpenAI's fields."""
    stages = {"queue_ms": served.queue_ms, **served.answer.stages}
    return {"retrieved": served.answer.retrieved, "batch": served.batch, "stages": stages}


async def _streamed(request: Request, ask: Ask, about: Mapping[str, Any], usage: bool) -> Response:
    """Server-sent events, one a piece of text as it is generated. What fails before the first piece is an answer with its status."""
    loop, pieces, started = asyncio.get_running_loop(), asyncio.Queue[str](), time.perf_counter()

    def sink(text: str) -> None:
        loop.call_soon_threadsafe(pieces.put_nowait, text)

    told = Ask(ask.query, ask.k, Stream(sink))
    answer = asyncio.ensure_future(engine_of(request).ask(told))
    first = asyncio.ensure_future(pieces.get())
    gone = asyncio.ensure_future(disconnected(request))
    with contextlib.ExitStack() as undo:
        undo.callback(answer.cancel)
        undo.callback(first.cancel)
        try:
            await asyncio.wait({answer, first, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()  # from here on the response itself listens for it
        if answer.done() and (failure := answer.exception()):
            return refusal(request, failure)
        if not answer.done() and not first.done():
            return Response(status_code=499)  # nobody is there to read it
        undo.pop_all()
    request.app.state.metrics.first_token.observe(time.perf_counter() - started)
    return StreamingResponse(_events(request, answer, first, pieces, about, usage), media_type="text/event-stream")


async def _events(
    request: Request,
    answer: asyncio.Future[Served],
    first: asyncio.Future[str],
    pieces: asyncio.Queue[str],
    about: Mapping[str, Any],
    usage: bool,
) -> AsyncIterator[str]:
    def event(choices: Sequence[Mapping[str, Any]], **more: Any) -> str:
        return f"data: {json.dumps({**about, 'object': 'chat.completion.chunk', 'choices': choices, **more})}\n\n"

    def choice(delta: Mapping[str, str], reason: str | None = None) -> list[dict[str, Any]]:
        return [{"index": 0, "delta": delta, "finish_reason": reason}]

    waiting: asyncio.Future[str] = first
    everything: set[asyncio.Future[Any]] = {answer, waiting}
    try:
        yield event(choice({"role": "assistant", "content": ""}))
        while True:
            await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                break  # the answer is there, and all its pieces were sent: they come before it
            yield event(choice({"content": waiting.result()}))
            waiting = asyncio.ensure_future(pieces.get())
            everything = {answer, waiting}
        if failure := answer.exception():
            yield f"data: {bytes(refusal(request, failure).body).decode()}\n\n"
            return
        served = answer.result()
        yield event(choice({}, "length"), **_extra(served))
        if usage:
            yield event([], usage=_usage(served))
        yield "data: [DONE]\n\n"
    finally:  # the client may have left
        waiting.cancel()
        answer.cancel()
