"""Errors as JSON in the form of OpenAI's API, which its clients turn into exceptions with the message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


def error(status: int, code: str, message: str, headers: Mapping[str, str] | None = None, param: str | None = None) -> JSONResponse:
    """An answer of this status that says what was wrong, and with `param` which field of the request."""
    return JSONResponse(form(status, code, message, param), status, dict(headers or {}))


def form(status: int, code: str, message: str, param: str | None = None) -> dict[str, Any]:
    """The body of such an answer."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
