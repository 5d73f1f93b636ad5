"""The store gateway: the store contract for hosts that have no access to the store itself.

Keeps nothing between two requests, so any replica can answer any of them: a watch names where it continues, a session
is refreshed by its id. What the store says is passed on unchanged (`backends.gateway_wire` has the spelling); a host's
credential sees of it what is the host's (`controller.security.host_store`), everybody else all of it. Never lets a
silent connection look alive: every watch hears the revision every few seconds.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from backends import gateway_wire as wire
from backends.joined_reads import JoinedReads
from backends.store import MIN_TTL_S, Store, StoreError, Unavailable, Write, require_floor
from controller.api.encoded import Encodings, encode
from controller.api.middleware import CALLER
from controller.api.store_journal import with_note
from controller.api.store_watch import Told
from controller.api.streams import OpenStream, open_stream
from controller.security.hidden_store import HiddenStore
from controller.security.host_store import Gate
from controller.security.hosts import of_host
from controller.security.principal import PRINCIPAL
from kvnet import keys

BOOKMARK_EVERY_S = 5.0

Handler = Callable[[Request], Awaitable[Response]]


def router(
    store: Store,
    *,
    stopping: asyncio.Event,
    bookmark_every_s: float = BOOKMARK_EVERY_S,
    gate: Callable[[], Gate | None] = lambda: None,
) -> APIRouter:
    """Routes `/v1/store/...` on this store. `stopping`: streams end then, for they would hold the process up.
    `gate`: through which hosts see it; None while the controller starts."""
    gateway = _Gateway(HiddenStore(JoinedReads(store)), stopping, bookmark_every_s, gate)
    routes = APIRouter(prefix="/v1/store", tags=["store gateway"])
    for method, path, handler, summary in (
        ("POST", "/get", gateway.get, "One entry: {key}"),
        ("POST", "/list", gateway.list, "All entries under a prefix, as of one revision: {prefix}"),
        ("POST", "/commit", gateway.commit, "All writes if all checks hold, else nothing: {checks, writes}"),
        ("POST", "/watch", gateway.watch, "Changes as JSON lines: {prefix, after}, or many {watches}"),
        ("POST", "/sessions", gateway.open_session, "A new session, or one taken over: {ttl_s, resume}"),
        ("POST", "/sessions/{session_id}/refresh", gateway.refresh, "Proof of life: {ttl_s}"),
        ("DELETE", "/sessions/{session_id}", gateway.end_session, "End a session: its keys vanish"),
    ):
        routes.add_api_route(path, _told(handler), methods=[method], summary=summary, name=f"store {path}")
    return routes


def are_reports(writes: Sequence[Write]) -> bool:
    """Whether they only say what hosts have applied: of one change all of them say it within two seconds."""
    return all(write.key.startswith(keys.OBSERVED) for write in writes)


class _Gateway:
    def __init__(
        self, store: Store, stopping: asyncio.Event, bookmark_every_s: float, gate: Callable[[], Gate | None]
    ) -> None:
        self._store = store
        self._stopping = stopping
        self._bookmark_every_s = bookmark_every_s
        self._gate = gate
        self._encodings = Encodings(lambda seconds, call: asyncio.get_running_loop().call_later(seconds, call))

    def _of(self, request: Request) -> Store:
        """
        Raises:
            Unavailable: a host asks, and it is not known yet who takes part in what.
        """
        host = of_host(request.scope.get(PRINCIPAL))
        if host is None:
            return self._store
        gate = self._gate()
        if gate is None:
            raise Unavailable("the controller is starting")
        return gate.store_for(host, self._store)

    async def get(self, request: Request) -> Response:
        entry = await self._of(request).get(wire.text(await _body(request), "key"))
        return _json({"entry": None if entry is None else wire.entry_to_json(entry)})

    async def list(self, request: Request) -> Response:
        found = await self._of(request).list(wire.text(await _body(request), "prefix"))
        return Response(self._encodings.snapshot(found), media_type="application/json")

    async def commit(self, request: Request) -> Response:
        checks, writes = wire.transaction_from_json(await _body(request))
        require_floor(checks, writes)  # this controller's own store may take more
        if of_host(request.scope.get(PRINCIPAL)) is None and CALLER in request.scope:
            told = with_note(checks, writes, request.scope[CALLER], time.time(), lambda: secrets.token_hex(6))
            return _json({"revision": await self._of(request).commit(checks, told)})
        return _json({"revision": await self._of(request).commit(checks, writes)})

    async def watch(self, request: Request) -> Response:
        asked = wire.watched_from_json(await _body(request))
        store = self._of(request)
        opened = open_stream(request)
        told = Told(store, self._encodings, self._bookmark_every_s, opened.ended, self._stopping)
        return Watch(told.lines(asked), opened)

    async def open_session(self, request: Request) -> Response:
        body = await _body(request)
        ttl_s = wire.seconds(body, "ttl_s")
        # Taken over and let go: that refreshes it once, and leaves the next refresh to any replica.
        session = await self._of(request).session(ttl_s, resume=wire.optional_text(body, "resume"))
        await session.release()
        return _json({"id": session.id, "ttl_s": ttl_s}, status=201)

    async def refresh(self, request: Request) -> Response:
        ttl_s = wire.seconds(await _body(request), "ttl_s")
        session = await self._of(request).session(ttl_s, resume=request.path_params["session_id"])
        await session.release()
        return _json({"id": session.id, "ttl_s": ttl_s})

    async def end_session(self, request: Request) -> Response:
        session = await self._of(request).session(MIN_TTL_S, resume=request.path_params["session_id"])
        await session.close()
        return Response(status_code=204)


class Watch(StreamingResponse):
    """`opened`: the stream as it is counted, and ended with its credential."""

    def __init__(self, lines: AsyncIterator[bytes], opened: OpenStream) -> None:
        super().__init__(lines, media_type="application/x-ndjson", headers={"x-accel-buffering": "no"})
        self._opened = opened

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._opened:
            await super().__call__(scope, receive, send)


def _told(handler: Handler) -> Handler:
    """With the store's refusals as problems instead of exceptions."""

    async def endpoint(request: Request) -> Response:
        try:
            return await handler(request)
        except StoreError as error:
            problem = wire.error_to_json(error)
            return _json(problem, status=problem["status"], media_type="application/problem+json")
        except ValueError as error:
            problem = {
                "type": "/problems/invalid",
                "title": "The request is not valid",
                "status": 422,
                "detail": str(error),
                "code": "invalid",
            }
            return _json(problem, status=422, media_type="application/problem+json")

    return endpoint


async def _body(request: Request) -> object:
    """
    Raises:
        ValueError: not JSON.
    """
    try:
        plain: object = json.loads(await request.body())
    except RecursionError:
        raise ValueError("the body is nested too deep") from None
    return plain


def _json(plain: wire.Json, *, status: int = 200, media_type: str = "application/json") -> Response:
    return Response(encode(plain), status_code=status, media_type=media_type)
