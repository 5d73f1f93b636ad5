"""Endpoints that ended on this host lately, and whether one of them is there again although nobody made it again.

A request to make an endpoint may be repeated at another controller while the first one is held up: frozen, or cut off
from its store. That one may carry it out when the endpoint was made, used and released long ago; it then bears a later
version than the one that ended. Remembered for a while, beyond a restart of the worker, and beyond a power failure once
it is settled; losing it costs no more than an endpoint without a workload. Who attaches with the same id again has a
record, and is left alone by whoever asks here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

from backends.store import Entry
from kvnet import keys
from kvnet.errors import KvnetError, StateUnusable
from worker.disk import StateDir
from worker.log import Log
from worker.ports import Time

FILE = "ended.json"
REMEMBERED_S = 900.0
SETTLE_S = 1.0  # what ends within it is synced at once: a disk that is synced keeps others waiting
MOST = 500


class Ended:
    """`entries`: the host's local keys as they are known now, with their versions."""

    def __init__(self, state: StateDir, host: str, entries: Mapping[str, Entry], time: Time, log: Log) -> None:
        self._state = state
        self._host = host
        self._entries = entries
        self._time = time
        self._log = log
        self._unsettled = asyncio.Event()
        # endpoint -> when it ended, and its version; the latest last. By a clock that goes on over a restart.
        self._known: dict[str, tuple[float, int]] = self._load()

    def add(self, endpoint: str, version: int) -> None:
        """`version`: at which it was made, as far as is known; what is seen there now counts as ended, too."""
        now, there = self._time.monotonic(), self._entries.get(keys.local(self._host, endpoint))
        self._known.pop(endpoint, None)
        self._known[endpoint] = now, max(version, there.version if there is not None else 0)
        while len(self._known) > MOST or next(iter(self._known.values()))[0] < now - REMEMBERED_S:
            del self._known[next(iter(self._known))]
        self._save()

    def there_again(self) -> list[str]:
        """Those that were made again since."""
        versions = {
            endpoint: entry.version
            for endpoint in self._known
            if (entry := self._entries.get(keys.local(self._host, endpoint))) is not None
        }
        return [endpoint for endpoint, version in versions.items() if version > self._known[endpoint][1]]

    async def run(self) -> None:
        """Until cancelled: what is noted survives a power failure, too, a moment later."""
        while True:
            await self._unsettled.wait()
            await self._time.sleep(SETTLE_S)
            await self.settle()

    async def settle(self) -> None:
        """What was noted survives a power failure from now on."""
        if not self._unsettled.is_set():
            return
        self._unsettled.clear()  # first: what is noted meanwhile may miss it
        try:
            await asyncio.to_thread(self._state.sync, FILE)
        except StateUnusable as error:
            self._log.warning("state-unusable", detail=error.detail)

    def _load(self) -> dict[str, tuple[float, int]]:
        """What is from after this moment is from before the host's last boot, when that clock began anew. It ended then
        at the latest."""
        now = self._time.monotonic()
        try:
            data = self._state.read(FILE)
            plain = json.loads(data) if data else {}
            found = {str(name): (float(at), int(version)) for name, (at, version) in plain.items()}
        except (KvnetError, ValueError, TypeError, AttributeError):
            return {}
        dated = {name: (at if at <= now else 0.0, version) for name, (at, version) in found.items()}
        known = ((name, one) for name, one in dated.items() if one[0] >= now - REMEMBERED_S)
        return dict(sorted(known, key=lambda item: item[1][0]))

    def _save(self) -> None:
        self._unsettled.set()
        try:
            self._state.write(FILE, json.dumps(self._known).encode(), durable=False)
        except StateUnusable as error:
            self._log.warning("state-unusable", detail=error.detail)  # remembered in memory at least
