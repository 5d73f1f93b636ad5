"""Looks at the chain all the time, because nobody may ask: does the journal still fit its seals?

Every replica goes by its memory, which hears of whatever is written past everybody; the elected one now and then by the
store itself, for what is changed beneath it. What memory finds counts only when the store says the same, because two
mirrors are of two moments. Takes at most a two-hundredth of the time, however long the journal is. Mends nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass

from backends.store import Store, StoreError
from controller.audit.reading import look
from controller.audit.verify import Verdict, verify
from controller.settings import Settings
from controller.standing import Standing
from controller.state import State

ROUND_S = 10.0
MEMORY_S = 60.0  # between two looks at memory, where something changed
STORE_S = 600.0  # between two looks at the store itself
SHARE = 200  # of the time: a look that took one second is not repeated before so many are over
LONGEST_S = 120.0

log = logging.getLogger("kvnet.audit")


@dataclass(frozen=True, slots=True)
class Broken:
    """`detail`: the first thing that does not fit; `since`: when it was found, by this replica's clock."""

    detail: str
    misfits: int
    since: float


class Vigil:
    """`broken`: as the last look found it; None also before the first."""

    def __init__(
        self,
        state: State,
        store: Store,
        settings: Settings,
        standing: Standing,
        rng: random.Random,
        is_leader: Callable[[], bool],
    ) -> None:
        self._state = state
        self._store = store
        self._settings = settings
        self._standing = standing
        self._rng = rng
        self._is_leader = is_leader
        self._memory_at = self._store_at = float("-inf")
        self._looked: tuple[int, int] | None = None
        self.broken: Broken | None = None

    async def run(self) -> None:
        """Until cancelled. What the store refuses is tried again in the next round."""
        while True:
            await self._settings.clock.sleep(ROUND_S * self._rng.uniform(0.8, 1.2))
            await self.round()

    async def round(self) -> None:
        """Look where it is time to; never raises for what the store refuses. A store in doubt says nothing."""
        if self._standing.trouble is not None:
            return
        now = self._settings.clock.monotonic()
        try:
            async with asyncio.timeout(LONGEST_S):
                if self._is_leader() and now >= self._store_at:
                    await self._by_store(now)
                elif now >= self._memory_at:
                    await self._by_memory(now)
        except (StoreError, TimeoutError) as error:
            log.debug("audit-look-failed", extra={"facts": {"detail": str(error) or type(error).__name__}})

    async def _by_memory(self, now: float) -> None:
        journal, seals = self._state.journal, self._state.seals
        seen = (journal.revision, seals.revision)
        if not (journal.in_step and seals.in_step) or (seen == self._looked and self.broken is None):
            return
        # Copies of one moment, made before anything else runs; the entries themselves never change.
        written, sealed = tuple(journal.entries.values()), tuple(seals.entries.values())
        known = dict(self._state.chain.seen)
        verdict = await asyncio.to_thread(verify, sealed, written, journal.revision, seen=known)
        self._memory_at = now + self._rest_s(MEMORY_S, now)
        self._looked = seen
        if not verdict.ok or self.broken is not None:
            await self._by_store(self._settings.clock.monotonic())

    async def _by_store(self, now: float) -> None:
        self._take(await look(self._store, self._state.chain.seen))
        self._store_at = now + self._rest_s(STORE_S, now)
        self._memory_at = now + self._rest_s(MEMORY_S, now)

    def _rest_s(self, usual_s: float, began: float) -> float:
        return max(usual_s, SHARE * (self._settings.clock.monotonic() - began))

    def _take(self, verdict: Verdict) -> None:
        before = self.broken
        if verdict.ok:
            self.broken = None
            if before is not None:
                log.info("audit-fits-again", extra={"facts": {"was": before.detail}})
            return
        detail, count = verdict.misfits[0].what, len(verdict.misfits)
        since = before.since if before is not None else self._settings.clock.now()
        self.broken = Broken(detail, count, since)
        if before is None or before.detail != detail:
            log.error("audit-broken", extra={"facts": {"detail": detail, "misfits": count}})
