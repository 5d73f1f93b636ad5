"""Sessions as entries of the store itself, for media whose own do not fit the contract (Consul, ZooKeeper).

`.kvnet/sessions/<id>` is the lease: each refresh rewrites it. `.kvnet/held/<id>` lists every key that was ever put
under the session, and is there exactly as long as the session is: a put under it checks that. The end is one commit,
after which nothing can be put under it any more: `held` goes, and the lease becomes the list of what is still to be
deleted. Whoever dies at that is succeeded by any other. Never uses a wall clock, and never expires anybody for what
could not be seen.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from backends.lease import Clock, LeaseWatch, Sleep
from backends.medium import PRIVATE, PRIVATE_OPERATIONS, Medium
from backends.store import (
    MAX_OPERATIONS,
    MIN_TTL_S,
    Absent,
    Broken,
    Check,
    Conflict,
    Delete,
    Entry,
    Present,
    Put,
    Revision,
    SessionLost,
    StoreError,
    TooLarge,
    Unavailable,
    Unchanged,
    Unknown,
    Write,
)

LEASES = f"{PRIVATE}sessions/"
HELD = f"{PRIVATE}held/"
MARK = b"\0kvnet:"
OF_SESSION = MARK + b"s:"
PLAIN = MARK + b"v:"

# A put under a session costs one check; one operation is the medium's own.
MAX_SESSIONS = PRIVATE_OPERATIONS - 1
SWEEP_EVERY_S = 1.0
SESSIONS_PER_SECOND = 200
# After so many missed looks nothing is known of what happened between.
BLIND_AFTER_LOOKS = 5
ATTEMPTS = 16
KEYS_AT_ONCE = MAX_OPERATIONS // 2 - 1
MAX_REMEMBERED = 10_000


class StoredSessions:
    """`sweeps`: whether this client looks for the sessions of the dead. Some client of a site must."""

    def __init__(
        self,
        medium: Medium,
        *,
        sweeps: bool = True,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
        rng: random.Random | None = None,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._medium = medium
        self._sweeps = sweeps
        self._clock = clock
        self._sleep = sleep
        self._rng = rng or random.Random()
        self._new_id = new_id
        # What is known to be in `held`. It only grows while the session is there, so this is never too much.
        self._remembered: dict[str, set[str]] = {}
        self._remembering = asyncio.Lock()

    async def grant(self, ttl_s: float) -> str:
        session_id = self._new_id()
        lease, held = Put(LEASES + session_id, _lease(ttl_s)), Put(HELD + session_id, b"[]")
        try:
            await self._medium.commit([Absent(held.key)], [lease, held], is_told=False)
        except (Conflict, Unknown) as error:  # nobody has heard of this id: if it is there, it runs out
            raise Unavailable(f"no session could be made: {error}") from error
        return session_id

    async def refresh(self, session_id: str, ttl_s: float) -> None:
        self._require_id(session_id)
        try:
            await self._medium.commit(
                [Present(HELD + session_id)], [Put(LEASES + session_id, _lease(ttl_s))], is_told=False
            )
        except Conflict:
            self._remembered.pop(session_id, None)
            raise SessionLost("the session is gone") from None

    async def revoke(self, session_id: str) -> None:
        self._remembered.pop(session_id, None)
        for _ in range(ATTEMPTS):
            lease, held = await self._medium.read([LEASES + session_id, HELD + session_id])
            if lease is None:
                return
            try:
                await self._end(lease, held, [])
            except Conflict:
                continue  # somebody put or ended at the same time
            return
        raise Unavailable("the session could not be ended: its holder keeps putting under it")

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        keys: dict[str, list[str]] = {}
        for write in writes:
            if isinstance(write, Put) and write.session is not None:
                keys.setdefault(write.session, []).append(write.key)
        if len(keys) > MAX_SESSIONS:
            raise TooLarge(f"puts under {len(keys)} sessions in one transaction; at most {MAX_SESSIONS}")
        for session_id, under in keys.items():
            await self._remember(session_id, under)
        alive = [Present(HELD + session_id) for session_id in keys]
        try:
            return await self._medium.commit([*checks, *alive], [_stored(write) for write in writes])
        except Conflict as conflict:
            told = [key for key in conflict.keys if not key.startswith(PRIVATE)]
            if len(told) < len(conflict.keys):
                for session_id in keys:
                    self._remembered.pop(session_id, None)
                raise SessionLost(f"{next(iter(keys.values()))[0]}: its session is gone") from None
            raise

    def seen(self, entry: Entry) -> Entry:
        if not entry.value.startswith(MARK):
            return entry
        if entry.value.startswith(PLAIN):
            return replace(entry, value=entry.value[len(PLAIN) :])
        if entry.value.startswith(OF_SESSION):
            return replace(entry, value=entry.value[len(OF_SESSION) :].partition(b":")[2])
        return entry

    async def run(self) -> None:
        if not self._sweeps:
            return
        leases, looked, every_s = LeaseWatch(), self._clock(), SWEEP_EVERY_S
        while True:
            await self._sleep(every_s * self._rng.uniform(0.8, 1.0))
            try:
                found = (await self._medium.scan(LEASES)).entries
                # Not the time at which the look began: a refresh during the look must count as one.
                now = self._clock()
                if now - looked > BLIND_AFTER_LOOKS * every_s:
                    leases = LeaseWatch()
                looked, every_s = now, max(SWEEP_EVERY_S, len(found) / SESSIONS_PER_SECOND)
                await self._sweep(found, leases, now)
            except StoreError:
                leases = LeaseWatch()  # what we could not see is nobody's fault

    async def _sweep(self, found: Sequence[Entry], leases: LeaseWatch, now: float) -> None:
        by_key = {lease.key: lease for lease in found}
        over = [lease for lease in found if _is_ended(lease)]  # whoever ended it died in the middle
        over += leases.expired([_timed(lease) for lease in found if not _is_ended(lease)], now)
        for lease in over:
            [held] = await self._medium.read([HELD + lease.key.removeprefix(LEASES)])
            try:
                await self._end(by_key[lease.key], held, [Unchanged(lease.key, lease.version)])
            except (Conflict, Broken):
                continue  # refreshed at the last moment; or one that cannot be ended, which must not save the others

    async def _end(self, lease: Entry, held: Entry | None, checks: Sequence[Check]) -> None:
        """
        Raises:
            Conflict: it is not as it was read any more; it has not ended.
        """
        if held is None and not _is_ended(lease):
            await self._medium.commit([Unchanged(lease.key, lease.version)], [Delete(lease.key)], is_told=False)
            return
        if held is not None:
            ended = Put(lease.key, json.dumps({"ended": _keys(held)}).encode())
            await self._medium.commit(
                [*checks, Unchanged(held.key, held.version)], [Delete(held.key), ended], is_told=False
            )
            lease = Entry(lease.key, ended.value, 0)
        await self._finish(lease)

    async def _finish(self, ended: Entry) -> None:
        """Delete what was held. Several may do it at once, and each may die at any point."""
        session_id = ended.key.removeprefix(LEASES)
        keys = _keys(ended)
        chunks = [keys[start : start + KEYS_AT_ONCE] for start in range(0, len(keys), KEYS_AT_ONCE)] or [[]]
        for chunk in chunks[:-1]:
            await self._delete(session_id, chunk, [])
        await self._delete(session_id, chunks[-1], [Delete(ended.key)])

    async def _delete(self, session_id: str, keys: Sequence[str], last: Sequence[Write]) -> None:
        header = _header(session_id)
        for _ in range(ATTEMPTS):
            entries = await self._medium.read(keys) if keys else []
            mine = [entry for entry in entries if entry is not None and entry.value.startswith(header)]
            if not mine and not last:
                return
            try:
                await self._medium.commit(
                    [Unchanged(entry.key, entry.version) for entry in mine],
                    [*(Delete(entry.key) for entry in mine), *last],
                    is_told=bool(mine),
                )
            except Conflict:
                continue  # another ends it too, or somebody took a key over
            return
        raise Unavailable("the keys of an ended session could not be deleted: they keep changing")

    async def _remember(self, session_id: str, keys: Iterable[str]) -> None:
        """Note in `held` what is about to be put; more than is put is no harm."""
        if self._remembered.get(session_id, set()).issuperset(keys):
            return
        self._require_id(session_id)
        async with self._remembering:
            for _ in range(ATTEMPTS):
                [held] = await self._medium.read([HELD + session_id])
                if held is None:
                    raise SessionLost(f"{next(iter(keys))}: its session is gone")
                known = set(_keys(held))
                if not known.issuperset(keys):
                    known.update(keys)
                    try:
                        await self._medium.commit(
                            [Unchanged(held.key, held.version)],
                            [Put(held.key, json.dumps(sorted(known)).encode())],
                            is_told=False,
                        )
                    except Conflict:
                        continue  # another put under the same session, or it has ended
                    except Unknown as error:
                        raise Unavailable(f"nothing was put yet: {error}") from error
                if len(self._remembered) >= MAX_REMEMBERED:
                    self._remembered.clear()
                self._remembered[session_id] = known
                return
        raise Unavailable("too many put under one session at once; nothing was written")

    def _require_id(self, session_id: str) -> None:
        if not session_id.isalnum() or not session_id.isascii():
            raise SessionLost(f"{session_id!r} is no session")


def _lease(ttl_s: float) -> bytes:
    return json.dumps({"ttl": ttl_s}).encode()


def _read(entry: Entry) -> object:
    try:
        return json.loads(entry.value)
    except ValueError:
        return None


def _is_ended(lease: Entry) -> bool:
    content = _read(lease)
    return isinstance(content, dict) and "ended" in content


def _timed(lease: Entry) -> Entry:
    """As `LeaseWatch` reads it. A lease that is not readable gets the shortest TTL: it must not stay for ever."""
    content = _read(lease)
    ttl_s = content.get("ttl") if isinstance(content, dict) else None
    return replace(lease, value=str(float(ttl_s if isinstance(ttl_s, (int, float)) else MIN_TTL_S)).encode())


def _keys(entry: Entry) -> list[str]:
    content = _read(entry)
    keys = content.get("ended") if isinstance(content, dict) else content
    if not isinstance(keys, list):
        raise Broken(f"{entry.key} does not hold what kvnet writes there")
    return [str(key) for key in keys]


def _header(session_id: str) -> bytes:
    return OF_SESSION + session_id.encode() + b":"


def _stored(write: Write) -> Write:
    if isinstance(write, Delete):
        return write
    if write.session is not None:
        return Put(write.key, _header(write.session) + write.value)
    return Put(write.key, PLAIN + write.value) if write.value.startswith(MARK) else write
