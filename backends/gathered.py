"""Small commits of many callers that come at the same moment go into the store together.

Where a change concerns a thousand hosts, each of them writes soon after that it has it: a thousand transactions, each
of which every replica and every member of the store would have to handle by itself. A commit that comes alone does not
wait. What is not to be gathered, and everything while nobody runs this, goes straight through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from backends.committer import Committer, Transaction
from backends.passing import PassingStore
from backends.store import Check, Revision, Store, Write


class GatheredCommits(PassingStore):
    """`are_gathered`: whether these writes are. Each caller has the outcome of its own, as if it had been alone; only
    the revision may be that of others, too."""

    def __init__(self, inner: Store, are_gathered: Callable[[Sequence[Write]], bool]) -> None:
        super().__init__(inner)
        self._are_gathered = are_gathered
        self._committer: Committer | None = None

    async def run(self) -> None:
        """Gather, until cancelled. What waits then gets `Unavailable`, what was sent `Unknown`."""
        self._committer = committer = Committer(self._inner)
        try:
            await committer.run()
        finally:
            self._committer = None

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        if self._committer is None or not writes or not self._are_gathered(writes):
            return await super().commit(checks, writes)
        return await self._committer.submit(Transaction(tuple(checks), tuple(writes)))
