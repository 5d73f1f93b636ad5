"""What the OpenAPI document says beyond what is derived from the handlers: examples, and parameters as they are.

Pure: takes the document and completes it. The examples of answers were recorded from a running controller
(`python -m tests.api.examples`); nothing here is made up but the problems, whose texts are those of their classes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from controller.api.errors import every_problem
from controller.api.models import NAME_PATTERN

Operation = dict[str, Any]
Document = dict[str, Any]

ADDRESS = {"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}
CIDR = {
    "type": "string",
    "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}, {"pattern": r"^[0-9]{1,3}([.][0-9]{1,3}){3}[/_][0-9]{1,2}$"}],
}
NAMED: Mapping[str, tuple[str, str]] = {
    "network": ("app", "Name or id of a network."),
    "peer": ("db", "Name or id of the other network."),
    "endpoint": ("web", "Id or name of an endpoint."),
    "host": ("h1", "Name of a host."),
    "pool": ("default", "Name of a pool."),
    "reservation": ("printer", "Name of a reservation, or its address."),
    "token": ("team-red", "Id or name of a token."),
    "hold": ("0d1f8a6c2b3e", "Id of a hold."),
    "code": ("subnet-taken", "The `code` of a problem."),
    "address": ("10.1.0.7", "An address of any network."),
    "cidr": ("10.1.0.0/24", "A block."),
}
# Which problem stands for a status where the operation has no better one.
TYPICAL: Mapping[str, str] = {
    "400": "malformed",
    "401": "unauthenticated",
    "403": "forbidden",
    "404": "not-found",
    "409": "subnet-taken",
    "410": "gone",
    "412": "precondition-failed",
    "413": "too-large",
    "415": "unsupported-media-type",
    "422": "invalid",
    "429": "rate-limited",
    "500": "internal",
    "503": "store-unavailable",
    "504": "outcome-unknown",
    "507": "answer-too-large",
}
CONFLICTS: Mapping[str, str] = {
    "endpoints": "address-taken",
    "hosts": "host-in-use",
    "pools": "pool-in-use",
    "reservations": "address-taken",
    "holds": "subnet-taken",
    "tokens": "last-admin",
}


def complete(document: Document) -> Document:
    """The document with examples of everything, and parameters without a null that no URL can carry."""
    recorded = _recorded()
    for operation in operations(document):
        for parameter in operation.get("parameters", ()):
            _parameter(parameter)
        known = recorded.get(operation["operationId"], {})
        for status, response in operation["responses"].items():
            _answer(response, known.get(status))
            if status.startswith(("4", "5")):
                _problem(response, status, operation["tags"][0])
    return document


def operations(document: Document) -> Iterator[Operation]:
    for methods in document["paths"].values():
        yield from methods.values()


def _parameter(parameter: dict[str, Any]) -> None:
    """`null` in a query or a header would be the text "null"."""
    schema = parameter["schema"]
    choices = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    if len(choices) == 1:
        del schema["anyOf"]
        schema.update(choices[0])
    name = parameter["name"]
    if parameter["in"] != "path" or name not in NAMED:
        return
    example, text = NAMED[name]
    parameter.setdefault("description", text)
    parameter.setdefault("example", example)
    if name == "address":
        schema.update(ADDRESS)
    elif name == "cidr":
        schema.update(CIDR)
    elif name not in ("reservation", "hold"):  # any text may be asked for there
        schema["pattern"] = NAME_PATTERN


def _answer(response: dict[str, Any], recorded: Any) -> None:
    content = response.get("content", {}).get("application/json")
    if content is not None and recorded is not None:
        content.setdefault("example", recorded)


def _problem(response: dict[str, Any], status: str, tag: str) -> None:
    content = response.get("content", {}).get("application/problem+json")
    code = CONFLICTS.get(tag, TYPICAL["409"]) if status == "409" else TYPICAL.get(status, "")
    if content is not None and code in _titles():
        # A copy: the same schema stands at every status of every operation.
        response["content"] = {"application/problem+json": {**content, "example": problem_example(code, int(status))}}


def problem_example(code: str, status: int) -> dict[str, Any]:
    title = _titles()[code]
    return {
        "type": f"/problems/{code}",
        "title": title,
        "status": status,
        "detail": f"{title}, and here it says which one, and why",
        "instance": "5f0c1b7c0f3a9e21",
        "code": code,
        "fix": "what to do about it",
        "errors": [],
    }


@cache
def _titles() -> Mapping[str, str]:
    return {error.code: error.title for error in every_problem()}


@cache
def _recorded() -> Mapping[str, Mapping[str, Any]]:
    """By operation id and status."""
    found: Mapping[str, Mapping[str, Any]] = json.loads(files(__package__).joinpath("examples.json").read_text())
    return found
