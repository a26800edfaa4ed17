"""What the OpenAPI document says beyond the routes' own types: examples, and every error status with its form."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.config import JsonDict

from rag.errors import form

STAGES = {"queue_ms": 1.2, "embed_ms": 3.4, "retrieve_ms": 0.6, "generate_ms": 40.1}
RAG: JsonDict = {"query": "How is a list sorted?", "k": 2}
RAG_ANSWER = {
    "query": "How is a list sorted?",
    "result": "By its method sort.",
    "retrieved": ["builtins.list.sort#0", "builtins.sorted#0"],
    "tokens_in": 41,
    "tokens_out": 6,
    "batch": 3,
    "stages": STAGES,
}
CHAT: JsonDict = {"model": "opt-125m", "messages": [{"role": "user", "content": "How is a list sorted?"}], "k": 2}
CHAT_ANSWER = {
    "id": "chatcmpl-0",
    "created": 1767225600,
    "model": "opt-125m",
    "object": "chat.completion",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "By its method sort.", "refusal": None},
            "finish_reason": "length",
            "logprobs": None,
        }
    ],
    "usage": {"prompt_tokens": 41, "completion_tokens": 6, "total_tokens": 47},
    "retrieved": ["builtins.list.sort#0", "builtins.sorted#0"],
    "batch": 3,
    "stages": STAGES,
}
CHAT_STREAM = (
    "data: "
    + json.dumps(
        {
            "id": "chatcmpl-0",
            "created": 1767225600,
            "model": "opt-125m",
            "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": {"content": "By"}, "finish_reason": None}],
        }
    )
    + "\n\ndata: [DONE]\n\n"
)
EMBED: JsonDict = {"model": "minilm", "input": ["How is a list sorted?"]}
EMBED_ANSWER = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.6, 0.8]}],
    "model": "minilm",
    "usage": {"prompt_tokens": 0, "total_tokens": 0},
}
MODELS = {"object": "list", "data": [{"id": "opt-125m", "object": "model", "created": 0, "owned_by": "blockwise"}]}
READY = {"status": "ready", "running": 0, "instance": 0, "instances": 1, "model": "opt-125m", "weights": "random", "device": "cuda"}
HEALTH = {"status": "ok", "instance": 0, "restarts": {"instances": 0, "stages": {"find": 0, "write": 0, "answer": 0, "embed": 0}}}
ERRORS = {
    400: ("invalid", "The body is no JSON.", "There was an error parsing the body"),
    404: ("model_not_found", "The model is not served here.", "model: 'gpt' is not served here; 'opt-125m' is"),
    408: ("slow", "The body took too long to arrive.", "the body took more than 10 s"),
    413: ("large", "The body is too large.", "the body has more than 1048576 bytes"),
    422: ("invalid", "A field is missing, wrong, or out of its bounds.", "body.k: Input should be greater than or equal to 1"),
    429: ("rejected", "The queue is full: come back after Retry-After seconds.", "80 requests are being answered already"),
    500: ("failed", "The request could not be answered.", "the request could not be answered; the service's log says why"),
    502: ("upstream", "The generator's endpoint did not answer as it should.", "http://127.0.0.1:8001/v1 answered 500"),
    503: ("loading", "The models are being loaded, a stage starts anew, or the service ends.", "the models are being loaded"),
    504: ("timeout", "The deadline passed.", "no answer within 5 s"),
}


class Fault(BaseModel):
    """What was wrong; `param` is the field of the request, where one is to blame."""

    message: str
    type: str
    param: str | None
    code: str


class Failed(BaseModel):
    """An error in the form of OpenAI's API."""

    error: Fault


def answers(*statuses: int, example: Any, stream: str | None = None, media: str = "application/json") -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: its answer's example, one of a stream where it has one, and these error statuses."""
    content: dict[str, Any] = {media: {"example": example, "schema": {"type": "object" if media == "application/json" else "string"}}}
    if stream is not None:
        content["text/event-stream"] = {"example": stream}
    return {200: {"description": "The answer.", "content": content}, **{status: _error(status) for status in statuses}}


def served(document: dict[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """`document` with what holds for this service alone: the models that a request may name, and the number of chunks."""
    document = copy.deepcopy(document)
    for name, model in (("Chat", facts["model"]), ("Embed", facts["embedder"]), ("Query", None)):
        schema = document["components"]["schemas"][name]
        fields = schema["properties"]
        if model is not None:
            fields["model"]["enum"] = [model]
            schema["examples"] = [example | {"model": model} for example in schema["examples"]]
        if "k" in fields:
            fields["k"]["maximum"] = min(fields["k"]["maximum"], facts["chunks"])
            schema["examples"] = [example | {"k": min(example["k"], facts["chunks"])} for example in schema["examples"]]
    return document


def _error(status: int) -> dict[str, Any]:
    code, description, message = ERRORS[status]
    return {"model": Failed, "description": description, "content": {"application/json": {"example": form(status, code, message)}}}
