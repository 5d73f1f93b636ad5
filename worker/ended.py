"""Endpoints that ended on this host lately, and whether one of them is there again although nobody made it again.

A request to make an endpoint may be repeated at another controller while the first one is held up: frozen, or cut off
from its store. That one may carry it out when the endpoint was made, used and released long ago; it then bears a later
version than the one that ended. Remembered in memory and for a while only; who attaches with the same id again has a
record, and is left alone by whoever asks here. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from backends.store import Entry
from kvnet import keys
from worker.ports import Time

REMEMBERED_S = 900.0
MOST = 2_000


class Ended:
    """`entries`: the host's local keys as they are known now, with their versions."""

    def __init__(self, host: str, entries: Mapping[str, Entry], time: Time) -> None:
        self._host = host
        self._entries = entries
        self._time = time
        self._known: dict[str, tuple[float, int]] = {}  # endpoint -> when it ended, and its version; the latest last

    def add(self, endpoint: str, version: int) -> None:
        """`version`: at which it was made, as far as is known; what is seen there now counts as ended, too."""
        now, there = self._time.monotonic(), self._entries.get(keys.local(self._host, endpoint))
        self._known.pop(endpoint, None)
        self._known[endpoint] = now, max(version, there.version if there is not None else 0)
        while len(self._known) > MOST or next(iter(self._known.values()))[0] < now - REMEMBERED_S:
            del self._known[next(iter(self._known))]

    def there_again(self) -> list[str]:
        """Those that were made again since."""
        versions = {
            endpoint: entry.version
            for endpoint in self._known
            if (entry := self._entries.get(keys.local(self._host, endpoint))) is not None
        }
        return [endpoint for endpoint, version in versions.items() if version > self._known[endpoint][1]]
