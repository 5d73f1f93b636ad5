"""/v1/login: a token for a cookie, for the pages that this controller serves, and the end of it.

The token comes in the body of a request and is in no answer, log line or problem. A page of another site cannot log a
browser in or out: what browsers say of its origin is judged before. The cookie alone changes nothing (the middleware
wants a header with it that no foreign page can send).
"""

from __future__ import annotations

from dataclasses import replace

from fastapi import Request, Response
from pydantic import Field

from controller.api import render
from controller.api.answers import Answer
from controller.api.bodies import JsonBody
from controller.api.middleware import note_failure
from controller.api.models import Body
from controller.api.routing import WITH_BODY, caller, problems, resource_router, service
from controller.outcomes import store_errors_told
from controller.security.authentication import not_good
from controller.security.cookies import header
from controller.security.principal import Principal
from kvnet.errors import Invalid

router = resource_router("tokens")
NO_STORE = {"Cache-Control": "no-store"}


class LoginIn(Body):
    """A token, as it was issued."""

    token: str = Field(min_length=1, max_length=8192, json_schema_extra={"writeOnly": True})


class LoginOut(Answer):
    """Who is logged in now, and until when; the cookie is in the headers."""

    name: str
    role: str
    until: str


BODY: JsonBody[LoginIn] = JsonBody(LoginIn, "LoginIn")


@router.post(
    "/login",
    response_model=LoginOut,
    responses=problems(401, 429, *WITH_BODY),
    openapi_extra=BODY.documented(a_token={"token": "kvnet_0d1f8a6c2b3e_..."}),
    summary="Log a browser in",
)
async def log_in(request: Request) -> Response:
    """Answers with a cookie that is good for 12 hours at most, and no longer than the token and its secret. Programs
    send the token itself with every request instead."""
    asked = await BODY.read(request)
    shared = service(request)
    shared.cluster  # noqa: B018 (raises while the controller is starting)
    found = shared.authenticator.bearer(asked.token.strip(), request.scope)
    token = None if found is None else shared.cluster.credentials.get(found.token)
    if found is None or token is None:
        note_failure(request.scope)
        raise not_good()
    _require_page(found)
    with store_errors_told():
        by = replace(caller(request), actor=found.name)
        value, until = await shared.cluster.logins.begin(token.value, by)
    life_s = until - shared.now()
    cookie = header(value, is_secure=request.scope.get("scheme") == "https", life_s=life_s)
    body = {"name": found.name, "role": found.role.value, "until": render.moment(until)}
    return render.answer(body, headers={**NO_STORE, "Set-Cookie": cookie})


@router.delete("/login", status_code=204, responses=problems(), summary="Log this browser out")
async def log_out(request: Request) -> Response:
    """Takes the cookie away. Somebody who has copied it is kept out by rotating or removing its token."""
    gone = header("", is_secure=request.scope.get("scheme") == "https", life_s=0)
    return Response(status_code=204, headers={**NO_STORE, "Set-Cookie": gone})


def _require_page(found: Principal) -> None:
    """
    Raises:
        Invalid: the credential of a host or of a join is for programs.
    """
    if found.host:
        raise Invalid.field("/token", f"a token of role {found.role} logs nobody in", "use one of a person")
