"""/v1/journal: what happened to one thing or by one hand, newest first. What happens next is /v1/events' to tell."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime
from typing import Annotated

from fastapi import Query, Request, Response
from pydantic import AwareDatetime, BeforeValidator, Field

from controller.api import render
from controller.api.answers import Answer, EventOut
from controller.api.routing import (
    Name,
    problems,
    resource_router,
    shows,
    view,
)
from controller.cluster import Cluster
from controller.history import Subject, changes
from controller.parsing import parse_address
from kvnet.errors import NotFound

router = resource_router("events")

Network = Annotated[Name | None, Query(description="By name or id; also one that is gone.")]
Actor = Annotated[str | None, Query(max_length=256, description="Who: a token's name, `host:NAME`, `upkeep` ...")]
Source = Annotated[str | None, Query(max_length=256, description="Where from: an address, `unix`, `cli` ...")]
Kind = Annotated[str | None, Query(max_length=64, description="`network`, `endpoint.created` ...")]
RequestId = Annotated[str | None, Query(max_length=128)]


def _as_described(value: object) -> object:
    """A number would do for pydantic, as seconds since 1970; the description knows nothing of that."""
    if isinstance(value, str) and not _DATE.match(value):
        raise ValueError("a moment like 2026-01-31T12:00:00Z is expected")
    return value


_DATE = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]")
_Moment = Annotated[AwareDatetime | None, BeforeValidator(_as_described)]
Since = Annotated[_Moment, Query(description="Not before this moment, such as 2026-01-31T12:00:00Z.")]
Until = Annotated[_Moment, Query(description="Before this moment.")]


class JournalOut(Answer):
    """Changes, newest first."""

    items: list[EventOut]
    kept_from: int = Field(description="Older changes than those after this revision are not kept.")
    revision: int


@router.get("/journal", response_model=JournalOut, responses=problems(), summary="What happened to one thing")
async def list_changes(
    request: Request,
    network: Network = None,
    endpoint: Annotated[Name | None, Query(description="By id or name.")] = None,
    host: Name | None = None,
    pool: Name | None = None,
    address: Annotated[str | None, Query(max_length=64, description="Who had it.")] = None,
    actor: Actor = None,
    source: Source = None,
    kind: Kind = None,
    request_id: RequestId = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> Response:
    """Of all that is named; without a name, of everything. The journal is bounded: `kept_from` says how far it goes."""
    cluster = view(request)
    subject = replace(
        subject_of(cluster, network, actor, source, kind, request_id, since, until),
        endpoint=endpoint or "",
        host=host or "",
        pool=pool or "",
        address="" if address is None else str(parse_address(address, "/query/address")),
    )
    found = [render.event(event) for event in await changes(cluster.events, subject, limit, shows(request))]
    log = cluster.events
    revision = max(cluster.revision, log.revision)  # the journal's mirror may be ahead of the others
    return render.answer({"items": found, "kept_from": log.floor, "revision": revision})


def subject_of(
    cluster: Cluster,
    network: str | None,
    actor: str | None,
    source: str | None,
    kind: str | None,
    request_id: str | None,
    since: datetime | None,
    until: datetime | None,
) -> Subject:
    """What every way into the journal may be asked for."""
    return Subject(
        networks=() if network is None else stand_for(cluster, network),
        actor=actor or "",
        source=source or "",
        kind=kind or "",
        request_id=request_id or "",
        since=None if since is None else since.timestamp(),
        until=None if until is None else until.timestamp(),
    )


def stand_for(cluster: Cluster, network: str) -> tuple[str, ...]:
    """Of one that is there its id alone, so that an earlier one of the same name is not mixed up with it."""
    try:
        return (cluster.networks.get(network).value.id,)
    except NotFound:
        return (network,)
