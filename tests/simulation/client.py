"""One client of the simulated store, as one process has it: the contract, over a network that loses and delays.

What it may do to its caller is what `backends.store` allows and no more: an acknowledged write has happened,
`Unavailable` and `Conflict` mean that it has not, a read is as new as every acknowledged write, and a watch misses no
final state. All else is open: answers are lost, requests arrive after their caller has given up, watches lag each in
its own way and merge what lies between, history is compacted, sessions end while their holder lives.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Self, TypeVar

from backends.lease import HeldSession, require_ttl
from backends.store import (
    Batch,
    Check,
    Entry,
    Revision,
    Session,
    Snapshot,
    StoreError,
    Unavailable,
    Unknown,
    Write,
    require_floor,
)
from tests.simulation.network import Link
from tests.simulation.processes import Process
from tests.simulation.server import Server, Watch

T = TypeVar("T")

TIMEOUT_S = 5.0
SILENCE_S = 12.0
PROGRESS_S = 1.2


class SimulatedStore:
    """`link`: to the servers. `is_follower`: one connection tells all watches, which then lag alike."""

    def __init__(self, server: Server, link: Link, process: Process, *, is_follower: bool = False) -> None:
        self._process = process
        self._is_follower = is_follower
        self._news_at = 0.0
        self._server = server
        self._link = link
        self._loop = link.loop
        self._watches: dict[Watch, None] = {}
        self._held_up: dict[Watch, None] = {}  # what was on its way when the link was cut
        self._sessions: list[HeldSession] = []
        self._closed = False
        process.on_death.append(self._cut)
        link.on_cut.append(self._go_silent)
        link.on_heal.append(self._come_through)

    @property
    def is_alive(self) -> bool:
        return not (self._closed or self._process.is_dead)

    async def get(self, key: str) -> Entry | None:
        return await self._asked(lambda: self._server.get(key))

    async def list(self, prefix: str) -> Snapshot:
        return await self._asked(lambda: Snapshot(self._server.list(prefix), self._server.state.revision))

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        require_floor(checks, writes)
        self._require_open()
        link = self._link
        if link.is_refused:
            await link.pause()
            raise Unavailable("simulated: nobody there")
        done: asyncio.Future[Revision] = self._loop.create_future()
        self._loop.call_later(link.way_s(), self._arrive, checks, writes, done, context=self._link.far.context())
        return await self._answered(done, Unknown)

    async def watch(self, prefix: str, after: Revision) -> AsyncIterator[Batch]:
        watch, batch = await self._asked(lambda: self._begin(prefix, after))
        try:
            yield batch
            while True:
                await watch.wake.wait()
                if watch.error is not None:
                    raise watch.error
                watch.wake.clear()
                watch.is_called = False
                watch.told = self._server.state.revision
                yield Batch(watch.take(), watch.told)
        finally:
            self._forget(watch)

    async def session(self, ttl_s: float, *, resume: str | None = None) -> Session:
        ttl_s = require_ttl(ttl_s)
        began = self._loop.time()
        if resume is None:
            session_id = await self._asked(lambda: self._server.grant(ttl_s))
        else:
            session_id = resume
            await self._refresh(resume, ttl_s)
        session = HeldSession(
            session_id,
            ttl_s,
            began,
            refresh=lambda: self._refresh(session_id, ttl_s),
            end=lambda: self._asked(lambda: self._server.end(session_id)),
            clock=self._loop.time,
            sleep=asyncio.sleep,
            rng=self._loop.rng,
        )
        self._sessions.append(session)
        return session

    async def close(self) -> None:
        self._closed = True
        for watch in list(self._watches):
            watch.fail(Unavailable("the store is closed"))
        for session in self._sessions:
            await session.release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # the way there and back

    async def _asked(self, question: Callable[[], T]) -> T:
        """
        Raises:
            Unavailable: no answer.
            StoreError: what the question raises.
        """
        self._require_open()
        link = self._link
        if link.is_refused:
            await link.pause()
            raise Unavailable("simulated: nobody there")
        done: asyncio.Future[T] = self._loop.create_future()

        def arrive() -> None:
            if not link.is_delivered():
                return
            try:
                self._answer(done, question(), None)
            except StoreError as error:
                self._answer(done, None, error)

        self._loop.call_later(link.way_s(), arrive, context=link.far.context())
        return await self._answered(done, Unavailable)

    async def _answered(self, done: asyncio.Future[T], lost: type[StoreError]) -> T:
        def give_up() -> None:
            if not done.done():
                done.set_exception(lost("simulated: no answer"))

        patience = self._loop.call_later(TIMEOUT_S, give_up)
        try:
            return await done
        finally:
            patience.cancel()

    def _arrive(self, checks: Sequence[Check], writes: Sequence[Write], done: asyncio.Future[Revision]) -> None:
        """At the servers: now, never, or when its caller has long given up."""
        if not self._link.is_delivered():
            late_s = self._link.late_s()
            if late_s is not None:
                self._loop.call_later(late_s, self._arrive, checks, writes, done)
            return
        try:
            self._answer(done, self._server.commit(checks, writes), None)
        except StoreError as error:
            self._answer(done, None, error)

    def _answer(self, done: asyncio.Future[T], result: T | None, error: StoreError | None) -> None:
        link = self._link

        def come_back() -> None:
            if done.done() or not link.is_delivered():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)  # type: ignore[arg-type]

        self._loop.call_later(link.way_s(), come_back)

    async def _refresh(self, session: str, ttl_s: float) -> None:
        await self._asked(lambda: self._server.refresh(session, ttl_s))

    # watches

    def _begin(self, prefix: str, after: Revision) -> tuple[Watch, Batch]:
        state = self._server.state
        first = state.changes_after(prefix, after)
        watch = Watch(prefix, state.revision, lambda: self._call(watch))
        self._server.subscribe(watch)
        self._watches[watch] = None
        return watch, Batch(first, state.revision)

    def _forget(self, watch: Watch) -> None:
        self._server.unsubscribe(watch)
        self._watches.pop(watch, None)
        self._held_up.pop(watch, None)

    def _call(self, watch: Watch) -> None:
        """It is told after the way, and after whatever holds it up."""
        self._loop.call_at(self._told_at(), self._deliver, (watch,), context=self._link.far.context())

    def _told_at(self) -> float:
        now, at = self._loop.time(), self._news_at
        if not self._is_follower or at <= now:
            at = self._news_at = now + self._link.watch_lag_s()
        return at

    def _deliver(self, watches: Iterable[Watch]) -> None:
        if self._link.is_cut:
            self._held_up.update(dict.fromkeys(watches))
            return
        for watch in watches:
            watch.wake.set()

    def _come_through(self) -> None:
        """What was sent meanwhile is sent again."""
        held_up, self._held_up = list(self._held_up), {}
        if held_up:
            after_s = self._loop.rng.random() * PROGRESS_S
            self._loop.call_later(after_s, self._deliver, held_up, context=self._link.far.context())

    def progress(self) -> None:
        """The servers tell how far they are, also those whom nothing concerned: all of a client's watches together."""
        newest = self._server.state.revision
        behind = [watch for watch in self._watches if watch.told < newest and not watch.is_called]
        if behind:
            for watch in behind:
                watch.is_called = True
            self._loop.call_at(self._told_at(), self._deliver, behind, context=self._link.far.context())

    def drop(self) -> None:
        """Its connections are closed by the servers."""
        for watch in list(self._watches):
            watch.fail(Unavailable("simulated: connection closed"))

    def _go_silent(self) -> None:
        """Nothing has been heard for long: the connection is given up."""
        self._loop.call_later(SILENCE_S, self._give_up, self._link.cuts, context=self._link.far.context())

    def _give_up(self, cut: int) -> None:
        if self._link.is_cut and self._link.cuts == cut:
            for watch in list(self._watches):
                watch.fail(Unavailable("simulated: silence"))

    def _cut(self) -> None:
        """The process is dead, and its connections with it."""
        for watch in list(self._watches):
            self._forget(watch)

    def _require_open(self) -> None:
        if self._closed:
            raise Unavailable("the store is closed")
