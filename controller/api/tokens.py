"""/v1/tokens: who may come in. A token's text is in the answer that made it, and nowhere else ever."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import Request, Response
from pydantic import Field

from controller.api import render
from controller.api.answers import Answer, Page
from controller.api.bodies import JsonBody
from controller.api.models import Body, Labels, Name
from controller.api.routing import WITH_BODY, caller, problems, resource_router, service
from controller.security.tokens import MAX_GRACE_S, MAX_LIFE_S, Made, TokenRequest
from kvnet.model import Versioned
from kvnet.security import Grant, Limits, Role, Token

router = resource_router("tokens")
RoleName = Literal["admin", "operator", "viewer", "host", "join"]


class LimitsIn(Body):
    """What the token may not exceed; what is left out has no limit."""

    networks: int | None = Field(None, ge=0, le=10**9, description="Networks that it made and that are there.")
    endpoints: int | None = Field(None, ge=0, le=10**9, description="Endpoints that it made and that are there.")
    rate: float | None = Field(None, ge=0.001, le=10**6, description="Requests a second, of each replica.")
    streams: int | None = Field(None, ge=0, le=10**6, description="Open event streams and watches, of each replica.")


class TokenIn(Body):
    """A credential: `name` says whose it is, wherever it shows up."""

    name: Name
    role: RoleName
    host: Name | None = Field(None, description="Whose credential it is; of the roles `host` and `join`.")
    scope: Labels = Field(
        default_factory=dict,
        description="Sees and changes only networks that bear all these labels, and what belongs to them.",
    )
    grants: tuple[Literal["docker"], ...] = Field((), max_length=4, description="What a host may beside its own.")
    expires_in_s: float | None = Field(None, gt=0, le=MAX_LIFE_S, description="Left out: never.")
    limits: LimitsIn = Field(default_factory=lambda: LimitsIn.model_validate({}))

    def request(self, now: float) -> TokenRequest:
        return TokenRequest(
            name=self.name,
            role=Role(self.role),
            host=self.host or "",
            scope=self.scope,
            grants=tuple(Grant(one) for one in self.grants),
            expires_at=None if self.expires_in_s is None else now + self.expires_in_s,
            limits=Limits(**self.limits.model_dump()),
        )


class RotateIn(Body):
    """A new secret in place of the old one."""

    grace_s: float = Field(0, ge=0, le=MAX_GRACE_S, description="The old secret stays good for so long.")


class LimitsOut(Answer):
    networks: int | None
    endpoints: int | None
    rate: float | None
    streams: int | None


class TokenOut(Answer):
    id: str = Field(description="Public; the second part of the token's text.")
    name: str
    role: RoleName
    host: str | None
    scope: dict[str, str]
    grants: list[str]
    created_at: str
    created_by: str
    expires_at: str | None
    expired: bool
    previous_until: str | None = Field(description="Until then the secret before the last rotation is good too.")
    certificate: str | None = Field(description="SHA-256 of the client certificate that it is bound to.")
    joined_with: str | None = Field(description="Id of the join token that it was made of.")
    limits: LimitsOut
    version: int


class MadeOut(TokenOut):
    token: str = Field(description="The credential. It is told this once: the controller keeps only a hash.")


BODY: JsonBody[TokenIn] = JsonBody(TokenIn, "TokenIn")
ROTATION: JsonBody[RotateIn] = JsonBody(RotateIn, "RotateIn")
EXAMPLES = {
    "an_admin": {"name": "alice", "role": "admin"},
    "a_team": {
        "name": "team-red",
        "role": "operator",
        "scope": {"team": "red"},
        "expires_in_s": 2592000,
        "limits": {"networks": 10, "endpoints": 1000, "rate": 50},
    },
    "a_dashboard": {"name": "wall", "role": "viewer", "limits": {"streams": 4}},
}


@router.post(
    "/tokens",
    status_code=201,
    response_model=MadeOut,
    responses=problems(*WITH_BODY),
    openapi_extra=BODY.documented(**EXAMPLES),
    summary="Create a token",
)
async def create_token(request: Request) -> Response:
    """The first one makes every replica ask for a token on every TCP connection."""
    shared = service(request)
    asked = await BODY.read(request)
    made = await shared.cluster.tokens.create(asked.request(shared.now()), caller(request))
    await shared.cluster.credentials_reached(made.token.version)
    headers = {"Location": f"/v1/tokens/{made.token.value.id}", "Cache-Control": "no-store"}
    return render.answer(_made(made, shared.now()), 201, headers)


@router.get("/tokens", response_model=Page[TokenOut], responses=problems(), summary="List tokens")
async def list_tokens(request: Request) -> Response:
    """In the order of their names; all in one page. Never a secret, nor a hash of one."""
    shared = service(request)
    found = await shared.cluster.tokens.list()
    items = [rendered(one, shared.now()) for one in found]
    return render.answer({"items": items, "next_cursor": None, "revision": shared.cluster.revision})


@router.get("/tokens/{token}", response_model=TokenOut, responses=problems(404), summary="Get a token")
async def get_token(request: Request, token: str) -> Response:
    """By id or name."""
    shared = service(request)
    return render.answer(rendered(await shared.cluster.tokens.get(token), shared.now()))


@router.delete(
    "/tokens/{token}",
    status_code=204,
    response_class=Response,
    responses=problems(404, 409, 504),
    summary="Remove a token",
)
async def delete_token(request: Request, token: str) -> Response:
    """Every replica refuses it within moments, and ends what it has open. The last token of an admin stays."""
    cluster = service(request).cluster
    await cluster.credentials_reached(await cluster.tokens.remove(token, caller(request)))
    return Response(status_code=204)


@router.post(
    "/tokens/{token}/rotate",
    response_model=MadeOut,
    responses=problems(404, *WITH_BODY),
    openapi_extra=ROTATION.documented(at_once={}, in_an_hour={"grace_s": 3600}),
    summary="Give a token a new secret",
)
async def rotate_token(request: Request, token: str) -> Response:
    """Name, role, scope and limits stay. What is open with the token ends, and can be opened again."""
    shared = service(request)
    asked = await ROTATION.read(request)
    made = await shared.cluster.tokens.rotate(token, caller(request), asked.grace_s)
    await shared.cluster.credentials_reached(made.token.version)
    return render.answer(_made(made, shared.now()), headers={"Cache-Control": "no-store"})


def rendered(found: Versioned[Token], now: float) -> render.Json:
    one = found.value
    return {
        "id": one.id,
        "name": one.name,
        "role": one.role.value,
        "host": one.host or None,
        "scope": dict(one.scope),
        "grants": [grant.value for grant in one.grants],
        "created_at": render.instant(one.created_at),
        "created_by": one.created_by,
        "expires_at": render.moment(one.expires_at),
        "expired": one.is_expired(now),
        "previous_until": render.moment(one.previous_until),
        "certificate": one.certificate or None,
        "joined_with": one.joined_with or None,
        "limits": limits(one.limits),
        "version": found.version,
    }


def limits(of: Limits) -> dict[str, Any]:
    return {"networks": of.networks, "endpoints": of.endpoints, "rate": of.rate, "streams": of.streams}


def _made(made: Made, now: float) -> render.Json:
    return {**rendered(made.token, now), "token": str(made.text)}
