"""POST /v1/trace and /v1/hosts/{host}/pause: the way between two endpoints, and a worker that does not interfere.

A trace asks the two hosts' workers; a pause is told to one. Neither changes a network.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Request, Response
from pydantic import Field

from controller.api import render
from controller.api.answers import Answer
from controller.api.bodies import JsonBody
from controller.api.models import Body
from controller.api.routing import (
    WITH_BODY,
    caller,
    principal,
    problems,
    resource_router,
    service,
    view,
)
from controller.tracing import Wish
from datapath.trace.case import Flow

LONGEST_PAUSE_S = 24 * 3600

router = resource_router("operations")

Reference = Annotated[str, Field(min_length=1, max_length=200, examples=["app/web"])]


class TraceIn(Body):
    from_: Reference = Field(
        alias="from", description="An endpoint: its id, NETWORK/NAME, NETWORK/ADDRESS, an address, or a unique name."
    )
    to: Reference = Field(description="The other one, likewise.")
    protocol: Literal["icmp", "tcp", "udp"] = "icmp"
    port: Annotated[int, Field(ge=1, le=65535)] | None = Field(None, description="Of tcp or udp: where it goes.")
    family: Literal[4, 6] | None = Field(None, description="Null: what both have, IPv4 first.")
    ask: bool = Field(True, description="False: only say what each host would be asked, in `questions`.")
    seen: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        max_length=2,
        description="Answers to `questions` that were found in another way, by host.",
    )

    def wish(self) -> Wish:
        flow = Flow(self.protocol, self.port or 0)
        return Wish(self.from_, self.to, flow, self.family or 0, self.seen, self.ask)


class EndOut(Answer):
    endpoint: str
    name: str
    network: str
    network_id: str
    driver: str
    host: str
    address: str
    mac: str


class NetworkSeenOut(Answer):
    id: str
    name: str
    applied: int
    wanted: int
    conditions: list[str]


class HostSeenOut(Answer):
    host: str
    alive: bool
    answered: bool
    looked_at: bool
    silence: str | None = Field(description="Why it did not answer.")
    mode: str | None
    paused_seconds: float | None = Field(description="So long its repairs are paused.")
    networks: list[NetworkSeenOut]


class DifferenceOut(Answer):
    code: str
    what: str
    desired: str
    found: str
    reason: str
    fix: str
    breaks: bool = Field(description="Packets are lost by it.")


class RepairOut(Answer):
    text: str
    seconds_ago: float
    times: int
    within_seconds: int


class HopVersionOut(Answer):
    applied: int | None
    wanted: int


class HopOut(Answer):
    number: int
    host: str | None
    direction: Literal["there", "back"]
    kind: str
    name: str
    verdict: Literal["ok", "differs", "unknown"]
    desired: str
    found: str | None = Field(description="Null: nobody could look.")
    network_id: str | None
    version: HopVersionOut | None = Field(description="The store revision that is in the kernel, and the newest one.")
    differences: list[DifferenceOut]
    repairs: list[RepairOut] = Field(description="What the worker put right here lately.")


class TraceFindingOut(DifferenceOut):
    hop: int
    host: str | None


class TraceOut(Answer):
    from_: EndOut = Field(alias="from")
    to: EndOut
    family: Literal[4, 6]
    protocol: str
    port: int | None
    whole: bool = Field(description="No hop differs.")
    complete: bool = Field(description="Every hop was looked at.")
    hosts: list[HostSeenOut]
    hops: list[HopOut]
    finding: TraceFindingOut | None = Field(
        description="The first hop that differs; one that loses packets before others."
    )
    unread: list[str]
    questions: dict[str, Any] | None


class PauseIn(Body):
    seconds: Annotated[int, Field(ge=1, le=LONGEST_PAUSE_S)] = Field(600, description="It ends by itself after that.")


class PauseOut(Answer):
    host: str
    paused: bool
    seconds: float


TRACE: JsonBody[TraceIn] = JsonBody(TraceIn, "TraceIn")
PAUSE: JsonBody[PauseIn] = JsonBody(PauseIn, "PauseIn")


@router.post(
    "/trace",
    response_model=TraceOut,
    responses=problems(404, *WITH_BODY),
    openapi_extra=TRACE.documented(
        ping={"from": "app/web", "to": "app/db"},
        port={"from": "app/web", "to": "app/db", "protocol": "tcp", "port": 80},
    ),
    summary="Trace the way between two endpoints",
)
async def trace_path(request: Request) -> Response:
    """Every hop of a packet from one to the other and back, on both hosts: what it should be, what is in the kernel
    now, and the first hop where they differ, with the reason and what to do. Nothing is changed. A host that does not
    answer is a finding; what is known without it is told all the same."""
    asked = await TRACE.read(request)
    shared = service(request)
    traced = view(request).tracing.trace(asked.wish(), caller(request))
    return render.answer(await shared.unless_stopped(traced, principal(request)))


@router.post(
    "/hosts/{host}/pause",
    response_model=PauseOut,
    responses=problems(404, *WITH_BODY),
    openapi_extra=PAUSE.documented(ten_minutes={"seconds": 600}),
    summary="Pause a host's repairs",
)
async def pause_repairs(request: Request, host: str) -> Response:
    """For a bounded time the host's worker leaves alone what others do to the kernel, so that a fault can be looked at.
    Workloads come and go as always. The host tells the condition `repairs-paused` meanwhile."""
    asked = await PAUSE.read(request)
    shared = service(request)
    paused = shared.cluster.pausing.pause(host, asked.seconds, caller(request))
    return render.answer(await shared.unless_stopped(paused, principal(request)))


@router.delete(
    "/hosts/{host}/pause",
    response_model=PauseOut,
    responses=problems(404, 504),
    summary="Resume a host's repairs",
)
async def resume_repairs(request: Request, host: str) -> Response:
    """Everything is looked at, and put right, at once. Of a host that is not paused nothing changes."""
    shared = service(request)
    resumed = shared.cluster.pausing.resume(host, caller(request))
    return render.answer(await shared.unless_stopped(resumed, principal(request)))
