"""/v1/hosts/{host}/doctor and /v1/connectivity: what is wrong with hosts, and between them, as their workers find it.

Nothing is changed by either; both take as long as the workers need, and both are bounded.
"""

from __future__ import annotations

from typing import Literal

from fastapi import Request, Response
from pydantic import Field

from controller.api import render
from controller.api.answers import Answer
from controller.api.bodies import JsonBody
from controller.api.models import ConnectivityIn
from controller.api.routing import (
    WITH_BODY,
    caller,
    principal,
    problems,
    resource_router,
    service,
    view,
)
from controller.connectivity.run import Wish

DOCTOR_S = 18.0

router = resource_router("operations")


class TestedHostProblemOut(Answer):
    code: str
    detail: str
    fix: str


class TestedHostOut(Answer):
    name: str
    underlay: str
    mtu: int
    answers: bool
    problem: TestedHostProblemOut | None


class RoundTripOut(Answer):
    min: float
    avg: float
    max: float


class EchoOut(Answer):
    sent: int
    answered: int


class TunnelOut(Answer):
    sent: int
    left: int = Field(description="Seen leaving the sender's link.")
    arrived: int = Field(description="Seen on the receiver's link, before its firewall.")
    through: int | None = Field(description="Seen behind the receiver's tunnel; null where it has none.")


class PassingOut(Answer):
    needed: int = Field(description="The largest packet that the networks of both send, with the tunnel's headers.")
    passes: int | None = Field(description="The largest that arrived whole.")
    told_by: str | None = Field(description="Who on the way says that larger ones do not pass; null: nobody.")


Status = Literal["ok", "mtu", "loss", "blocked", "no-answer"]


class LinkOut(Answer):
    """One direction between two hosts. The numbers are null where nothing could be tried."""

    from_: str = Field(alias="from")
    to: str
    status: Status
    code: str
    detail: str
    fix: str
    rtt_ms: RoundTripOut | None
    echo: EchoOut | None
    tunnel: TunnelOut | None
    mtu: PassingOut | None


class TestedEndpointOut(Answer):
    id: str
    name: str
    host: str
    address: str


class TestedNetworkOut(Answer):
    id: str
    name: str


class FullOut(Answer):
    size: int
    sent: int
    answered: int


class TestedPairOut(Answer):
    """One direction between two endpoints, by one family of addresses."""

    network: TestedNetworkOut
    from_: TestedEndpointOut = Field(alias="from")
    to: TestedEndpointOut
    family: Literal[4, 6]
    status: Status
    code: str
    detail: str
    fix: str = Field(description="What to do, or the command to go on with.")
    rtt_ms: RoundTripOut | None
    echo: EchoOut
    full: FullOut = Field(description="Packets as large as the network allows.")


class NotTriedOut(Answer):
    what: str
    count: int


class ConnectivityOut(Answer):
    ok: bool
    failures: int
    hosts: list[TestedHostOut]
    links: list[LinkOut]
    endpoints: list[TestedPairOut]
    not_tried: list[NotTriedOut]
    took_s: float


class DoctorCheckOut(Answer):
    id: str
    area: str
    status: Literal["ok", "warn", "fail", "unknown", "skipped"]
    found: str
    why: str
    fix: str


class DoctorOut(Answer):
    host: str
    version: str
    checks: list[DoctorCheckOut]
    counts: dict[str, int]


BODY: JsonBody[ConnectivityIn] = JsonBody(ConnectivityIn, "ConnectivityIn")


@router.post(
    "/connectivity",
    response_model=ConnectivityOut,
    responses=problems(404, *WITH_BODY),
    openapi_extra=BODY.documented(
        everything={}, one_network={"networks": ["my-net"]}, two_hosts={"hosts": ["h1", "h2"], "between": "hosts"}
    ),
    summary="Test who reaches whom",
)
async def test_connectivity(request: Request) -> Response:
    """Workers send marked packets to each other, and count what arrives: host with host (the tunnel's UDP port, the
    largest packet, ping) and endpoint with endpoint. What fails is told with where it got lost. Nothing is changed; a
    host takes part in one test at a time."""
    asked = await BODY.read(request)
    shared = service(request)
    tested = view(request).connectivity.test(_wish(asked), caller(request))
    return render.answer(await shared.unless_stopped(tested, principal(request)))


@router.get(
    "/hosts/{host}/doctor",
    response_model=DoctorOut,
    responses=problems(404, 504),
    summary="Examine a host",
)
async def examine_host(request: Request, host: str) -> Response:
    """Its worker looks at what kvnet needs of the host, and says what to do about each finding."""
    shared = service(request)
    examined = shared.cluster.questions.ask(host, "doctor", {}, caller(request), DOCTOR_S)
    return render.answer(await shared.unless_stopped(examined, principal(request)))


def _wish(asked: ConnectivityIn) -> Wish:
    return Wish(
        None if asked.networks is None else tuple(asked.networks),
        None if asked.hosts is None else tuple(asked.hosts),
        tries_hosts=asked.between != "endpoints",
        tries_endpoints=asked.between != "hosts",
        all_endpoints=asked.all_endpoints,
    )
