"""The one way of this controller's changes into the store: checks, writes and the journal entry in one commit.

Decides nothing: what a conflict means is for the caller. Writes nothing while `controller.standing` does not believe
the store, and lets every commit check that the sentinel is still what it was. Every repetition is bounded and jittered.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from backends.committer import Committer, Transaction
from backends.store import Check, Conflict, Put, Revision, Store, StoreError, Unknown, Write
from controller import journal
from controller.journal import Changed
from controller.outcomes import note_lost
from controller.requests import Caller
from controller.settings import Settings
from controller.standing import Standing
from kvnet import codec, keys
from kvnet.errors import Abandoned, TooMuchContention
from kvnet.request import current, first_change

FIRST_PAUSE_S = 0.001
MAX_PAUSE_S = 0.1
MAX_LOST_ANSWERS = 3
COMMIT = "store commit"
STAMPED = (keys.NETWORKS, keys.ENDPOINTS)


class Writer:
    """`store` is for the reads that must be fresh: what a use case looks at after it lost a race."""

    def __init__(self, store: Store, settings: Settings, rng: random.Random, standing: Standing) -> None:
        self.store = store
        self._standing = standing
        self.now = settings.clock.now
        self._sleep = settings.clock.sleep
        self._attempts = settings.attempts
        self._rng = rng
        self._tracer = settings.tracer
        self.counts = Counter[str]()  # conflicts: commits that lost a race; repeats: another attempt; given-up
        self._committer = Committer(store, seal=journal.sealer(self.now, rng))

    async def run(self) -> None:
        await self._committer.run()

    async def commit(
        self, checks: Sequence[Check], writes: Sequence[Write], caller: Caller, *changes: Changed
    ) -> Revision:
        """
        Raises:
            Abandoned: nobody waits for this request any more, and it has not changed anything yet.
            StoreWentBack: the store is not believed; nothing was written.
            StoreError: as `Store.commit`.
        """
        await require_wanted()
        self._standing.require()
        fence = self._standing.fence
        try:
            with self._tracer.span(COMMIT, caller.trace, writes=len(writes)):
                return await self._committer.submit(self.transaction([*checks, *fence], writes, caller, *changes))
        except Unknown as error:
            note_lost(error)
            raise
        except Conflict as error:
            self.counts["conflicts"] += 1
            if fence and keys.CLUSTER in error.keys:
                raise self._standing.overtaken() from error
            raise

    async def commit_unfenced(
        self, checks: Sequence[Check], writes: Sequence[Write], caller: Caller, *changes: Changed
    ) -> Revision:
        """For the acceptance of a store that is not believed, and nothing else.

        Raises:
            StoreError: as `Store.commit`.
        """
        return await self._committer.submit(self.transaction(checks, writes, caller, *changes))

    def transaction(
        self, checks: Sequence[Check], writes: Sequence[Write], caller: Caller, *changes: Changed
    ) -> Transaction:
        note = journal.note(self.now(), caller, *changes) if changes else None
        return Transaction(tuple(checks), tuple([stamped(write, caller) for write in writes]), note)

    async def commit_many(self, transactions: Sequence[Transaction]) -> list[Revision | StoreError]:
        """Each on its own terms; the outcomes in the order given.

        Raises:
            Abandoned: as `commit`.
            StoreWentBack: the store is not believed. Some of them may have been written before that was known.
        """
        await require_wanted()
        self._standing.require()
        fence = self._standing.fence
        if fence:
            transactions = [Transaction((*one.checks, *fence), one.writes, one.note) for one in transactions]
        with self._tracer.span(COMMIT, current().trace, transactions=len(transactions)):
            outcomes = await self._committer.submit_many(transactions)
        self.counts["conflicts"] += sum(isinstance(one, Conflict) for one in outcomes)
        if fence and any(isinstance(one, Conflict) and keys.CLUSTER in one.keys for one in outcomes):
            raise self._standing.overtaken()
        return outcomes

    def turns(self, what: str) -> Turns:
        """For a loop that repeats a commit; `what` could not be done, says the error that ends it."""
        return Turns(what, self._attempts, self._sleep, self._rng, self.counts)


async def require_wanted() -> None:
    """Before a request's first change. What a frozen process finds when it goes on may have been asked long ago.

    Raises:
        Abandoned
    """
    has_gone = first_change()
    if has_gone is None:
        return
    await asyncio.sleep(0)  # the end of a connection is read after what came on it
    if has_gone():
        raise Abandoned("whoever asked has gone, so this was not begun", fix="ask again")


def stamped(write: Write, caller: Caller) -> Write:
    """What workers mirror says which request wrote it: so they can say whose change they brought into the kernel."""
    if not isinstance(write, Put) or not write.key.startswith(STAMPED):
        return write
    return Put(write.key, codec.stamped(write.value, caller.request_id, caller.trace), write.session)


class Turns:
    """How often, and with which pauses, something is tried again: ever longer, jittered, and not for ever."""

    def __init__(
        self,
        what: str,
        limit: int,
        sleep: Callable[[float], Awaitable[None]],
        rng: random.Random,
        counts: Counter[str] | None = None,
    ) -> None:
        self._counts = Counter[str]() if counts is None else counts
        self._what = what
        self._limit = limit
        self._sleep = sleep
        self._rng = rng
        self._lost_answers = 0
        self.taken = 0

    async def next(self) -> int:
        """Wait for the next attempt, and number it from 0 on; the first comes at once.

        Raises:
            TooMuchContention: that was the last one.
        """
        if self.taken >= self._limit:
            self._counts["given-up"] += 1
            raise TooMuchContention(
                f"{self._what}: others were faster {self.taken} times in a row",
                fix="nothing was changed; repeat the request",
            )
        if self.taken:
            self._counts["repeats"] += 1
            longest_s = min(FIRST_PAUSE_S * 2**self.taken, MAX_PAUSE_S)
            await self._sleep(longest_s * self._rng.uniform(0.3, 1.0))
        self.taken += 1
        return self.taken - 1

    def failed(self, error: Conflict | Unknown) -> None:
        """What came of the attempt. A lost race may be run again; lost answers cost a timeout each.

        Raises:
            Unknown: the last answer, when it was one too many.
        """
        if isinstance(error, Unknown):
            self._lost_answers += 1
            if self._lost_answers >= MAX_LOST_ANSWERS:
                raise error
