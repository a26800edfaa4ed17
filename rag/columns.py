"""The columns of a RAG experiment's records, with their types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

REQUEST = {
    "request": "int64",
    **dict.fromkeys(("scheduled_s", "sent_s", "first_token_s", "end_s"), "double"),
    "status": "string",
    "http": "int64",
    "reason": "string",
    **dict.fromkeys(("queue_ms", "embed_ms", "retrieve_ms", "generate_ms"), "double"),
    "batch": "int64",
    "question": "string",
    "source": "string",
    "retrieved": "strings",
    "rank": "int64",
    "tokens_in": "int64",
    "tokens_out": "int64",
    "lag_ms": "double",
}
"""The columns that each request has of its own, with their types."""
POINT = {
    "point": "string",
    "attempt": "int64",
    "trial": "int64",
    "experiment": "string",
    "arm": "string",
    "rate": "double",
    "repeat": "int64",
    "service": "string",
    "arm_settings": "json",
    "load_settings": "json",
    **dict.fromkeys(("model", "weights", "embedder", "embedder_weights", "corpus"), "string"),
    "commits": "json",
    "chunks": "int64",
    "k": "int64",
    "deadline_s": "double",
    "device": "string",
    "device_kind": "string",
    **dict.fromkeys(("in_flight", "little_ratio", "lag_p99_ms", "ceiling_rps"), "double"),
    "generators": "int64",
    "restarts": "int64",
    "valid": "bool",
    "invalid": "string",
    "seed": "int64",
    "protocol": "int64",
    "versions": "json",
    "provenance": "json",
    "started": "string",
}
"""The columns that all requests of a point share."""
DERIVED = {"load": "string", "probe": "string", "multiple": "double", "found_rps": "double", "slo_ms": "double"}
"""The columns that follow from the config and the other points, so that the journal has none of them."""


def schema() -> Any:
    """All columns as an Arrow schema."""
    import pyarrow as pa

    return pa.schema([pa.field(name, _type(kind)) for name, kind in {**POINT, **DERIVED, **REQUEST}.items()])


def table(columns: Mapping[str, Sequence[Any]], kinds: Mapping[str, str]) -> Any:
    """An Arrow table of columns of these kinds."""
    import pyarrow as pa

    return pa.table({name: pa.array(columns[name], _type(kind)) for name, kind in kinds.items()})


def _type(kind: str) -> Any:
    import pyarrow as pa

    if kind == "strings":
        return pa.list_(pa.string())
    return pa.dictionary(pa.int32(), pa.string()) if kind == "json" else pa.type_for_alias(kind)
