"""Commits with a journal entry where there is a store but no controller: `kvnet token create --store`, a bootstrap.

One commit a call; batches and fences are the controller's affair (`controller.writer`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from backends.store import Check, Revision, Store, Write
from controller import journal
from controller.journal import Changed
from controller.requests import Caller


class Journalled:
    """As `controller.security.tokens.Commits` asks."""

    def __init__(self, store: Store, now: Callable[[], float], rng: random.Random) -> None:
        self._store = store
        self._now = now
        self._seal = journal.sealer(now, rng)

    async def commit(
        self, checks: Sequence[Check], writes: Sequence[Write], caller: Caller, *changes: Changed
    ) -> Revision:
        """Raises: StoreError."""
        note = journal.note(self._now(), caller, *changes)
        return await self._store.commit(checks, [*writes, *self._seal([note])])
