"""Every answer has the form that the OpenAPI document describes."""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import TYPE_CHECKING, Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

if TYPE_CHECKING:
    from conftest import Shown

DOCUMENT: dict[str, Any] = json.loads(
    resources.files("canhazgpu.cli.web").joinpath("openapi.json").read_text("utf-8")
)
ASKED = {
    "/cluster.json": ("/cluster.json", "/cluster.json?user=anna", "/cluster.json?state=x"),
    "/summary.json": ("/summary.json", "/summary.json?free=1"),
    "/nodes/{node}.json": ("/nodes/n1.json", "/nodes/nix.json"),
    "/queue.json": ("/queue.json",),
    "/people.json": ("/people.json",),
    "/people/{user}.json": ("/people/anna.json", "/people/nobody-of-us.json"),
    "/jobs/{job}.json": ("/jobs/41.json", "/jobs/run:00000000000000b0.json", "/jobs/9.json"),
    "/report.json": ("/report.json", "/report.json?days=30", "/report.json?days=x"),
}
OTHERS = {"/metrics", "/live"}


def test_the_document_is_openapi_and_names_every_address() -> None:
    validate(DOCUMENT)
    assert DOCUMENT["paths"].keys() == ASKED.keys() | OTHERS


@pytest.mark.slow
@pytest.mark.parametrize("path", ASKED)
def test_answers_have_the_form_that_is_described(shown: Shown, path: str) -> None:
    described = DOCUMENT["paths"][path]["get"]["responses"]
    for address in ASKED[path]:
        answer = shown.web.ask(address)
        response = described[str(answer.status)]
        schema = response["content"]["application/json"]["schema"]
        validator = OAS31Validator({**schema, "components": DOCUMENT["components"]})
        errors = [
            f"{list(one.path)}: {one.message[:300]}" for one in validator.iter_errors(answer.json())
        ]
        assert errors == [], address


@pytest.mark.slow
def test_the_document_is_served(shown: Shown) -> None:
    assert shown.web.ask("/openapi.json").json() == DOCUMENT


@pytest.mark.slow
def test_every_json_of_a_page_is_in_the_document(shown: Shown) -> None:
    for page in ("/", "/nodes/n1", "/jobs/41", "/people", "/people/anna", "/queue", "/report"):
        match = re.search(r'<a href="([^"?]*)[^"]*">this page as JSON', shown.web.ask(page).text)
        assert match is not None
        forms = [re.sub(r"\{\w+\}", "[^/]+", one) for one in DOCUMENT["paths"]]
        assert any(re.fullmatch(form, match[1]) for form in forms), match[1]
