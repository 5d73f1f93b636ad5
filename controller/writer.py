"""The one way of this controller's changes into the store: checks, writes and the journal entry in one commit.

Decides nothing: what a conflict means is for the caller. Every repetition is bounded and jittered.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from backends.committer import Committer, Transaction
from backends.store import Check, Revision, Store, StoreError, Write
from controller import journal
from controller.journal import Changed
from controller.requests import Caller
from controller.settings import Settings
from kvnet.errors import TooMuchContention

FIRST_PAUSE_S = 0.001
MAX_PAUSE_S = 0.1


class Writer:
    """`store` is for the reads that must be fresh: what a use case looks at after it lost a race."""

    def __init__(self, store: Store, settings: Settings, rng: random.Random) -> None:
        self.store = store
        self.now = settings.clock.now
        self._sleep = settings.clock.sleep
        self._attempts = settings.attempts
        self._rng = rng
        self._committer = Committer(store, seal=journal.sealer(self.now, rng))

    async def run(self) -> None:
        await self._committer.run()

    async def commit(
        self, checks: Sequence[Check], writes: Sequence[Write], caller: Caller, *changes: Changed
    ) -> Revision:
        """Raises: StoreError, as `Store.commit`."""
        return await self._committer.submit(self.transaction(checks, writes, caller, *changes))

    def transaction(
        self, checks: Sequence[Check], writes: Sequence[Write], caller: Caller, *changes: Changed
    ) -> Transaction:
        note = journal.note(self.now(), caller, *changes) if changes else None
        return Transaction(tuple(checks), tuple(writes), note)

    async def commit_many(self, transactions: Sequence[Transaction]) -> list[Revision | StoreError]:
        """Each on its own terms; the outcomes in the order given."""
        return await self._committer.submit_many(transactions)

    async def turn(self, attempt: int, what: str) -> None:
        """Wait before attempt 0, 1, 2 ...: not at all, then ever longer, jittered.

        Raises:
            TooMuchContention: that was the last one.
        """
        if attempt >= self._attempts:
            raise TooMuchContention(
                f"{what}: others were faster {attempt} times in a row", fix="nothing was changed; repeat the request"
            )
        if attempt:
            longest_s = min(FIRST_PAUSE_S * 2**attempt, MAX_PAUSE_S)
            await self._sleep(longest_s * self._rng.uniform(0.3, 1.0))
