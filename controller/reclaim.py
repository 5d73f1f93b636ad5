"""Hosts that are down: marked with the evidence, and after a long absence relieved of their endpoints, in two steps.

First a mark in the store, once a host was seen absent for a short while; then, after the operator's limit and a second
look, the release, whose every commit checks that the mark is still this one and that the host is still absent. A
worker removes the mark in the very commit that says it is back, so a mark that stands means an absence without a gap.
How long is measured by clocks that nobody sets; a new leader goes on from what the mark says, but must itself see the
host absent for a while. Nothing is concluded while no host lives at all: then it is rather the store, or our view of
it, than all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from backends.committer import Transaction
from backends.store import Absent, Check, Conflict, Delete, Put, Unchanged
from controller.hosts import Hosts
from controller.journal import Changed
from controller.requests import Caller
from controller.settings import Settings
from controller.state import State
from controller.suspicions import Suspicions
from controller.writer import Writer
from kvnet import codec, keys
from kvnet.model import Reclaim, Versioned
from kvnet.moments import moment

MARKS_PER_SWEEP = 200


class Reclaims:
    """Only the elected controller calls it, and only while the store is believed and the mirrors are in step."""

    def __init__(self, state: State, writer: Writer, hosts: Hosts, settings: Settings, actor: str) -> None:
        self._state = state
        self._writer = writer
        self._hosts = hosts
        self._settings = settings
        self._actor = actor
        self._absent: Suspicions[str] = Suspicions()
        self._before: dict[str, float] = {}
        # Half of a very short limit, so that the second look comes after the first.
        self._grace_s = min(settings.leak_grace_s, settings.dead_host_after_s / 2)

    def forget(self) -> None:
        """What was seen so far counts no more: it was not sure, or another controller's turn has come and gone."""
        self._absent.forget()
        self._before.clear()

    async def sweep(self) -> int:
        """How many endpoints were released.

        Raises:
            StoreError, KvnetError
        """
        known = {*self._state.hosts.items, *self._state.hosts_with_endpoints}
        away = sorted(name for name in known if self._state.alive.get(name) is None)
        await self._clear(away)
        if len(away) > 1 and len(away) == len(known):
            self.forget()
            return 0
        now = self._monotonic()
        marked = [name for name in self._absent.confirmed(away, now, self._grace_s) if await self._is_marked(name, now)]
        released = 0
        for name in marked:
            released += await self._release(name, now)
        return released

    async def _clear(self, away: Sequence[str]) -> None:
        """Marks on hosts that live (workers older than marks do not remove them), or that are gone for good."""
        kept = set(away)
        stale = [(name, mark.version) for name, mark in self._state.reclaims.items.items() if name not in kept]
        await self._writer.commit_many(
            [
                Transaction((Unchanged(keys.reclaim(name), version),), (Delete(keys.reclaim(name)),))
                for name, version in stale[:MARKS_PER_SWEEP]
            ]
        )
        self._before = {name: seen_s for name, seen_s in self._before.items() if name in kept}

    async def _is_marked(self, name: str, now: float) -> bool:
        """False: there is no mark that was there, just so, at an earlier look; it is made or renewed now."""
        mark = self._state.reclaims.get(name)
        if mark is None:
            self._before[name] = 0.0
            await self._put(name, None, self._first(name, now))
            return False
        self._before.setdefault(name, mark.value.absent_s)
        absent_s = self._absent_s(name, now)
        if absent_s - mark.value.absent_s < self._settings.reclaim_note_s:
            return True
        revision = self._state.revision
        await self._put(
            name, mark, replace(mark.value, absent_s=absent_s, by=self._settings.replica, revision=revision)
        )
        return False

    def _first(self, name: str, now: float) -> Reclaim:
        absent_s = self._absent.seen_for_s(name, now)
        return Reclaim(
            host=name,
            incarnation=self._state.incarnation(name),
            last_seen=self._state.last_seen(name),
            absent_since=self._writer.now() - absent_s,
            absent_s=absent_s,
            by=self._settings.replica,
            revision=self._state.revision,
        )

    async def _put(self, name: str, known: Versioned[Reclaim] | None, mark: Reclaim) -> None:
        key, value = keys.reclaim(name), codec.encode(mark)
        unchanged: Check = Absent(key) if known is None else Unchanged(key, known.version)
        changes = [Changed("host.absent", key, None, value)] if known is None else []
        try:
            await self._writer.commit(
                [unchanged, Absent(keys.alive(name))], [Put(key, value)], self._caller(evidence(mark)), *changes
            )
        except Conflict:
            return  # it came back, or another controller was faster

    async def _release(self, name: str, now: float) -> int:
        mark = self._state.reclaims.get(name)
        if mark is None or self._absent_s(name, now) < self._settings.dead_host_after_s:
            return 0
        checks: list[Check] = [Unchanged(keys.reclaim(name), mark.version), Absent(keys.alive(name))]
        endpoints = await self._hosts.carried_by(name)
        return len(await self._hosts.release_all(endpoints, self._caller(evidence(mark.value)), checks))

    def _absent_s(self, name: str, now: float) -> float:
        """Without a gap: what the leaders before had seen by the time of the mark, and what this one sees."""
        return self._before.get(name, 0.0) + self._absent.seen_for_s(name, now)

    def _caller(self, source: str) -> Caller:
        return Caller(actor=self._actor, request_id="", source=source)

    def _monotonic(self) -> float:
        return self._settings.clock.monotonic()


def evidence(mark: Reclaim) -> str:
    return "; ".join(_told(mark))


def _told(mark: Reclaim) -> Iterator[str]:
    yield f"host {mark.host} absent since {moment(mark.absent_since)}"
    if mark.last_seen is not None:
        yield f"last seen {moment(mark.last_seen)}"
    if mark.incarnation:
        yield f"as incarnation {mark.incarnation}"
    yield f"marked by {mark.by} at revision {mark.revision}"
