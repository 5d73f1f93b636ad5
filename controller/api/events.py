"""/v1/events: what changes, as server-sent events, resumable by revision.

A stream ends at once when the server stops (it would hold the process up otherwise), when its reader is gone, or is too
slow. Everything that can be refused is refused before the stream starts, as a problem.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated

from fastapi import Header, Query, Request, Response
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event

from controller.api import render
from controller.api.middleware import IS_HEAD
from controller.api.routing import Name, problems, resource_router, service
from controller.api.service import Service
from controller.views import Bookmark, Event
from kvnet.errors import Gone
from kvnet.problems import to_problem

PING_S = 15.0
QUIET_S = 0.05  # nothing for so long: the backlog has been told, and the client may know

router = resource_router("events")
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


@router.get(
    "/events",
    response_class=Response,
    responses=problems(
        404,
        410,
        also={
            200: {
                "description": "The stream. `event: change` has an EventOut; `bookmark` says that everything up to its "
                "revision was told; `gone` ends a stream whose reader was too slow.",
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
            }
        },
    ),
    summary="Stream of changes",
)
async def stream_events(
    request: Request,
    since: Annotated[int | None, Query(ge=0, le=2**63 - 1, description="Start after this revision.")] = None,
    kind: Annotated[
        list[str], Query(max_length=16, description="`network`, `endpoint.created` ...; any may hold.")
    ] = [],  # noqa: B006
    network: Name | None = None,
    last_event_id: Annotated[
        str | None, Header(alias="Last-Event-ID", pattern=r"^[0-9]{1,19}$", description="As sent by EventSource.")
    ] = None,
) -> Response:
    """Without `since` only what happens from now on. The id of an event is the revision to resume from.

    Swagger's *Execute* shows nothing until the stream ends. Use `curl -N http://localhost:7480/v1/events?since=0`.
    """
    shared = service(request)
    cluster = shared.cluster
    wanted = Filter(tuple(kind), cluster.networks.get(network).value.id if network else "")
    start = int(last_event_id) if last_event_id is not None else since
    subscription = cluster.events.since(start)
    caught_up = max(cluster.events.revision, cluster.revision, start or 0)
    if request.scope.get(IS_HEAD):
        return Response(status_code=200, media_type="text/event-stream", headers=HEADERS)
    stream = _stream(shared, subscription, wanted, caught_up)
    return EventSourceResponse(stream, headers=HEADERS)


@dataclass(frozen=True, slots=True)
class Filter:
    """`kinds`: "network" stands for every kind of event about networks. Empty: all."""

    kinds: tuple[str, ...]
    network: str

    def takes(self, event: Event) -> bool:
        if self.network and event.network != self.network:
            return False
        return not self.kinds or any(event.kind == kind or event.kind.startswith(kind + ".") for kind in self.kinds)


async def _stream(
    shared: Service, subscription: AsyncIterator[Event | Bookmark], wanted: Filter, caught_up: int
) -> AsyncIterator[bytes]:
    shared.metrics.streams.inc()
    told = -1  # the bookmark sent last
    try:
        async with aclosing(_heard(subscription, shared.stopping)) as heard:
            async for item in heard:
                if told < caught_up and (item is None or item.revision > caught_up):
                    yield bookmark(caught_up)
                    told = caught_up
                match item:
                    case None:
                        yield KEEPALIVE_COMMENT
                    case Bookmark():
                        yield bookmark(max(item.revision, told))
                    case Event() if wanted.takes(item):
                        yield change(item)
    except Gone as error:
        yield format_sse_event(event="gone", data_str=render.encode(to_problem(error)))
    finally:
        shared.metrics.streams.dec()


async def _heard(
    subscription: AsyncIterator[Event | Bookmark], stopping: asyncio.Event
) -> AsyncGenerator[Event | Bookmark | None]:
    """The subscription until the server stops; None when nothing came for a while, the first time very soon."""
    stop = asyncio.create_task(stopping.wait())
    upcoming: asyncio.Task[Event | Bookmark] | None = None
    patience = QUIET_S
    try:
        while not stopping.is_set():
            if upcoming is None:
                upcoming = asyncio.create_task(_next(subscription))
            await asyncio.wait((upcoming, stop), timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if upcoming.done():
                item, upcoming = upcoming.result(), None
                yield item
            elif not stop.done():
                patience = PING_S
                yield None
    finally:
        stop.cancel()
        if upcoming is not None:
            upcoming.add_done_callback(_seen)
            upcoming.cancel()


async def _next(subscription: AsyncIterator[Event | Bookmark]) -> Event | Bookmark:
    return await anext(subscription)


def _seen(future: asyncio.Task[Event | Bookmark]) -> None:
    """A failure that nobody waits for any more is no failure."""
    if not future.cancelled():
        future.exception()


def bookmark(revision: int) -> bytes:
    return format_sse_event(event="bookmark", id=str(revision), data_str=f'{{"revision":{revision}}}')


def change(event: Event) -> bytes:
    """Only the last event of a revision has an id: a stream broken in between starts that revision again."""
    position = str(event.revision) if event.resumable else None
    return format_sse_event(event="change", id=position, data_str=render.encode(render.event(event)))
