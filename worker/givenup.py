"""Endpoints that nobody waits for any more, though a controller that was held up may still make them.

Remembered beyond a restart of the worker, for such a controller may come back at any time, and beyond a power failure
once it is settled; bounded, the oldest are forgotten first. Losing the list costs no more than an endpoint without a
workload. Decides nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Container, Iterator

from kvnet.errors import KvnetError, StateUnusable
from worker.disk import StateDir
from worker.log import Log

FILE = "given-up.json"
MOST = 1_000


class GivenUp:
    """The latest last."""

    def __init__(self, state: StateDir, log: Log) -> None:
        self._state = state
        self._log = log
        self._endpoints = dict.fromkeys(self._load())
        self._is_settled = True

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._endpoints))

    def add(self, endpoint: str) -> None:
        self._endpoints.pop(endpoint, None)
        self._endpoints[endpoint] = None
        while len(self._endpoints) > MOST:
            del self._endpoints[next(iter(self._endpoints))]
        self._save()

    def found_in(self, there: Container[str]) -> list[str]:
        """Those that are there after all; they are not given up any more."""
        found = [endpoint for endpoint in self._endpoints if endpoint in there]
        for endpoint in found:
            del self._endpoints[endpoint]
        if found:
            self._save()
        return found

    async def settle(self) -> None:
        """What was noted survives a power failure, too."""
        if self._is_settled:
            return
        self._is_settled = True
        try:
            await asyncio.to_thread(self._state.sync, FILE)
        except StateUnusable as error:
            self._log.warning("state-unusable", detail=error.detail)

    def _load(self) -> list[str]:
        try:
            data = self._state.read(FILE)
            plain = json.loads(data) if data else []
        except (KvnetError, ValueError):
            return []
        return [one for one in plain if isinstance(one, str)] if isinstance(plain, list) else []

    def _save(self) -> None:
        self._is_settled = False
        try:
            self._state.write(FILE, json.dumps(list(self._endpoints)).encode(), durable=False)
        except StateUnusable as error:
            self._log.warning("state-unusable", detail=error.detail)  # remembered in memory at least
