"""Turns everything that can go wrong into an RFC 9457 problem: one shape for every answer above 399.

A client may match on `code`, show `detail` and `fix`, and point at fields with `errors`. Never lets a stack trace, a
path of this machine or a library's own wording out; what is not ours is logged with the request id and told as 500.
"""

from __future__ import annotations

import json
import logging
import math
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
from controller.api.models import RULES
from controller.security.principal import PRINCIPAL, Principal
from controller.security.sight import WITHHELD, Sight, is_limited
from kvnet import errors as known
from kvnet.concealing import without_tokens
from kvnet.errors import FieldError, Invalid, KvnetError
from kvnet.problems import to_problem
from kvnet.rules import pointer_part

SERVER_ERROR = 500
MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1
MAX_FIELD_ERRORS = 20
MAX_POINTER_PART = 128
REQUEST_ID = "kvnet.request_id"  # where the middleware leaves it in the ASGI scope

WORDINGS = {
    **dict.fromkeys(("json_type", "model_type", "model_attributes_type", "dataclass_type"), "must be a JSON object"),
    **dict.fromkeys(("dict_type", "mapping_type"), "must be a JSON object"),
    **dict.fromkeys(("tuple_type", "list_type"), "must be a list"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    "string_type": "must be a text",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
    "literal_error": "must be {expected}",
    "extra_forbidden": "unknown field",
    "missing": "missing",
}

log = logging.getLogger("kvnet.api")


def problem_response(error: KvnetError, request_id: str, headers: Mapping[str, str] | None = None) -> Response:
    more = dict(headers or {})
    if error.status == 503:
        more["Retry-After"] = str(RETRY_AFTER_S)
    if error.status == 401:
        more["WWW-Authenticate"] = 'Bearer realm="kvnet"'
    if error.status == 429:
        more["Retry-After"] = str(max(1, math.ceil(error.context.get("retry_after_s", 1))))
    if error.status == 412 and "version" in error.context:
        more["ETag"] = f'"{error.context["version"]}"'
    # What was sent may be told back, and a token in it would be kept wherever problems are.
    body = without_tokens(json.dumps(to_problem(error, instance=request_id), default=str, ensure_ascii=False))
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
            return known.StoreForbidden(
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
    parts = [str(part) for part in loc if part != "[key]"]  # pydantic's mark of a wrong key, behind the key itself
    if parts and parts[0] == "body":
        del parts[0]
    return "".join("/" + pointer_part(_printable(part[:MAX_POINTER_PART])) for part in parts)


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def _wording(detail: Mapping[str, Any]) -> str:
    """Our words for what pydantic says; its own only where none are known."""
    context = detail.get("ctx", {})
    rule = RULES.get(str(context.get("pattern", "")))
    if rule is not None:
        return rule
    wording = WORDINGS.get(detail["type"])
    return str(detail["msg"]) if wording is None else wording.format_map(context)


def allowed_methods(request: Request) -> list[str]:
    """Every method that some route answers at this path; Starlette would name those of the first route only.

    A path that stands in the description as it is (`/v1/networks/prune`) is that and nothing else.
    """
    found: set[str] = set()
    literal: set[str] = set()
    for route in request.app.routes:
        methods: set[str] = getattr(route, "methods", None) or set()
        if methods and route.matches({**request.scope, "method": next(iter(methods))})[0] is Match.FULL:
            found |= methods
            if getattr(route, "path", "") == request.url.path:
                literal |= methods
    found = literal or found
    if "GET" in found:
        found.add("HEAD")
    return sorted(found)


def discreet(request: Request, error: KvnetError) -> KvnetError:
    """The error as whoever asks may read it: what is in the way may be out of sight.

    What only repeats the request is left as it is, or it would tell what exists from what does not.
    """
    who: Principal | None = request.scope.get(PRINCIPAL)
    if who is None or not is_limited(who):
        return error
    sight: Sight = request.app.state.service.sight(who)
    if isinstance(error, known.NotFound):
        return type(error)(error.detail, context=error.context) if sight.hides(error.fix) else error
    if not isinstance(error, known.Conflicting) and error.status < SERVER_ERROR:
        return error
    if sight.hides(json.dumps([error.detail, error.fix, dict(error.context)], default=str, ensure_ascii=False)):
        return type(error)(f"{error.title}; {WITHHELD}", fix="choose another one, or ask an admin")
    return error


async def on_kvnet_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, KvnetError)
    return problem_response(discreet(request, error), request.scope.get(REQUEST_ID, ""))


async def on_store_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, store.StoreError)
    facts = {"request_id": request.scope.get(REQUEST_ID, ""), "error": type(error).__name__, "detail": str(error)}
    log.warning("store-error", extra={"facts": facts})
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
