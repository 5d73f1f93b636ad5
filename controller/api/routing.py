"""What all resources share: routers with the documented errors, and the small helpers of a handler.

Handlers take the request, ask the cluster, and answer bytes. They decide nothing: a rule that is found here is lost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from inspect import signature
from typing import Annotated, Any, get_origin

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from controller.api.bodies import require_none
from controller.api.middleware import CALLER
from controller.api.models import ETAG_PATTERN, KEY_PATTERN
from controller.api.paging import MAX_LIMIT
from controller.api.problems import MAX_FIELD_ERRORS, pointer
from controller.api.render import answer
from controller.api.service import Service
from controller.cluster import Cluster
from controller.requests import Caller
from controller.security.principal import PRINCIPAL, Principal
from controller.views import Event
from kvnet.errors import FieldError, Invalid
from kvnet.rules import shown
from kvnet.security import Role

PROBLEM_SCHEMA = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
DESCRIPTIONS = {
    400: "The request cannot be read.",
    401: "There is no credential, or it is not good.",
    403: "The credential does not allow it; or a web page of another origin asked.",
    404: "There is no such thing.",
    405: "The method is not possible here.",
    409: "It conflicts with what is there; `code` says how.",
    410: "The position is older than what is kept: start again from a list.",
    412: "It changed since you looked; `ETag` has the current version.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    422: "The request is not valid; `errors` names the fields.",
    429: "Too many requests, failures or streams; `Retry-After` says when to ask again.",
    500: "A bug in the controller.",
    503: "The store does not answer. Safe to repeat.",
    504: "The outcome is not known. Repeat with the same id or Idempotency-Key.",
}
ALWAYS = (400, 401, 403, 422, 429, 500, 503)
WITH_BODY = (409, 413, 415, 504)

OF_CREDENTIALS = ("token.", "authentication.", "host.joined", "secret.")
SAFE_METHODS = frozenset({"GET", "HEAD"})
# What ends the refusal of changes.
WHATEVER_THE_STORE = frozenset({"/v1/store-state/accept"})

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="How many items a page has at most.")]
CursorText = Annotated[
    str | None, Query(max_length=1024, description="`next_cursor` of the page before. Opaque; keep the filters.")
]
IfMatch = Annotated[
    str | None,
    Header(alias="If-Match", pattern=ETAG_PATTERN, description="Only if it still has this ETag."),
]
IfNoneMatch = Annotated[
    str | None, Header(alias="If-None-Match", max_length=1024, description="304 if it still has this ETag.")
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=KEY_PATTERN,
        description="The same key and body again answers with the same object instead of making a second one. "
        "Must be unique, such as a UUID.",
    ),
]
Name = Annotated[str, Query(max_length=128)]


def problems(*statuses: int, also: Mapping[int, Mapping[str, Any]] | None = None) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a path operation that can end so, and as `also` says; what any can is always there."""
    refused: dict[int | str, dict[str, Any]] = {
        status: {"description": DESCRIPTIONS[status], "content": PROBLEM_SCHEMA}
        for status in sorted({*statuses, *ALWAYS})
    }
    return {**refused, **{status: dict(told) for status, told in (also or {}).items()}}


def function_name(route: APIRoute) -> str:
    return route.name


