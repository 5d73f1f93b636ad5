"""From one version to the next while everything runs: who is here and what they speak, and the step that ends it.

Every controller and every worker says, with its proof of life, which schema it reads and writes. The cluster has one
level, at which everybody writes; it is raised by an operator, in one commit, and only when everybody who lives speaks
the new one. Until then a way back is open; from then on older versions write nothing. Never lowers a level.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from backends.store import Absent, Check, Conflict, Put, Session, Store, StoreError, Unchanged, Unknown
from controller.journal import Changed
from controller.outcomes import store_errors_told
from controller.requests import Caller
from controller.settings import Settings
from controller.state import State
from controller.writer import Writer
from kvnet import __version__, codec, keys, sentinel
from kvnet.errors import UpgradeUnfinished
from kvnet.marks import Level, Replica

MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class Speaker:
    """A controller or a host's worker. `schema`: the newest that it speaks; None of a host that is down."""

    name: str
    version: str
    schema: int | None


@dataclass(frozen=True, slots=True)
class Look:
    """`level`: what everybody writes; `newest`: what this controller could. `behind`: who stands in the way of that."""

    level: int
    newest: int
    replicas: Sequence[Speaker]
    hosts: Sequence[Speaker]
    behind: Sequence[str]

    @property
    def is_finished(self) -> bool:
        return self.level >= self.newest


class Upgrade:
    def __init__(self, state: State, writer: Writer, store: Store, settings: Settings, rng: random.Random) -> None:
        self._state = state
        self._writer = writer
        self._store = store
        self._settings = settings
        self._rng = rng
        self._id = f"{rng.getrandbits(48):012x}"

    def look(self) -> Look:
        state = self._state
        replicas = [Speaker(r.value.name, r.value.version, r.value.schema) for r in state.replicas.items.values()]
        hosts = [self._host(name) for name in state.hosts.items.keys() | state.alive.items.keys()]
        newest = codec.SCHEMA
        behind = [f"controller {one.name}" for one in replicas if one.schema is not None and one.schema < newest]
        behind += [f"host {one.name}" for one in hosts if one.schema is not None and one.schema < newest]
        level = sentinel.level_of(state.meta.mirror.entries)
        named = sorted(replicas, key=lambda one: one.name), sorted(hosts, key=lambda one: one.name)
        return Look(level, newest, *named, sorted(behind))

    def _host(self, name: str) -> Speaker:
        alive, inventory = self._state.alive.get(name), self._state.inventory.get(name)
        version = inventory.value.version if inventory is not None else ""
        return Speaker(name, version, alive.value.schema if alive is not None else None)

    async def finish(self, caller: Caller) -> Look:
        """Everybody writes what this version writes, from now on. When that is so already, nothing is done.

        Raises:
            UpgradeUnfinished: somebody who lives does not speak it.
            TooMuchContention, StoreUnavailable, OutcomeUnknown, StoreBroken
        """
        with store_errors_told():
            turns = self._writer.turns("the level could not be raised")
            while True:
                await turns.next()
                there = await self._store.get(keys.LEVEL)
                look = self.look()
                if look.is_finished:
                    return look
                _require_all(look)
                level = Level(look.newest, self._writer.now(), caller.actor)
                check: Check = Absent(keys.LEVEL) if there is None else Unchanged(keys.LEVEL, there.version)
                value = codec.encode(level)
                change = Changed("cluster.raised", keys.LEVEL, None if there is None else there.value, value)
                try:
                    revision = await self._writer.commit([check], [Put(keys.LEVEL, value)], caller, change)
                except (Conflict, Unknown) as error:
                    turns.failed(error)
                    continue
                await self._state.reached(revision, self._state.meta)
                return self.look()

    async def run(self) -> None:
        """Say that this controller is here and what it speaks, as long as it lives; never fails."""
        while True:
            try:
                session = await self._store.session(self._settings.session_ttl_s)
            except StoreError:
                await self._pause()
                continue
            try:
                await self._announce(session)
            except StoreError:
                pass
            finally:
                await session.close()
            await self._pause()

    async def _announce(self, session: Session) -> None:
        now = self._settings.clock.now()
        replica = Replica(self._id, self._settings.replica, now, codec.SCHEMA, __version__)
        await self._store.commit([], [Put(keys.replica(self._id), codec.encode(replica), session=session.id)])
        await session.until_lost()

    async def _pause(self) -> None:
        await self._settings.clock.sleep(self._rng.uniform(0.5, 2.0))


def _require_all(look: Look) -> None:
    if look.behind:
        more = f" and {len(look.behind) - MAX_NAMED} more" if len(look.behind) > MAX_NAMED else ""
        raise UpgradeUnfinished(
            f"{', '.join(look.behind[:MAX_NAMED])}{more} would not understand schema {look.newest}",
            fix="upgrade and restart them first; 'kvnet upgrade' shows who speaks what",
        )
