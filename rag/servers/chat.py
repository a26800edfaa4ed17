"""What is asked of an OpenAI-compatible server, each within a bound; errors that come as HTTP 200 are errors."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from rag.servers.errors import ServerFailed


@dataclass(frozen=True)
class Answer:
    """A chat answer, and the seconds from asking to having it."""

    text: str
    tokens_out: int
    seconds: float


class Client:
    """One connection at a time to a server. Every method raises ServerFailed, which names the address, what was asked, and what came."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._http = httpx.Client(base_url=address, trust_env=False)  # no proxy is asked for a node

    def close(self) -> None:
        self._http.close()

    def healthy(self, within_s: float = 2.0) -> bool:
        """Whether `/health` answers 200."""
        try:
            return self._http.get("/health", timeout=within_s).status_code == 200
        except httpx.HTTPError:
            return False

    def models(self, within_s: float) -> list[str]:
        """The names in `/v1/models`, which ServerlessLLM lists under `models` and everybody else under `data`."""
        answer = self._ask("GET", "/v1/models", None, within_s)
        return [each["id"] for each in answer.get("data", answer.get("models")) or []]

    def chat(self, model: str, prompt: str, max_tokens: int, within_s: float, **more: Any) -> Answer:
        """The answer to one prompt: it must have text."""
        begin = time.monotonic()
        body = {"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": max_tokens, **more}
        answer = self._ask("POST", "/v1/chat/completions", body, within_s)
        try:
            text, tokens = answer["choices"][0]["message"]["content"], answer["usage"]["completion_tokens"]
        except (KeyError, IndexError, TypeError):
            text, tokens = None, 0
        if not isinstance(text, str) or not text:
            raise ServerFailed(f"{self.address}/v1/chat/completions: {model!r} answered without content: {str(answer)[:300]}")
        return Answer(text, tokens, time.monotonic() - begin)

    def embeddings(self, model: str, texts: Sequence[str], within_s: float) -> list[list[float]]:
        """One vector a text."""
        answer = self._ask("POST", "/v1/embeddings", {"model": model, "input": list(texts)}, within_s)
        vectors = [each["embedding"] for each in answer.get("data", [])]
        if len(vectors) != len(texts):
            raise ServerFailed(f"{self.address}/v1/embeddings: {len(vectors)} vectors for {len(texts)} texts: {str(answer)[:300]}")
        return vectors

    def post(self, path: str, body: Mapping[str, Any], within_s: float) -> dict[str, Any]:
        """The answer to any other request."""
        return self._ask("POST", path, body, within_s)

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None, within_s: float) -> dict[str, Any]:
        where = f"{self.address}{path}"
        try:
            response = self._http.request(method, path, json=body, timeout=within_s)
        except httpx.TimeoutException:
            raise ServerFailed(f"{where}: no answer within {within_s:g} s") from None
        except httpx.HTTPError as error:
            raise ServerFailed(f"{where}: {type(error).__name__}: {error}") from None
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if response.status_code != 200:
            raise ServerFailed(f"{where}: HTTP {response.status_code}: {response.text[:300]}")
        if not isinstance(answer, dict):
            raise ServerFailed(f"{where}: not a JSON object: {response.text[:300]!r}")
        if answer.get("error") or answer.get("preempted"):
            raise ServerFailed(f"{where}: HTTP 200 with an error: {str(answer.get('error') or answer)[:300]}")
        return answer
