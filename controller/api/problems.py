"""Turns everything that can go wrong into an RFC 9457 problem: one shape for every answer above 399.

A client may match on `code`, show `detail` and `fix`, and point at fields with `errors`. Never lets a stack trace, a
path of this machine or a library's own wording out; what is not ours is logged with the request id and told as 500.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from backends import store
from controller.api.errors import (
    Internal,
    MalformedRequest,
    MethodNotAllowed,
    NoSuchPath,
    PayloadTooLarge,
)
from kvnet import errors as known
from kvnet.errors import FieldError, Invalid, KvnetError
from kvnet.problems import to_problem

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1
MAX_FIELD_ERRORS = 20
REQUEST_ID = "kvnet.request_id"  # where the middleware leaves it in the ASGI scope

log = logging.getLogger("kvnet.api")


def problem_response(error: KvnetError, request_id: str, headers: Mapping[str, str] | None = None) -> Response:
    more = dict(headers or {})
    if error.status == 503:
        more["Retry-After"] = str(RETRY_AFTER_S)
    if error.status == 412 and "version" in error.context:
        more["ETag"] = f'"{error.context["version"]}"'
    body = json.dumps(to_problem(error, instance=request_id), default=str, ensure_ascii=False)
    return Response(body.encode(errors="replace"), error.status, more, MEDIA_TYPE)


def from_store(error: store.StoreError) -> KvnetError:
    """What a store's outcome means to a client, where no use case has said it better."""
    match error:
        case store.Unavailable():
            return known.StoreUnavailable("the store does not answer; nothing was written", fix="repeat in a moment")
        case store.Unknown():
            return known.OutcomeUnknown(
                "the store's answer was lost: it may or may not be written",
                fix="repeat with the same id, or look first",
            )
        case store.Refused():
            return known.StoreBroken(
                "the store refuses the controller's credentials", fix="an operator must look at the store's permissions"
            )
        case store.Broken():
            return known.StoreBroken(f"the store cannot serve: {error}", fix="see the controller's log and /readyz")
        case store.TooLarge():
            return PayloadTooLarge(f"too large for the store: {error}", fix="send less at once")
        case store.Compacted():
            return known.Gone("the position is older than what is kept", fix="list again and continue from there")
        case store.Conflict() | store.SessionLost():
            return known.Conflicting(f"it changed meanwhile: {error}", fix="look again, then repeat")
        case _:
            return known.StoreUnavailable(f"the store failed: {error}", fix="repeat in a moment")


def from_validation(details: Iterable[Mapping[str, Any]]) -> KvnetError:
    """A pydantic error list as one `Invalid`, or as malformed JSON when it is not JSON at all."""
    fields: list[FieldError] = []
    for detail in details:
        if detail["type"] == "json_invalid":
            reason = str(detail.get("ctx", {}).get("error", "it cannot be read"))
            return MalformedRequest(f"the body is not JSON: {reason}", fix="check quotes, commas and braces")
        if len(fields) < MAX_FIELD_ERRORS:
            fields.append(FieldError(pointer(detail["loc"]), _wording(detail)))
    first = fields[0]
    more = f" (and {len(fields) - 1} more)" if len(fields) > 1 else ""
    return Invalid(
        f"{first.pointer or 'the body'}: {first.detail}{more}",
        fix="correct what 'errors' names; /docs shows what is expected",
        errors=fields,
    )


def pointer(loc: Sequence[str | int]) -> str:
    """A JSON pointer (RFC 6901). Query, path and header parameters get a leading '/query', '/path', '/header'."""
    parts = loc[1:] if loc and loc[0] == "body" else loc
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1")[:128] for part in parts)


def _wording(detail: Mapping[str, Any]) -> str:
    match detail["type"]:
        case "extra_forbidden":
            return "unknown field"
        case "missing":
            return "missing"
        case "json_type" | "model_type" | "model_attributes_type" | "dataclass_type":
            return "must be a JSON object"
        case _:
            return str(detail["msg"])


def allowed_methods(request: Request) -> list[str]:
    """Every method that some route answers at this path; Starlette would name those of the first route only."""
    found: set[str] = set()
    for route in request.app.routes:
        methods: set[str] = getattr(route, "methods", None) or set()
        if methods and route.matches({**request.scope, "method": next(iter(methods))})[0] is Match.FULL:
            found |= methods
    if "GET" in found:
        found.add("HEAD")
    return sorted(found)


async def on_kvnet_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, KvnetError)
    return problem_response(error, request.scope.get(REQUEST_ID, ""))


async def on_store_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, store.StoreError)
    log.warning("store error in request %s: %r", request.scope.get(REQUEST_ID, ""), error)
    return problem_response(from_store(error), request.scope.get(REQUEST_ID, ""))


async def on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    request_id = request.scope.get(REQUEST_ID, "")
    path = repr(request.url.path[:200])
    match error.status_code:
        case 404:
            return problem_response(NoSuchPath(f"there is nothing at {path}", fix="see /docs"), request_id)
        case 405:
            allow = ", ".join(allowed_methods(request))
            wrong = MethodNotAllowed(f"{request.method} is not possible at {path}", fix=f"possible: {allow}")
            return problem_response(wrong, request_id, {"Allow": allow})
        case 413:
            return problem_response(PayloadTooLarge("the body is too large", fix="send less at once"), request_id)
        case status if status < 500:
            return problem_response(MalformedRequest(str(error.detail), fix="see /docs"), request_id)
        case _:
            return problem_response(internal(request_id), request_id)


async def on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problem_response(from_validation(error.errors()), request.scope.get(REQUEST_ID, ""))


def internal(request_id: str) -> KvnetError:
    return Internal(
        "the controller failed at this request; that is a bug",
        fix=f"report it with the controller's log of request {request_id}",
    )


def install(app: FastAPI) -> None:
    app.add_exception_handler(KvnetError, on_kvnet_error)
    app.add_exception_handler(store.StoreError, on_store_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(RequestValidationError, on_validation_error)
