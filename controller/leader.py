"""Which replica does the upkeep: the one whose key stands under `leader/upkeep`, bound to its store session.

The moment the session is lost, by the store's word or by our own clock, or the key is not ours any more, the work is
cancelled; another replica may be at it already. Losing is normal and never an error. Decides nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from backends.store import Absent, Put, Session, Store, StoreError, Unchanged
from controller.settings import Settings
from controller.standing import Standing
from controller.state import State
from kvnet import codec, keys
from kvnet.errors import StoreBroken

UNREADABLE = "?"

log = logging.getLogger("kvnet.upkeep")


@dataclass(frozen=True, slots=True)
class Leader:
    """What stands under the key. `incarnation` tells two processes of one name apart."""

    replica: str
    incarnation: str
    since: float


class Leadership:
    def __init__(self, store: Store, state: State, settings: Settings, rng: random.Random, standing: Standing) -> None:
        self._store = store
        self._standing = standing
        self._state = state
        self._settings = settings
        self._rng = rng
        self._incarnation = f"{rng.getrandbits(48):012x}"
        self._leading: bytes | None = None

    @property
    def is_ours(self) -> bool:
        """This replica leads, and as far as it knows nobody else does."""
        entry = self._state.leader.entries.get(keys.LEADER)
        return self._leading is not None and (entry is None or entry.value == self._leading)

    @property
    def leader(self) -> str | None:
        """The replica that leads, as far as this one knows."""
        entry = self._state.leader.entries.get(keys.LEADER)
        if entry is None:
            return None
        try:
            return codec.decode(Leader, entry.value).replica
        except StoreBroken:
            return UNREADABLE

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Stand for election for ever; `work` runs while elected, and is cancelled with the session."""
        while True:
            if self._standing.trouble is not None:  # nothing of ours belongs into that store
                await self._pause()
                continue
            try:
                session = await self._store.session(self._settings.session_ttl_s)
            except StoreError:
                await self._pause()
                continue
            try:
                await self._with(session, work)
            finally:
                await session.close()
            await self._pause()

    async def _with(self, session: Session, work: Callable[[], Awaitable[None]]) -> None:
        # One for the whole session: what an earlier attempt wrote after all is known again.
        value = codec.encode(Leader(self._settings.replica, self._incarnation, self._settings.clock.now()))
        while not session.is_lost:
            if await self._is_elected(session, value):
                await self._lead(session, value, work)
                return
            await self._state.leadership.until(
                lambda: session.is_lost or keys.LEADER not in self._state.leader.entries, self._settings.session_ttl_s
            )
            await self._pause()

    async def _is_elected(self, session: Session, value: bytes) -> bool:
        there = self._state.leader.entries.get(keys.LEADER)
        # What nobody can read is nobody's: it is bound to no session, and would stand there for ever.
        is_nobodys = there is not None and self.leader == UNREADABLE
        check = Unchanged(keys.LEADER, there.version) if there is not None and is_nobodys else Absent(keys.LEADER)
        try:
            await self._store.commit([check], [Put(keys.LEADER, value, session=session.id)])
        except StoreError:
            return await self._is_written(value)
        return True

    async def _is_written(self, value: bytes) -> bool:
        """An answer was lost, now or before: a request may arrive long after it was given up."""
        try:
            entry = await self._store.get(keys.LEADER)
        except StoreError:
            return False
        return entry is not None and entry.value == value

    async def _lead(self, session: Session, value: bytes, work: Callable[[], Awaitable[None]]) -> None:
        self._leading = value
        log.info("upkeep-begins", extra={"facts": {"replica": self._settings.replica}})
        try:
            async with asyncio.TaskGroup() as tasks:
                working = tasks.create_task(_run(work))
                ends = [tasks.create_task(session.until_lost()), tasks.create_task(self._until_deposed(value))]
                try:
                    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in (working, *ends):
                        task.cancel()
        finally:
            self._leading = None
            log.info("upkeep-ends", extra={"facts": {"replica": self._settings.replica}})

    async def _until_deposed(self, value: bytes) -> None:
        """Return when the key is not ours any more: wiped with the store, or restored to another past."""

        def is_ours() -> bool:
            entry = self._state.leader.entries.get(keys.LEADER)
            return entry is not None and entry.value == value

        while not await self._state.leadership.until(is_ours, self._settings.session_ttl_s):
            continue
        while not await self._state.leadership.until(lambda: not is_ours(), self._settings.session_ttl_s):
            continue

    async def _pause(self) -> None:
        await self._settings.clock.sleep(self._rng.uniform(0.05, 0.5))


async def _run(work: Callable[[], Awaitable[None]]) -> None:
    await work()
