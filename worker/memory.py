"""What this host knows, kept on disk, and built from there when the store does not answer soon after a start.

Saves only what is believed, and the larger it is, the more rarely. A worker that cannot save goes on.
"""

from __future__ import annotations

import asyncio

from kvnet.errors import StateUnusable
from worker import lastknown
from worker.disk import StateDir
from worker.log import Log
from worker.ports import Time
from worker.reconcile import Reconciler
from worker.settings import Timing
from worker.source import Mode, Source
from worker.trust import Trust
from worker.view import View

SAVE_SHARE = 50.0  # saving the last known state takes at most this part of the time


class Memory:
    def __init__(
        self,
        state: StateDir,
        view: View,
        source: Source,
        trust: Trust,
        reconciler: Reconciler,
        *,
        time: Time,
        timing: Timing,
        log: Log,
    ) -> None:
        self._state = state
        self._view = view
        self._source = source
        self._trust = trust
        self._reconciler = reconciler
        self._time = time
        self._timing = timing
        self._log = log
        self._dirty = asyncio.Event()

    def changed(self) -> None:
        self._dirty.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._restore_if_alone())
            group.create_task(self._save_now_and_then())

    async def _restore_if_alone(self) -> None:
        await self._time.sleep(self._timing.patience_s)
        own = self._view.own
        if self._source.mode() is not Mode.BLIND or own is None:
            return
        known = await asyncio.to_thread(lastknown.restore, self._state, own, self._trust.cluster)
        if known is not None and self._source.mode() is Mode.BLIND:
            self._log.warning("restored", detail="the store is away: built from the last known state")
            self._source.restored = known
            self._reconciler.touch_everything()

    async def _save_now_and_then(self) -> None:
        took_s = 0.0
        while True:
            await self._dirty.wait()
            await self._time.sleep(self._time.jittered(max(self._timing.snapshot_s, SAVE_SHARE * took_s)))
            self._dirty.clear()
            if self._source.mode() is not Mode.LIVE:
                continue
            began = self._time.monotonic()
            self._trust.remember()
            try:
                await asyncio.to_thread(lastknown.save, self._state, self._trust.cluster, self._view.written())
            except StateUnusable as error:
                self._log.warning("state-unusable", detail=error.detail)
                self._dirty.set()
            took_s = self._time.monotonic() - began
