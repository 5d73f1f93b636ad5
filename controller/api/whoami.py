"""/v1/whoami and /v1/authentication: who the controller thinks you are, and whether it asks everybody."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import Request, Response

from controller.api import render
from controller.api.answers import Answer
from controller.api.bodies import JsonBody
from controller.api.models import Body
from controller.api.routing import WITH_BODY, caller, principal, problems, resource_router, service
from controller.api.tokens import LimitsOut, RoleName, limits

router = resource_router("tokens")


class WhoOut(Answer):
    name: str
    role: RoleName
    token: str | None
    host: str | None
    scope: dict[str, str]
    grants: list[str]
    limits: LimitsOut
    expires_at: str | None
    via: Literal["token", "cookie", "certificate", "oidc", "unix", "open"]


class AuthenticationOut(Answer):
    """`required`: of all replicas. `insecure`, `oidc`: as this replica was started. `tokens`: how many there are."""

    required: bool
    insecure: bool
    tokens: int
    oidc: bool


class AuthenticationIn(Body):
    """Whether every replica asks everybody for a credential."""

    required: bool


BODY: JsonBody[AuthenticationIn] = JsonBody(AuthenticationIn, "AuthenticationIn")


@router.get("/whoami", response_model=WhoOut, responses=problems(), summary="Who asks")
async def get_whoami(request: Request) -> Response:
    """What the credential of this request stands for. `via` `open`: nobody is asked."""
    who = principal(request)
    return render.answer(
        {
            "name": who.name,
            "role": who.role.value,
            "token": who.token or None,
            "host": who.host or None,
            "scope": dict(who.scope),
            "grants": [grant.value for grant in who.grants],
            "limits": limits(who.limits),
            "expires_at": render.moment(who.expires_at),
            "via": who.via.value,
        }
    )


@router.get(
    "/authentication", response_model=AuthenticationOut, responses=problems(), summary="Whether everybody is asked"
)
async def get_authentication(request: Request) -> Response:
    """Without it only the controller's own machine is heard, unless the controller runs with `--insecure`."""
    return render.answer(_state(request))


@router.put(
    "/authentication",
    response_model=AuthenticationOut,
    responses=problems(*WITH_BODY),
    openapi_extra=BODY.documented(on={"required": True}),
    summary="Ask everybody, or nobody",
)
async def set_authentication(request: Request) -> Response:
    """Of all replicas. Off: whoever is on a controller's own machine may do everything, token or not."""
    cluster = service(request).cluster
    asked = await BODY.read(request)
    await cluster.credentials_reached(await cluster.tokens.require(asked.required, caller(request)))
    return render.answer(_state(request))


def _state(request: Request) -> dict[str, Any]:
    shared = service(request)
    known = shared.cluster.credentials
    return {
        "required": known.are_required,
        "insecure": shared.is_insecure,
        "tokens": known.count,
        "oidc": shared.authenticator.verifier is not None,
    }
