"""What a claimant of the storm does: it races for addresses, as the product claims and releases them, and lets them go.

One commit a claim (`Absent`, or `Unchanged` of a tombstone, and the owner) and one a release (`Unchanged` of the claim,
and a tombstone or nothing), many of them at once through the product's group commit. Each attempt is an owner of its
own, so whatever stands under an address names the one attempt that put it there. What claimants believe to be free
they tell each other on a board, past the store: that is a guess, only the store decides.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

from backends.committer import Committer, Transaction
from backends.store import (
    Absent,
    Check,
    Conflict,
    Delete,
    Put,
    Store,
    StoreError,
    Unchanged,
    Unknown,
    Write,
)
from kvnet import codec
from kvnet.claims import AddressClaim, ClaimKind
from tests.torture.board import TAKEN, Attempt, Board, Release
from tests.torture.ledger import ABSENT, Form

BURST, STRIDE = 16, 4
# How often a claimant wants what another one is after, and what it believes to be taken: the store must refuse it.
RALLY, BOLD = 0.45, 0.02
PATIENCE_S = 1.0
COOL_DOWN_S = 60.0
NAMELESS = "nobody-yet"

Sleep = Callable[[float], Awaitable[object]]


class Claimant:
    """`site`: the number of the store client that its commits go through."""

    def __init__(
        self, name: str, site: int, store: Store, committer: Committer, board: Board, rng: random.Random, sleep: Sleep
    ) -> None:
        self.site = site
        self.mine: list[Release] = []  # what it owns, and how it will let go of it
        self._name = name
        self._host = f"h{site}"
        self._store = store
        self._committer = committer
        self._board = board
        self._rng = rng
        self._sleep = sleep
        self._made = 0
        self._templates: dict[Form, tuple[float, bytes, bytes]] = {}

    def leaving(self) -> Form:
        return Form.TOMBSTONE if self._rng.random() < 0.5 else Form.NOTHING

    async def run(self, is_over: Callable[[], bool]) -> None:
        """Until it is over, and then until nothing that it released is in doubt."""
        while not is_over():
            await self._turn(self._choose())
        while any(one.is_doubtful for one in self.mine):
            await self._turn([])

    def _choose(self) -> list[Attempt]:
        """A burst of what is believed to be free: often just what another claimant is after at this moment.

        Two who want the same dozen addresses are what two controllers are that both take the next free ones; and one
        refused commit settles it, where strewn collisions would cost one commit each.
        """
        board, versions, kind = self._board, self._board.versions, self._rng.random()
        places: list[int] = []
        if kind < BOLD:
            places = [place for place in self._sample() if versions[place] < 0]
        elif kind < BOLD + RALLY:
            places = [place for place in board.rally(self.site) if versions[place] >= 0 and place in board.wanting]
        if not places:
            places = [place for place in self._sample() if versions[place] >= 0 and place not in board.wanting]
            board.rallies.append((self.site, places))
        now = board.clock()
        return [self._attempt(place, now) for place in places]

    def _sample(self) -> list[int]:
        """Around a random place: what lies together is wanted together."""
        first = self._rng.randrange(self._board.places)
        return [(first + i) % self._board.places for i in range(0, BURST * STRIDE, self._rng.randint(1, STRIDE))][
            :BURST
        ]

    def _attempt(self, place: int, now: int) -> Attempt:
        self._made += 1
        attempt = Attempt(place, f"{self._name}-{self._made}", self, max(ABSENT, self._board.versions[place]), now)
        self._board.want(attempt)
        return attempt

    async def _turn(self, claims: Sequence[Attempt]) -> None:
        board = self._board
        releases, self.mine = self.mine, []
        now = board.clock()
        for one in releases:
            one.called = one.called or now  # of a repeated one, what was asked first may be what is done
        since = now / 1e9
        commits = [self._claim(one, since) for one in claims] + [self._release(one, since) for one in releases]
        outcomes = await self._committer.submit_many(commits)
        returned = board.clock()
        is_away, puzzling = False, list[int]()
        for attempt, outcome in zip(claims, outcomes, strict=False):
            is_alone = board.leave(attempt)
            if isinstance(outcome, int):
                board.owned(attempt, outcome, returned)
            elif self._is_refused(attempt, outcome) and is_alone:
                puzzling.append(attempt.place)
            elif not isinstance(outcome, Conflict):
                is_away = True
                if isinstance(outcome, Unknown):
                    puzzling.append(attempt.place)
        for one, outcome in zip(releases, outcomes[len(claims) :], strict=True):
            is_away |= self._judge(one, outcome, returned)
        if is_away:
            await self._sleep(self._rng.random() * PATIENCE_S)
        await self._look(puzzling)

    def _is_refused(self, attempt: Attempt, outcome: StoreError) -> bool:
        """Whether it was, and nobody has told why."""
        board = self._board
        board.counts[f"claim {type(outcome).__name__.lower()}"] += 1
        if isinstance(outcome, Unknown):
            board.open[attempt.owner] = attempt
        return isinstance(outcome, Conflict) and board.versions[attempt.place] == attempt.assumed

    def _judge(self, one: Release, outcome: int | StoreError, returned: int) -> bool:
        """Whether it has to be tried again."""
        board = self._board
        if isinstance(outcome, int):
            # After a lost answer, a success is the first one that there was: what it checks is gone afterwards.
            board.released(one, outcome, returned)
            return False
        board.counts[f"release {type(outcome).__name__.lower()}"] += 1
        if isinstance(outcome, Conflict):
            if not one.is_doubtful:
                board.findings.blame(
                    "lost-claim", f"{one.claim.owner} owned {outcome.keys} at {one.version}, says none"
                )
            board.released(one, None, returned)
            return False
        one.is_doubtful |= isinstance(outcome, Unknown)
        self.mine.append(one)
        return True

    async def _look(self, puzzling: Sequence[int]) -> None:
        """One first: where nobody answers, hundreds of reads would only keep the servers from coming back."""
        board = self._board
        for some in (puzzling[:1], puzzling[1:]):
            try:
                entries = await asyncio.gather(*(self._store.get(board.keys[place]) for place in some))
            except StoreError:
                for place in puzzling:
                    board.versions[place] = TAKEN  # until the end of the round, unless somebody bold is lucky
                return
            board.counts["reads"] += len(some)
            for place, entry in zip(some, entries, strict=True):
                board.learn(place, entry)

    def _claim(self, one: Attempt, since: float) -> Transaction:
        key = self._board.keys[one.place]
        check: Check = Unchanged(key, one.assumed) if one.assumed else Absent(key)
        return Transaction((check,), (Put(key, self._stored(Form.OWNER, one.owner, since)),))

    def _release(self, one: Release, since: float) -> Transaction:
        key = self._board.keys[one.claim.place]
        write: Write = Delete(key)
        if one.leaves is Form.TOMBSTONE:
            write = Put(key, self._stored(Form.TOMBSTONE, one.claim.owner, since))
        return Transaction((Unchanged(key, one.version),), (write,))

    def _stored(self, form: Form, owner: str, since: float) -> bytes:
        """What the codec makes of it. All of one turn and form are the same but for their owner."""
        known = self._templates.get(form)
        if known is None or known[0] != since:
            kind, until = ClaimKind.ENDPOINT, None
            if form is Form.TOMBSTONE:
                kind, until = ClaimKind.TOMBSTONE, since + COOL_DOWN_S
            data = codec.encode(AddressClaim(kind, NAMELESS, since, until, self._host))
            before, _, after = data.partition(NAMELESS.encode())
            known = self._templates[form] = since, before, after
        return known[1] + owner.encode() + known[2]
