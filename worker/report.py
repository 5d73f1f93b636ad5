"""What this host tells the controller of its networks: the version in its kernel, and what is wrong.

At once after a quiet spell, then at most once a second, and never when nothing changed: every report is a write. Where
there are many hosts, each waits a moment of its own first: a change that concerns them all must not be held up by a
thousand reports.
Nobody else writes it, so an older one in the store than was acknowledged is proof that the store went back, however
high its revisions are by now: `trust` is told of every version, and no report ever covers that proof up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from backends.store import Conflict, Put, Store, StoreError, Unchanged
from kvnet import codec, keys
from kvnet.errors import StoreBroken
from kvnet.model import NetworkObserved, Observed
from worker.log import Log
from worker.ports import Backoff, Time
from worker.settings import Timing
from worker.trust import Trust

Content = Mapping[str, NetworkObserved]

# A controller takes about as long for a report: so they keep it busy, and no more.
FEW_HOSTS = 50
SPREAD_S_A_HOST, LONGEST_SPREAD_S = 0.0025, 2.5
FIRST_SHARE = 0.5  # until then the change itself is on its way to all of them


class Reporter:
    """`content` is asked when a report is about to be written; None = not now. `hosts`: how many there are."""

    def __init__(
        self,
        store: Store,
        host: str,
        content: Callable[[], Content | None],
        trust: Trust,
        *,
        time: Time,
        timing: Timing,
        log: Log,
        hosts: Callable[[], int] = lambda: 0,
    ) -> None:
        self._hosts = hosts
        self._store = store
        self._trust = trust
        self._host = host
        self._content = content
        self._time = time
        self._timing = timing
        self._log = log
        self._wake = asyncio.Event()
        self._written: Content | None = None

    def changed(self) -> None:
        self._wake.set()

    def start_over(self) -> None:
        """The store may not have what was written there."""
        self._written = None
        self._wake.set()

    async def run(self) -> None:
        backoff = Backoff(self._timing.report_s, self._timing.retry_max_s)
        while True:
            await self._wake.wait()
            if self._hosts() >= FEW_HOSTS:
                spread_s = min(LONGEST_SPREAD_S, self._hosts() * SPREAD_S_A_HOST)
                await self._time.sleep(spread_s * self._time.rng.uniform(FIRST_SHARE, 1.0))
            self._wake.clear()
            try:
                wrote = await self._write()
            except StoreError as error:
                self._log.warning("report-failed", detail=str(error))
                self._wake.set()
                await self._time.sleep(backoff.next(self._time))
                continue
            backoff.reset()
            if wrote:
                await self._time.sleep(self._timing.report_s)

    async def _write(self) -> bool:
        if self._written is None:
            self._written = await self._there()
        content = self._content()
        if content is None or content == self._written:
            return False
        report = Observed(self._host, self._time.now(), content)
        self._written = None  # until the outcome is known
        key, known = keys.observed(self._host), self._trust.reported
        checks = [Unchanged(key, known)] if known else []
        try:
            revision = await self._store.commit(checks, [Put(key, codec.encode(report))])
        except Conflict:
            self._wake.set()  # what is there says why: an older one, or ours whose answer was lost
            return False
        self._trust.note_report(revision)
        self._written = content
        return True

    async def _there(self) -> Content | None:
        known = self._trust.reported
        entry = await self._store.get(keys.observed(self._host))
        self._trust.compare_report(entry, known)
        self._trust.note_report(entry.version if entry is not None else 0)
        if entry is None:
            return None
        try:
            return codec.decode(Observed, entry.value).networks
        except StoreBroken:
            return None
