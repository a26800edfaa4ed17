"""The OpenAPI document: every route has its examples and its error statuses, and the service keeps to it whatever is sent."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Any

import jsonschema
import pytest

from rag import openapi
from tests.commands import ROOT
from tests.rag.fakes import app_of
from tests.rag.test_api import Fixed

sys.path.append(str(ROOT / "docs" / "benchmarks"))

import fuzz

POSTS = ["/rag", "/v1/chat/completions", "/v1/embeddings"]
FACTS = {"model": "opt", "embedder": "minilm", "chunks": 1}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return app_of(None, None, None).openapi()


def examples(document: dict[str, Any], path: str) -> list[Any]:
    name = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    return document["components"]["schemas"][name]["examples"]


@pytest.mark.parametrize("path", POSTS)
def test_every_route_has_an_example_of_a_request_that_fits_its_schema(document: dict[str, Any], path: str):
    schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    for example in examples(document, path):
        jsonschema.validate(example, {**schema, "components": document["components"]})


def test_every_answer_and_every_error_has_an_example(document: dict[str, Any]):
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["description"], path
            for status, answer in operation["responses"].items():
                assert all("example" in content for content in answer["content"].values()), (path, status)
    for path in POSTS:
        assert {"200", "400", "408", "413", "422", "429", "500", "503", "504"} <= set(document["paths"][path]["post"]["responses"])


@pytest.mark.parametrize("status", openapi.ERRORS)
def test_an_example_of_an_error_is_in_openais_form(status: int):
    answer = openapi.answers(status, example={})[status]
    openapi.Failed.model_validate(answer["content"]["application/json"]["example"], strict=True)


def test_a_service_s_own_document_names_its_models_and_bounds(document: dict[str, Any]):
    own = openapi.served(document, FACTS)
    assert examples(own, "/v1/chat/completions")[0]["model"] == "opt" and examples(own, "/v1/embeddings")[0]["model"] == "minilm"
    with pytest.raises(jsonschema.ValidationError, match="2 is greater than the maximum of 1"):
        jsonschema.validate({"query": "x", "k": 2}, own["components"]["schemas"]["Query"])
    assert "enum" not in document["components"]["schemas"]["Chat"]["properties"]["model"]  # the general one is left alone
    for path in POSTS:
        assert examples(own, path)[0].get("k", 1) == 1


def test_the_document_is_the_service_s_own_once_it_is_ready():
    async def scenario() -> Any:
        ready = asyncio.Event()

        @contextlib.asynccontextmanager
        async def opening():
            engine = Fixed()
            engine.facts |= FACTS
            yield engine

        app = app_of(opening, ready.set, print)
        async with app.router.lifespan_context(app):
            await asyncio.wait_for(ready.wait(), 5)
            return app.openapi()["components"]["schemas"]["Chat"]["properties"]["model"]["enum"]

    assert asyncio.run(scenario()) == ["opt"]


def test_some_hundred_cases_against_a_real_service():
    record = fuzz.fuzz("echo", cases=150, seed=3)
    assert record["cases"] >= 150 and record["statuses"]["200"] > 0
    assert (record["failures"], record["errors"], record["server_errors"], record["tracebacks"]) == ([], [], 0, 0)
