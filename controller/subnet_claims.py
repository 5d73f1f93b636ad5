"""The commit that claims subnets: checked against the guard, and kept from everybody else here while it is on its way.

Whoever calls holds the guard and has decided by what it showed. Decides nothing; a claim that lost the race raises what
the store raised, and leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from backends.store import Check, Revision, Write
from controller.guards import Guard
from controller.journal import Changed
from controller.requests import Caller
from controller.state import State
from controller.writer import Writer
from kvnet.model import Cidr


class SubnetClaims:
    def __init__(self, state: State, writer: Writer, guard: Guard) -> None:
        self._state = state
        self._writer = writer
        self._guard = guard

    async def commit(
        self,
        cidrs: Collection[Cidr],
        owner: str,
        checks: Sequence[Check],
        writes: Sequence[Write],
        caller: Caller,
        change: Changed,
    ) -> Revision:
        """Write them all or nothing. `owner`: id of the network or hold that the subnets are for.

        Raises:
            StoreError: as `Store.commit`.
        """
        for cidr in cidrs:
            self._state.blocks.take(cidr, owner)
        revision = None
        try:
            with self._guard.deciding():
                revision = await self._writer.commit(
                    [self._guard.check, *checks], [self._guard.write, *writes], caller, change
                )
        finally:
            if revision is None:
                for cidr in cidrs:  # a claim that was made is let go when the mirror shows it
                    self._state.blocks.let_go(cidr)
        self._guard.won(revision)
        return revision
