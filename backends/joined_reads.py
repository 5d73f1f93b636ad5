"""Lists of one prefix that are asked for together become one read of the store.

When a site comes up, or a replica of the controller goes, every host lists the same prefixes at the same moment.
Whoever asks while a read of the prefix is under way waits for the next one, which serves all that came meanwhile: so no
answer is older than its question, exactly as if each had read for itself. Never keeps anything for later.
"""

from __future__ import annotations

import asyncio

from backends.passing import PassingStore
from backends.store import Snapshot, Store


class JoinedReads(PassingStore):
    """All that share a read get the very same snapshot, or the very same error."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self._waiting: dict[str, asyncio.Future[Snapshot]] = {}
        self._serving: dict[str, asyncio.Task[None]] = {}

    async def list(self, prefix: str) -> Snapshot:
        waiting = self._waiting.get(prefix)
        if waiting is None:
            waiting = self._waiting[prefix] = asyncio.get_running_loop().create_future()
            waiting.add_done_callback(_looked_at)
            if prefix not in self._serving:
                self._serving[prefix] = asyncio.create_task(self._serve(prefix))
        # One that gives up must not take the answer away from the others.
        return await asyncio.shield(waiting)

    async def _serve(self, prefix: str) -> None:
        """Until nobody waits; the last look and the end are one step."""
        try:
            while (asked := self._waiting.pop(prefix, None)) is not None:
                try:
                    snapshot = await self._inner.list(prefix)
                except asyncio.CancelledError:
                    asked.cancel()
                    raise
                except Exception as error:  # noqa: BLE001 - it is told to those who asked
                    asked.set_exception(error)
                else:
                    asked.set_result(snapshot)
        finally:
            del self._serving[prefix]


def _looked_at(asked: asyncio.Future[Snapshot]) -> None:
    """All may have given up by the time that the error comes."""
    if not asked.cancelled():
        asked.exception()
