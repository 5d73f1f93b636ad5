"""/v1/events: what changes, as server-sent events, resumable by revision.

A stream ends at once when the server stops (it would hold the process up otherwise), when its reader is gone, or is too
slow. Everything that can be refused is refused before the stream starts, as a problem. A stream is one task for as long
as it lives, however much it tells; what it tells was encoded once for all of them.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import Header, Query, Request, Response
from starlette.types import Receive, Scope, Send

from controller.api import render
from controller.api.middleware import IS_HEAD
from controller.api.outlet import Outlet
from controller.api.routing import (
    Name,
    hidden_kinds,
    principal,
    problems,
    resource_router,
    service,
    view,
)
from controller.api.service import Service
from controller.api.streams import OpenStream, open_stream
from controller.fanout import Filter, Listener
from kvnet import keys
from kvnet.errors import Gone, TooManyStreams

PING_S = 15.0
SLOW_S = 0.05
LAST_WORD_S = 0.3
PIECE_BYTES = 32 * 1024

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
                "revision was told; `gone` ends a stream whose reader was too slow, and its id is where to go on.",
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

    `network.status` and `host.status` tell how things are whenever that changes; they cannot be replayed. Swagger's
    *Execute* shows nothing until the stream ends. Use `curl -N http://localhost:7480/v1/events?since=0`.
    """
    shared = service(request)
    cluster = shared.cluster
    who = principal(request)
    only = view(request).networks.get(network).value.id if network else ""
    wanted = Filter(tuple(kind), only, hidden_kinds(who), shared.sight(who))
    start = int(last_event_id) if last_event_id is not None else since
    if start is not None:
        await _require_past(shared, start)
    listener = shared.fanout.listener(start, wanted)
    caught_up = max(cluster.events.revision, cluster.revision, start or 0)
    if request.scope.get(IS_HEAD):
        listener.close()
        return Response(status_code=200, media_type="text/event-stream", headers=HEADERS)
    try:
        opened = open_stream(request)
    except TooManyStreams:
        listener.close()
        raise
    return EventStream(shared, listener, caught_up, opened)


async def _require_past(shared: Service, start: int) -> None:
    """A replica may be behind the one that the position is from; the store is not.

    Raises:
        Gone: there is no such revision yet.
        StoreError
    """
    if start <= max(shared.cluster.events.revision, shared.cluster.revision):
        return
    newest = (await shared.store.list(keys.CLUSTER)).revision
    if start > newest:
        raise Gone(
            f"revision {start} is still to come: the store is at {newest}",
            fix="list again and continue from the list's revision; the position is another store's, or of another past",
            context={"revision": newest},
        )


class EventStream(Response):
    """`caught_up`: the revision up to which everything is told once the past is."""

    media_type = "text/event-stream"

    def __init__(self, shared: Service, listener: Listener, caught_up: int, opened: OpenStream) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._shared = shared
        self._opened = opened
        self._listener = listener
        self._caught_up = caught_up
        self._waiter: asyncio.Future[None] | None = None
        listener.wake = self._wake

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self._opened:
                await self._stream(scope, receive, send, self._opened.ended)
        finally:
            self._listener.close()

    async def _stream(self, scope: Scope, receive: Receive, send: Send, ended: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        outlet = Outlet(scope, loop.time)
        left = asyncio.create_task(_until_left(receive))
        stop = asyncio.create_task(_either(self._shared.stopping, ended))
        for ending in (left, stop):
            ending.add_done_callback(lambda _: self._wake())
        self._shared.metrics.streams.inc()
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._tell(send, outlet, left, stop)
            if not left.done():
                await self._end(send, outlet, left)
        finally:
            self._shared.metrics.streams.dec()
            left.cancel()
            stop.cancel()

    async def _tell(self, send: Send, outlet: Outlet, left: asyncio.Task[None], stop: asyncio.Task[None]) -> None:
        """Until somebody wants it to end; each send goes into a connection that has room for it."""
        clock = asyncio.get_running_loop().time
        interval_s = min(PING_S, self._shared.cluster.bookmark_interval_s)
        due, bookmarked = clock() + interval_s, -1
        while not (left.done() or stop.done()):
            if outlet.is_full():
                if outlet.is_stuck():
                    self._shared.cluster.events.dropped += 1
                    return
                await self._pause(SLOW_S)
                continue
            try:
                data = self._listener.take(PIECE_BYTES)
            except Gone as error:
                await _put(send, render.gone(error))
                return
            if self._listener.is_through_the_past and bookmarked < 0:
                bookmarked = self._caught_up
                data += render.bookmark(bookmarked)
            elif not data and clock() >= due:
                bookmarked = max(self._listener.told, bookmarked)
                data = render.bookmark(bookmarked)
            if data:
                await _put(send, data)
                due = clock() + interval_s
            elif self._listener.is_through_the_past:
                await self._pause(due - clock())
            if not self._listener.is_through_the_past:
                await asyncio.sleep(0)

    async def _end(self, send: Send, outlet: Outlet, left: asyncio.Task[None]) -> None:
        """A client that does not read gets no last word: it knows the revision it read last."""
        if outlet.is_full():
            outlet.abort()
            await asyncio.wait((left,), timeout=LAST_WORD_S)
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        outlet.abort_unless_read(LAST_WORD_S)

    async def _pause(self, most_s: float) -> None:
        """Until there may be something to do, at most so long."""
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        timer = loop.call_later(most_s, self._wake)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


async def _either(*events: asyncio.Event) -> None:
    waiting = [asyncio.create_task(one.wait()) for one in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()


async def _put(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def _until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
