"""The description told in full: the answers that any route may give, beside those that its view names.

flask-smorest gives each operation a `default` answer, which covers every status: nobody could find one by it that is not
described.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from api.media import MULTIPART
from api.nouns import MEDIA_TYPE_PROBLEM
from schemas.paths import PREFIX
from schemas.submit import INPUTS

_ANYWHERE: Final = {
    "400": "The request cannot be read, or is for another host.",
}
_OF_DATA: Final = {
    "422": "A parameter is unknown or against the rules.",
    "503": "Postgres is away, or is being upgraded; Retry-After says when to come back.",
}
_OF_CALLERS: Final = {
    "401": "No key or token was sent, or none that is valid.",
    "403": "The key or token lacks the scope (x-scope).",
    "429": "Too many requests; Retry-After says when to come back.",
}
_OF_NAMES: Final = {
    "404": "There is nothing of this name, or it is another team's.",
}
_OF_BODIES: Final = {
    "408": "The body comes too slowly.",
    "413": "The body exceeds a limit.",
    "415": "The body is of a content type or encoding that is not read here.",
    "503": "Postgres is away or being upgraded, or too many slow bodies are being read; Retry-After says when to come back.",
}

# What an answer names, and where it stands in it: by method, path and status.
_NAMES: Final = {
    ("post", f"{PREFIX}/batches", "202"): ("batch_id", "/batch_id"),
    ("post", f"{PREFIX}/predictions", "200"): ("prediction_id", "/prediction_id"),
    ("get", f"{PREFIX}/batches", "200"): ("batch_id", "/batches/0/batch_id"),
    ("get", f"{PREFIX}/webhooks", "200"): ("webhook_id", "/webhooks/0/webhook_id"),
    ("put", f"{PREFIX}/customers/{{customer_id}}", "200"): ("customer_id", "/customer_id"),
    ("put", f"{PREFIX}/customers/{{customer_id}}", "201"): ("customer_id", "/customer_id"),
    ("post", f"{PREFIX}/webhooks", "201"): ("webhook_id", "/webhook_id"),
    ("get", f"{PREFIX}/webhooks/{{webhook_id}}/deliveries", "200"): ("delivery_id", "/deliveries/0/delivery_id"),
    ("post", f"{PREFIX}/keys", "201"): ("key_id", "/key_id"),
    ("get", f"{PREFIX}/models", "200"): ("version", "/models/0/version"),
}


def complete(description: dict[str, Any]) -> dict[str, Any]:
    """Name each answer of each operation, in place of one for all, and where to go with what an answer names."""
    for path, operation in _operations(description):
        _describe_form(operation)
        answers = operation["responses"]
        answers.pop("default", None)
        for status, reason in _also(path, operation).items():
            answers.setdefault(status, _problem(reason))
        operation["responses"] = dict(sorted(answers.items()))
    for (method, path, status), (name, pointer) in _NAMES.items():
        described = description["paths"][path][method]["responses"][status]
        described["links"] = dict(_links(description, name, f"$response.body#{pointer}"))
    description["components"]["schemas"]["Submit"]["oneOf"] = [{"required": [each]} for each in INPUTS]
    description["components"]["responses"].pop("DEFAULT_ERROR", None)
    return description


def _links(description: Mapping[str, Any], name: str, value: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Lead to every operation on what bears this name."""
    for path, item in description["paths"].items():
        for method in [each for each in item if each != "parameters"] if f"{{{name}}}" in path else []:
            place = path.replace("~", "~0").replace("/", "~1")
            link = {"operationRef": f"#/paths/{place}/{method}", "parameters": {name: value}}
            yield re.sub(r"\W+", "-", f"{method}{path.removeprefix(PREFIX)}").strip("-"), link


def _operations(description: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in description["paths"].items():
        yield from ((path, operation) for method, operation in item.items() if method != "parameters")


def _also(path: str, operation: Mapping[str, Any]) -> dict[str, str]:
    answers = dict(_ANYWHERE)
    if path.startswith(PREFIX):
        answers |= _OF_DATA | _OF_CALLERS
    if "{" in path:
        answers |= _OF_NAMES
    if "requestBody" in operation:
        answers |= _OF_BODIES
    return answers


def _describe_form(operation: Mapping[str, Any]) -> None:
    """Name the parts of a form beside its file: the options that go into the query for a bare file."""
    form = operation.get("requestBody", {}).get("content", {}).get(MULTIPART)
    if form is not None:
        options = {each["name"]: each["schema"] for each in operation.get("parameters", ()) if each["in"] == "query"}
        schema = form["schema"]
        form["schema"] = {**schema, "properties": {**schema["properties"], **options}, "additionalProperties": False}


def _problem(reason: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": reason, "content": {MEDIA_TYPE_PROBLEM: {"schema": schema}}}
