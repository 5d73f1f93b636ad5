"""/v1/audit: the chain over the journal, whether the journal fits it, and both as lines for files kept elsewhere.

An export is told from memory, one commit at a time: what it holds at any moment does not grow with the journal. Its
last line says that it is whole. Changes nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Annotated, Any

from fastapi import Query, Request, Response
from pydantic import Field
from starlette.responses import StreamingResponse

from controller.api import render
from controller.api.answers import Answer
from controller.api.history import Actor, Kind, Network, RequestId, Since, Source, Until, subject_of
from controller.api.routing import principal, problems, resource_router, service, shows
from controller.audit.seal import Seal
from controller.audit.verify import Verdict
from controller.events import EventLog
from controller.history import AT_A_TIME, Subject
from controller.views import Event
from kvnet import codec
from kvnet.moments import moment

Shown = Callable[[Event], Event | None]

router = resource_router("audit")
LINES = "application/x-ndjson"


class SealOut(Answer):
    """One link of the chain."""

    number: int
    at: str
    previous: str = Field(description="The hash of the seal before; empty where the chain began.")
    revision: int = Field(
        description="What the journal had up to here, and not yet at the seal before, is in `digest`."
    )
    count: int
    digest: str
    trimmed: int = Field(description="Up to this revision the journal is taken away by kvnet itself.")
    anchor: int = Field(description="The oldest seal that is kept.")
    replica: str
    begins: str = Field(description="Why a chain begins here: `begun`, `restored`; empty where it goes on.")
    hash: str


class SealsOut(Answer):
    items: list[SealOut]


class MisfitOut(Answer):
    seal: int = Field(description="The number of the seal that it was found at; 0 if at none.")
    detail: str


class VerdictOut(Answer):
    """Whether the journal in the store fits its seals, and the seals one another."""

    ok: bool
    misfits: list[MisfitOut] = Field(description="In the order of the chain, at most 20.")
    head: str | None = Field(description="NUMBER:HASH of the newest seal. Keep it elsewhere, and ask with it later.")
    sealed_at: str | None
    revision: int = Field(description="Up to where it is sealed.")
    seals: int = Field(description="How many were compared with their entries; those of trimmed ones cannot be.")
    entries: int
    unsealed: int = Field(description="Entries that are younger than the newest seal.")
    unsealed_since: str | None
    trimmed: int
    begins: str
    doubtful: list[str] = Field(description="Entries that say they are older than a seal they came after.")


@router.get("/audit/seals", response_model=SealsOut, responses=problems(), summary="The chain over the journal")
async def list_seals(
    request: Request,
    after: Annotated[int, Query(ge=0, lt=10**12, description="Only seals with a higher number.")] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> Response:
    """The oldest first. Seals of entries that are no longer kept go with them."""
    found = [seal for seal in service(request).cluster.seals() if seal.number > after][:limit]
    return render.answer({"items": [_seal(seal) for seal in found]})


@router.get("/audit/verify", response_model=VerdictOut, responses=problems(), summary="Does the journal fit its seals?")
async def verify_journal(
    request: Request,
    head: Annotated[
        str, Query(pattern=r"^([0-9]{1,12}:)?[0-9a-f]{64}$", description="One that was kept: NUMBER:HASH, or the hash.")
    ] = "",
) -> Response:
    """Reads journal and seals in the store itself, and compares what this replica saw of the chain, too. Without a head
    from elsewhere, a chain that was made anew while no controller ran cannot be told from the true one."""
    return render.answer(_verdict(await service(request).cluster.audit(head)))


@router.get(
    "/audit/export",
    response_class=Response,
    responses=problems(
        also={200: {"description": "One JSON object a line: `type` is `change` (an EventOut), `seal` (a SealOut) or, "
                    "at the end, `end`.", "content": {LINES: {"schema": {"type": "string"}}}}}
    ),
    summary="The journal and its seals, as lines",
)  # fmt: skip
async def export(
    request: Request,
    network: Network = None,
    actor: Actor = None,
    source: Source = None,
    kind: Kind = None,
    request_id: RequestId = None,
    since: Since = None,
    until: Until = None,
) -> Response:
    """The oldest first. What has no line `end` broke off."""
    shared = service(request)
    cluster = shared.cluster
    subject = subject_of(cluster, network, actor, source, kind, request_id, since, until)
    who = principal(request)

    def is_over() -> bool:
        return shared.stopping.is_set() or shared.endings.is_over(who)

    lines = _told(cluster.events, cluster.seals(), subject, shows(request), is_over)
    return StreamingResponse(lines, media_type=LINES, headers={"X-Accel-Buffering": "no", "Cache-Control": "no-store"})


async def _told(
    log: EventLog, seals: Sequence[Seal], subject: Subject, shown: Shown, is_over: Callable[[], bool]
) -> AsyncIterator[bytes]:
    changes, links = 0, list(seals)
    for looked, revision in enumerate(reversed(log.revisions()), 1):
        while links and links[0].revision < revision:
            yield _line("seal", _seal(links.pop(0)))
        events = _wanted(log, revision, subject, shown)
        changes += len(events)
        for line in events:
            yield line
        if is_over():
            return
        if not looked % AT_A_TIME:
            await asyncio.sleep(0)
    for seal in links:
        yield _line("seal", _seal(seal))
    yield _line("end", {"changes": changes, "kept_from": log.floor, "head": seals[-1].head if seals else None})


def _wanted(log: EventLog, revision: int, subject: Subject, shown: Shown) -> list[bytes]:
    if not log.mentions(revision, subject.words()):
        return []
    told = (shown(event) for event in log.events_of(revision) or () if subject.concerns(event))
    return [_line("change", render.event(event)) for event in told if event is not None]


def _line(kind: str, members: Mapping[str, Any]) -> bytes:
    return json.dumps({"type": kind, **members}, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _seal(seal: Seal) -> dict[str, Any]:
    return {**codec.to_json(seal), "at": moment(seal.at)}


def _verdict(one: Verdict) -> dict[str, Any]:
    last = one.last
    return {
        "ok": one.ok,
        "misfits": [{"seal": misfit.seal, "detail": misfit.what} for misfit in one.misfits],
        "head": last.head if last else None,
        "sealed_at": moment(last.at) if last else None,
        "revision": last.revision if last else 0,
        "seals": one.checked,
        "entries": one.entries,
        "unsealed": one.unsealed,
        "unsealed_since": None if one.unsealed_since is None else moment(one.unsealed_since),
        "trimmed": one.trimmed,
        "begins": one.begins,
        "doubtful": list(one.doubtful),
    }
