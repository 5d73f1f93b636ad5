"""/v1/join, /v1/ca, /v1/certificate: how a host comes by its credentials, and keeps them fresh."""

from __future__ import annotations

from fastapi import Request, Response
from pydantic import Field

from controller.api import render
from controller.api.answers import Answer
from controller.api.bodies import JsonBody
from controller.api.models import Body, Name
from controller.api.routing import WITH_BODY, caller, problems, resource_router, service
from controller.security.authentication import CERTIFICATE
from controller.security.joining import Joined, JoinRequest
from controller.security.principal import PRINCIPAL, Principal
from kvnet.errors import Invalid, NotFound

router = resource_router("joining")
MAX_REQUEST = 8192
NO_STORE = {"Cache-Control": "no-store"}
REQUEST_TEXT = "A certificate signing request (PEM). Of it only the key counts; the subject is set here."


class JoinIn(Body):
    """A host with a join token: it has made its secret itself, and tells only a hash of it."""

    token: str = Field(max_length=128, description="The join token.")
    hash: str = Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of the secret that the host will have.")
    certificate_request: str | None = Field(None, max_length=MAX_REQUEST, description=REQUEST_TEXT)
    host: Name | None = Field(None, description="Refused, without using the token, if it is for another host.")
    replace: bool = Field(False, description="The credentials that this host has already are to die.")


class CertificateIn(Body):
    """A host that has joined, before its certificate expires."""

    certificate_request: str = Field(max_length=MAX_REQUEST, description=REQUEST_TEXT)


class JoinedOut(Answer):
    host: str
    id: str = Field(description="Of the host's token: its text is `kvnet_<id>_<the secret>`.")
    name: str
    scope: dict[str, str]
    grants: list[str]
    certificate: str | None = Field(description="What to show on connections, PEM; null: nobody signs here.")
    expires_at: float | None = Field(description="When the certificate expires, seconds since the epoch.")
    ca: str | None = Field(description="The CA of the controllers, PEM.")


class AuthorityOut(Answer):
    certificate: str = Field(description="PEM.")
    fingerprint: str = Field(description="sha256: and the SHA-256 of the certificate (DER).")


JOIN: JsonBody[JoinIn] = JsonBody(JoinIn, "JoinIn")
RENEWAL: JsonBody[CertificateIn] = JsonBody(CertificateIn, "CertificateIn")
EXAMPLE = {"token": f"kvnet_0123456789ab_{'x' * 43}", "hash": "5f" * 32}


@router.post(
    "/join",
    response_model=JoinedOut,
    responses=problems(*WITH_BODY),
    openapi_extra=JOIN.documented(with_a_secret_alone=EXAMPLE),
    summary="Join as a host",
)
async def join(request: Request) -> Response:
    """The join token becomes the host's own, once. The same request again, within a quarter of an hour, is answered
    alike: for a host that lost the answer."""
    asked = await JOIN.read(request)
    wanted = JoinRequest(
        asked.token,
        asked.hash,
        asked.certificate_request or "",
        request.scope.get(CERTIFICATE, ""),
        host=asked.host or "",
        replaces=asked.replace,
    )
    joined = await service(request).cluster.joining.join(wanted, caller(request))
    return await _answer(request, joined)


@router.post(
    "/certificate",
    response_model=JoinedOut,
    responses=problems(*WITH_BODY),
    openapi_extra=RENEWAL.documented(),
    summary="Renew a host's certificate",
)
async def renew(request: Request) -> Response:
    """For the host that asks. The certificate that it shows stays good as long as it is valid."""
    principal: Principal = request.scope[PRINCIPAL]
    if not principal.host or not principal.token:
        raise Invalid("only a host has a certificate here", fix="ask with a host's credentials")
    asked = await RENEWAL.read(request)
    shown = request.scope.get(CERTIFICATE, "")
    renewed = await service(request).cluster.joining.renew(
        principal.token, asked.certificate_request, shown, caller(request)
    )
    return await _answer(request, renewed)


@router.get("/ca", response_model=AuthorityOut, responses=problems(404), summary="Get the CA's certificate")
async def get_authority(request: Request) -> Response:
    """What it says is public, and proves nothing by itself: compare the fingerprint with what 'kvnet ca show' says."""
    certificates = service(request).certificates
    found = None if certificates is None else certificates.authority
    if found is None:
        raise NotFound("this controller has no CA of its own", fix="ask who runs it which CA its certificate is of")
    return render.answer({"certificate": found.pem, "fingerprint": f"sha256:{found.fingerprint}"})


async def _answer(request: Request, joined: Joined) -> Response:
    shared, token = service(request), joined.token.value
    await shared.cluster.credentials_reached(joined.token.version)
    authority = None if shared.certificates is None else shared.certificates.authority
    return render.answer(
        {
            "host": token.host,
            "id": token.id,
            "name": token.name,
            "scope": dict(token.scope),
            "grants": [grant.value for grant in token.grants],
            "certificate": joined.certificate or None,
            "expires_at": _end_of(joined.certificate),
            "ca": None if authority is None else authority.pem,
        },
        headers=NO_STORE,
    )


def _end_of(pem: str) -> float | None:
    if not pem:
        return None
    from cryptography.x509 import load_pem_x509_certificate

    return load_pem_x509_certificate(pem.encode()).not_valid_after_utc.timestamp()
