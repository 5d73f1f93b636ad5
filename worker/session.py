"""The host's proof of life, and the fence that closes when it is lost.

`alive/<host>` is bound to a session. Without one this host claims nothing new: another may have taken its place. What
runs goes on. The fence opens when a session is held and every mirror has seen the state as of then. A stopped worker
leaves the session to run out: its workloads still run.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backends.store import (
    Absent,
    Check,
    Conflict,
    Delete,
    Entry,
    Put,
    Session,
    SessionLost,
    Store,
    StoreError,
    Unchanged,
    Write,
)
from kvnet import codec, keys, sentinel
from kvnet.errors import HostFenced, KvnetError, StateUnusable, StoreBroken
from kvnet.model import Alive, Condition
from worker.disk import StateDir
from worker.log import Log
from worker.ports import Backoff, Time
from worker.settings import Timing
from worker.trust import Doubt
from worker.view import View

FILE = "session.json"
NAME_TAKEN = "host-name-taken"
CATCH_UP_S = 30.0
MAX_FORMER = 16  # runs in a row that ended before their proof of life was in the store
RETRY_MAX_S = 2.0  # as long as a mirror takes to come back: nobody should wait for the session alone


@dataclass(frozen=True, slots=True)
class _Held:
    session: Session
    revision: int


@dataclass(frozen=True, slots=True)
class _Former:
    """What the state directory knows of runs before: their session, and whose proof of life may be in the store."""

    session: str = ""
    incarnations: tuple[str, ...] = ()

    @classmethod
    def of(cls, plain: dict[str, Any]) -> _Former:
        before = plain.get("before")
        known = [plain.get("incarnation"), *(before if isinstance(before, list) else [])]
        session = plain.get("session")
        return cls(session if isinstance(session, str) else "", tuple(one for one in known if isinstance(one, str)))


class Lifeline:
    """`incarnation` is this run of the worker. `on_settled`: the host's name has turned out to be ours.

    `objection`: why nothing may be claimed in a store with this sentinel.
    """

    def __init__(
        self,
        store: Store,
        view: View,
        state: StateDir,
        incarnation: str,
        *,
        time: Time,
        timing: Timing,
        log: Log,
        on_settled: Callable[[], None] = lambda: None,
        objection: Callable[[Entry | None], Doubt | None] = lambda _: None,
    ) -> None:
        self.problem: Condition | None = None
        self._store = store
        self._view = view
        self._state = state
        self._incarnation = incarnation
        self._time = time
        self._timing = timing
        self._log = log
        self._session: Session | None = None
        self._is_open = False
        self._opened = asyncio.Event()
        self._was_held = False
        self._is_disputed = False
        self._let_go = ""
        self._on_settled = on_settled
        self._objection = objection

    @property
    def is_held(self) -> bool:
        return self._session is not None and not self._session.is_lost

    @property
    def is_open(self) -> bool:
        """This host may claim: it holds a session and has seen the state as of that."""
        return self._is_open and self.is_held

    @property
    def is_disputed(self) -> bool:
        """Another living worker has this host's name, so its networks are not to be built here."""
        return self._is_disputed

    @property
    def is_settled(self) -> bool:
        """The store has said once that this host's name is ours; before that nothing is built from what it holds."""
        return self._was_held and not self._is_disputed

    @property
    def session_id(self) -> str:
        return self._session.id if self._session is not None else ""

    def require_open(self) -> None:
        """
        Raises:
            HostFenced: it may not claim anything now.
        """
        if not self.is_open:
            why = "lost its session" if self._was_held else "has no session yet"
            because = f" ({self.problem.detail})" if self.problem is not None else ""
            raise HostFenced(
                f"host {self._view.host} {why}{because}, so it claims nothing until it has seen the current state",
                fix="repeat it in a few seconds; 'kvnet status' on this host shows whether the store answers",
            )

    async def until_open(self) -> None:
        await self._opened.wait()

    async def run(self) -> None:
        """Hold a session until cancelled, a new one whenever one is lost."""
        backoff = Backoff(self._timing.retry_s, min(RETRY_MAX_S, self._timing.retry_max_s))
        try:
            while True:
                try:
                    held = await self._take()
                    await self._view.until_caught_up(held.revision, CATCH_UP_S)
                except (StoreError, TimeoutError, KvnetError) as error:
                    self._note(error)
                    await self._time.sleep(backoff.next(self._time))
                    continue
                backoff.reset()
                self._open()
                await held.session.until_lost()
                self._close()
        finally:
            if self._session is not None:
                await self._session.release()

    async def renew(self) -> None:
        """Put `alive/<host>` again if somebody removed or damaged it while the session goes on."""
        session = self._session
        if session is None or not self.is_open:
            return
        there = await self._store.get(self._key)
        if there is not None and not _is_damaged(there):
            return
        if session is self._session and self.is_open:  # it may have been lost while the store was asked
            check: Check = Absent(self._key) if there is None else Unchanged(self._key, there.version)
            await self._store.commit([check], [self._put(session), Delete(keys.reclaim(self._view.host))])

    @property
    def _key(self) -> str:
        return keys.alive(self._view.host)

    def _put(self, session: Session) -> Put:
        alive = Alive(self._view.host, self._incarnation, self._time.now(), codec.SCHEMA)
        return Put(self._key, codec.encode(alive), session.id)

    async def _take(self) -> _Held:
        """A session of ours with our proof of life under it. A session taken before is used again.

        Raises:
            KvnetError: the store is not the one that this host belongs to, so nothing is written there.
        """
        level = await self._store.get(keys.LEVEL)
        sentinel.require_level(level.value if level is not None else None)
        objection = self._objection(await self._store.get(keys.CLUSTER))
        if objection is not None:
            raise objection.error()
        former = self._remembered()
        session = self._session
        if session is None or session.is_lost:
            session = self._session = await self._resumed_or_new(former.session)
        there = await self._store.get(self._key)
        check: Check = Absent(self._key)
        # The commit below may fail, and then what stands there is still a former incarnation's: it stays one of ours.
        ours = (self._incarnation, *(one for one in former.incarnations if one != self._incarnation))
        if there is not None:
            if codec.decode(Alive, there.value).incarnation not in ours:
                await self._let_go_of(former.session)
                raise Conflict([self._key])
            check = Unchanged(self._key, there.version)
        self._remember(_Former(session.id, ours[:MAX_FORMER]))
        try:
            # The mark on a host that is down goes in the same commit: while it stands, this host was never back.
            back: list[Write] = [self._put(session), Delete(keys.reclaim(self._view.host))]
            revision = await self._store.commit([check], back)
        except SessionLost:
            self._session = None
            raise
        self._remember(_Former(session.id, (self._incarnation,)))
        return _Held(session, revision)

    async def _resumed_or_new(self, known: str) -> Session:
        if known and known != self._let_go:
            try:
                return await self._store.session(self._timing.ttl_s, resume=known)
            except SessionLost:
                self._log.info("session-over", session=known)
        return await self._store.session(self._timing.ttl_s)

    async def _let_go_of(self, session_id: str) -> None:
        """The session that we took over from a run before may be the very one that keeps the name taken.

        Such a run could not write down who it was: its disk was full. Whoever lives refreshes it; else it runs out.
        """
        if self._session is not None and self._session.id == session_id:
            self._let_go = session_id
            await self._session.release()
            self._session = None

    def _open(self) -> None:
        was_settled = self.is_settled
        self._is_open = self._was_held = True
        self._is_disputed = False
        self.problem = None
        self._opened.set()
        if not was_settled:
            self._on_settled()
        self._log.info("session-held", session=self.session_id)

    def _close(self) -> None:
        self._is_open = False
        self._session = None
        self._opened.clear()
        self._log.warning("session-lost", detail="attaches are refused until a new one is held")

    def _note(self, error: Exception) -> None:
        if isinstance(error, Conflict):
            self._is_disputed = True
            code = NAME_TAKEN
            detail = (
                f"another worker holds the name {self._view.host}: give one of them another --host; "
                "if the other is dead, its name is free when its TTL is over"
            )
        else:
            code, detail = "no-session", str(error) or type(error).__name__
        if self.problem is None or (self.problem.code, self.problem.detail) != (code, detail):
            self.problem = Condition(code, detail, self._time.now())
            self._log.warning(code, detail=detail)

    def _remembered(self) -> _Former:
        try:
            data = self._state.read(FILE)
            plain = json.loads(data) if data else {}
        except (KvnetError, ValueError):
            return _Former()
        return _Former.of(plain) if isinstance(plain, dict) else _Former()

    def _remember(self, former: _Former) -> None:
        known = {"session": former.session, "incarnation": former.incarnations[0], "before": former.incarnations[1:]}
        try:
            self._state.write(FILE, json.dumps(known).encode(), durable=False)
        except StateUnusable as error:
            self._log.warning("state-unusable", detail=error.detail)  # only a restart within the TTL misses it


def _is_damaged(entry: Entry) -> bool:
    try:
        codec.decode(Alive, entry.value)
    except StoreBroken:
        return codec.schema_of(entry.value) <= codec.SCHEMA
    return False
