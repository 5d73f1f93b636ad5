"""The store contract spoken over the controller's HTTP API (`/v1/store/...`).

For hosts that have no credentials for the store, or cannot reach it. Holds no state but open watches and sessions, and
these go on at any replica of the controller: a watch resumes from its revision, a session by its id. A lost answer to a
commit is `Unknown`; only what certainly did not leave is `Unavailable`. Never imports the server's libraries.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote

from backends import gateway_wire as wire
from backends.gateway_watches import CALM_S, OneEach, Watches
from backends.lease import Clock, HeldSession, Sleep, require_ttl
from backends.store import (
    Batch,
    Broken,
    Check,
    Entry,
    Refused,
    Revision,
    Session,
    Snapshot,
    StoreError,
    Unavailable,
    Unknown,
    Write,
    require_floor,
)
from kvnet.errors import Invalid
from kvnet.http import HttpClient, Lost, NotSent, Reply, Target
from kvnet.tls import NO_TRUST, Trust

T = TypeVar("T")

ANSWER_TIMEOUT_S = 15.0
# The controller tells its revision on every watch each 5 s; three missing ones mean that nobody is there.
SILENCE_S = 15.0
UNKNOWN_THERE = 401
INVALID_THERE = 422


class GatewayStore:
    """`url` names one controller or several, separated by commas; the next one serves when one does not answer."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        trust: Trust = NO_TRUST,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
        rng: random.Random | None = None,
        silence_s: float = SILENCE_S,
        calm_s: float = CALM_S,
    ) -> None:
        try:
            targets = Target.parse_all(url, trust)
        except ValueError as error:
            raise Invalid(str(error), fix="for example http://127.0.0.1:7480") from error
        self._http = HttpClient(targets, {"authorization": f"Bearer {token}"} if token else {})
        self._url = url
        self._clock = clock
        self._sleep = sleep
        self._rng = rng or random.Random()
        self._silence_s = silence_s
        self._watches = Watches(self._told, calm_s=calm_s)
        self._sessions: list[HeldSession] = []
        # Told when who asks is not known there (any more).
        self.on_refused: Callable[[str], None] = lambda _why: None

    def show(self, trust: Trust) -> None:
        """New connections bear the certificate that is in its file now. Raises: CertificateUnusable."""
        self._http.show(trust)

    async def get(self, key: str) -> Entry | None:
        entry = (await self._ask("get", {"key": key})).get("entry")
        return None if entry is None else self._parsed(wire.entry_from_json, entry)

    async def list(self, prefix: str) -> Snapshot:
        return self._parsed(wire.snapshot_from_json, await self._ask("list", {"prefix": prefix}))

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        require_floor(checks, writes)
        plain = wire.transaction_to_json(checks, writes)
        try:
            reply = await self._http.request("POST", "/v1/store/commit", _encode(plain), ANSWER_TIMEOUT_S)
        except NotSent as error:
            raise self._away(error) from error
        except Lost as error:
            raise Unknown(f"the answer of {self._url} was lost: {error}") from error
        answer = self._answer(reply, unclear=Unknown)
        try:
            return wire.number(answer, "revision")
        except ValueError as error:
            raise Unknown(f"{self._url} answered without a revision") from error

    async def watch(self, prefix: str, after: Revision) -> AsyncIterator[Batch]:
        async with contextlib.aclosing(self._watches.watch(prefix, after)) as batches:
            async for batch in batches:
                yield batch

    async def _told(self, asked: Sequence[wire.Watched]) -> AsyncGenerator[object, None]:
        """What a connection that carries these watches says, line by line."""
        body = _encode(wire.watched_to_json(asked))
        try:
            async with contextlib.aclosing(self._http.lines("/v1/store/watch", body, self._silence_s)) as lines:
                async for status, line in lines:
                    if status == INVALID_THERE and asked[0].id is not None:
                        raise OneEach
                    if status != 200:
                        raise self._refusal(Reply(status, line), unclear=Unavailable)
                    yield _decode(line)
        except (NotSent, Lost) as error:
            raise self._away(error) from error
        raise Unavailable(f"{self._url} has ended the watch")

    async def session(self, ttl_s: float, *, resume: str | None = None) -> Session:
        ttl_s = require_ttl(ttl_s)
        began = self._clock()
        plain: wire.Json = {"ttl_s": ttl_s}
        if resume is not None:
            plain["resume"] = resume
        answer = await self._ask("sessions", plain)
        session_id = self._parsed(lambda found: wire.text(found, "id"), answer)
        path = f"sessions/{quote(session_id, safe='')}"
        session = HeldSession(
            session_id,
            ttl_s,
            began,
            refresh=lambda: self._ask(f"{path}/refresh", {"ttl_s": ttl_s}),
            end=lambda: self._ask(path, None, method="DELETE"),
            clock=self._clock,
            sleep=self._sleep,
            rng=self._rng,
        )
        self._sessions = [held for held in self._sessions if not held.is_over]
        self._sessions.append(session)
        return session

    async def close(self) -> None:
        await self._watches.close()
        for session in self._sessions:
            await session.release()
        await self._http.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _ask(self, what: str, plain: wire.Json | None, *, method: str = "POST") -> wire.Json:
        """For what may be repeated: a lost answer is `Unavailable`."""
        body = b"" if plain is None else _encode(plain)
        try:
            reply = await self._http.request(method, f"/v1/store/{what}", body, ANSWER_TIMEOUT_S)
        except (NotSent, Lost) as error:
            raise self._away(error) from error
        return self._answer(reply, unclear=Unavailable)

    def _answer(self, reply: Reply, *, unclear: type[StoreError]) -> wire.Json:
        if reply.status == 204:
            return {}
        plain = _decode(reply.body)
        if 200 <= reply.status < 300 and isinstance(plain, dict):
            return plain
        raise self._refusal(reply, unclear=unclear)

    def _refusal(self, reply: Reply, *, unclear: type[StoreError]) -> Exception:
        """What an answer other than success means; `unclear` when something between us and the controller said it."""
        plain = _decode(reply.body)
        error = wire.error_from_json(plain)
        if error is not None:
            return error
        detail = plain.get("detail", "") if isinstance(plain, dict) else ""
        said = f"{self._url} answered {reply.status} {detail}".rstrip()
        if reply.status == UNKNOWN_THERE:
            self.on_refused(said)
        if reply.status in {UNKNOWN_THERE, 403}:
            return Refused(said)
        if reply.status == 429:
            return Unavailable(said)  # turned away before anything was done
        if reply.status == INVALID_THERE:
            return ValueError(said)
        if reply.status in {404, 405}:
            return Broken(f"{said}; it is not a controller with a store gateway")
        return unclear(said)

    def _parsed(self, parse: Callable[[object], T], plain: object) -> T:
        try:
            return parse(plain)
        except ValueError as error:
            raise Broken(f"{self._url} does not speak the store gateway's language: {error}") from error

    def _away(self, error: Exception) -> Unavailable:
        return Unavailable(f"{self._url} does not answer: {error}")


def _encode(plain: wire.Json) -> bytes:
    return json.dumps(plain, separators=(",", ":")).encode()


def _decode(body: bytes) -> object:
    try:
        decoded: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return decoded