class QuickRoute(APIRoute):
    """A route that solves parameters only for requests that have any beside those of the path.

    Most have none, and FastAPI's solving of nothing costs a fifth of the time of creating an endpoint; what it puts
    around a handler for those that are solved, another twentieth. The signature stays what is documented and checked;
    its defaults are those of FastAPI.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.app = self._quick(AsyncExitStackMiddleware(self.app))

    def _quick(self, solved: ASGIApp) -> ASGIApp:
        """`solved`: the handler within all that FastAPI does."""
        call: Callable[..., Coroutine[Any, Any, Response]] = self.endpoint
        known = frozenset(param.alias for param in self.dependant.query_params)
        many = frozenset(p.alias for p in self.dependant.query_params if get_origin(p.field_info.annotation) is list)
        given = frozenset(param.alias.lower().encode() for param in self.dependant.header_params)
        parameters = signature(call).parameters
        takes_request = {"request"} & set(parameters)
        # Whatever is more than text in the path, or has no default, is for FastAPI.
        is_plain = all(
            param.annotation in (str, "str", Request, "Request") or param.default is not param.empty
            for param in parameters.values()
        )

        changes = SAFE_METHODS.isdisjoint(self.methods or ())
        is_change = changes and self.path not in WHATEVER_THE_STORE
        has_no_body = changes and "requestBody" not in (self.openapi_extra or {})

        async def quick(scope: Scope, receive: Receive, send: Send) -> None:
            request = Request(scope, receive, send)
            if is_change:
                # Before anything is looked up: in a wiped store nothing would be found, as if it had been deleted.
                service(request).require_believed()
            if scope["query_string"]:
                _require_known([name for name, _ in request.query_params.multi_items()], known, many)
            if has_no_body:
                await require_none(request)
            if not is_plain or scope["query_string"] or any(name in given for name, _ in scope["headers"]):
                await solved(scope, receive, send)
                return
            own = {"request": request} if takes_request else {}
            answer = await call(**own, **scope["path_params"])
            await answer(scope, receive, send)

        return quick


def _require_known(given: Sequence[str], known: Collection[str], many: Collection[str]) -> None:
    """A misspelt `dry_run` must not do it for real, nor one that is said twice. `many`: which may be there again.

    Raises:
        Invalid
    """
    unknown = [name for name in given if name not in known]
    if unknown:
        raise Invalid(
            f"there is no query parameter {shown(unknown[0])} here",
            fix=f"known are: {', '.join(sorted(known))}" if known else "there is none here",
            errors=[FieldError(pointer(("query", name)), "unknown parameter") for name in unknown[:MAX_FIELD_ERRORS]],
        )
    twice = next((name for name in given if name not in many and given.count(name) > 1), None)
    if twice is not None:
        raise Invalid(f"the query parameter {shown(twice)} is there twice", fix="give it once")


def resource_router(tag: str) -> APIRouter:
    return APIRouter(
        prefix="/v1",
        tags=[tag],
        generate_unique_id_function=function_name,
        redirect_slashes=False,
        route_class=QuickRoute,
    )


def operations_router() -> APIRouter:
    """For what operators and their tools ask; not under /v1, where these paths are customary."""
    return APIRouter(tags=["operations"], generate_unique_id_function=function_name, redirect_slashes=False)


def service(request: Request) -> Service:
    found: Service = request.app.state.service
    return found


def caller(request: Request) -> Caller:
    found: Caller = request.scope[CALLER]
    return found


def principal(request: Request) -> Principal:
    found: Principal = request.scope[PRINCIPAL]
    return found


def view(request: Request) -> Cluster:
    """The cluster for reading, as whoever asks may see it: what is out of sight is not there."""
    return service(request).view(principal(request))


async def within(request: Request, network: str) -> str:
    """A network that is to be changed, or something in it: as it was named for those who see everything, else its id.

    Raises:
        NotFound: also if it is only out of sight.
    """
    who = principal(request)
    if not who.scope:
        return network
    return (await service(request).view_of_scope(who).networks.fresh(network)).value.id


def shows(request: Request) -> Callable[[Event], Event | None]:
    """How events are told to whoever asks."""
    who = principal(request)
    sight = service(request).sight(who)

    def show(event: Event) -> Event | None:
        if event.kind.startswith(hidden_kinds(who)):
            return None
        return event if sight is None else sight.event(event)

    return show


def hidden_kinds(who: Principal) -> tuple[str, ...]:
    """Of credentials only an admin hears."""
    return () if who.role is Role.ADMIN and not who.scope else OF_CREDENTIALS


def etag(version: int) -> str:
    return f'"{version}"'


def wanted_version(if_match: str | None) -> int | None:
    return None if if_match is None or if_match == "*" else int(if_match.strip('"'))


def entity(body: Mapping[str, Any], if_none_match: str | None = None) -> Response:
    """One object with its ETag; 304 without a body if the client has this version already."""
    tag = etag(body["version"])
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if if_none_match is not None and tag in _tags(if_none_match):
        return Response(status_code=304, headers=headers)
    return answer(dict(body), headers=headers)


def created(body: Mapping[str, Any], location: str, *, is_new: bool) -> Response:
    headers = {"ETag": etag(body["version"]), "Location": location}
    return answer(dict(body), 201 if is_new else 200, headers)


def _tags(if_none_match: str) -> list[str]:
    """`W/"1"` is as good as `"1"` here: the comparison of If-None-Match is the weak one (RFC 9110 13.1.2)."""
    return [part.strip().removeprefix("W/") for part in if_none_match.split(",")]


def derived_id(kind: str, scope: str, key: str, digits: int) -> str:
    """The id that an Idempotency-Key stands for: the object itself is the memory of the key, in any replica."""
    return hashlib.sha256(f"{kind}\0{scope}\0{key}".encode()).hexdigest()[:digits]


def has_labels(labels: Mapping[str, str], wanted: Sequence[str]) -> bool:
    """`key` asks for the label, `key=value` for its value too."""
    for one in wanted:
        key, equals, value = one.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True
