"""What an endpoint on its way gets: addresses, a block, host ports. Chosen from memory, kept from others meanwhile.

The choices are those of the pure modules in `controller.ipam`; here they are put together for one claim, with the keys
that only one claim of this process may change at a time. Everything that is chosen is let go again, or noted when the
commit was made. Never writes; a wrong choice is found out by the commit's checks.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable
from typing import Any

from backends.store import Store
from controller.claims import Claim
from controller.ipam.addresses import AddressSpace
from controller.ipam.ports import Crowded, Taken, Wish, kept
from controller.ipam.routed import BlockSpace, NoBlock, Placed
from controller.ports import PortBook, refusal
from controller.publishing import bound
from controller.state import State
from controller.tables import Table
from kvnet import keys
from kvnet.claims import ClaimKind
from kvnet.model import Endpoint, Network

MAX_SPREAD = 4096
POINTERS = {4: "/address", 6: "/address6"}


class Placing:
    """For the endpoints of one call on one network."""

    def __init__(self, state: State, ports: PortBook, network: Network, rng: random.Random) -> None:
        self._state = state
        self._ports = ports
        self._busy = ports.busy
        self._rng = rng
        self.look_at(network)

    def look_at(self, network: Network) -> None:
        """The network has changed; what was chosen before must have been let go."""
        self.network = network
        self.space = self._state.space(network)

    def choose(self, claim: Claim, attempt: int, now: float) -> bool:
        """False: it has to wait for its turn, and nothing is chosen."""
        self.let_go([claim])
        skip = self._rng.randrange(MAX_SPREAD) if attempt else 0
        space = self.space
        if claim.wishes and not self._choose_ports(claim):
            return False
        if isinstance(space, BlockSpace):
            return self._chose_in_blocks(space, claim, space.families, now, skip)
        self._choose_wanted(space, claim, now)
        for family in space.families:
            if family not in claim.wanted:
                claim.chosen.append(space.choose(family, now, skip=skip))
        return True

    def choose_instead(self, claim: Claim, before: Endpoint, now: float, *, has_ports: bool) -> bool:
        """For an endpoint that is there: only what the claim asks for. False: as `choose`.

        `has_ports`: its ports stay as they are.
        """
        self.let_go([claim])
        self.end_turns([claim])
        if not has_ports and not self._choose_ports_instead(claim, before):
            return False
        if isinstance(self.space, BlockSpace):
            asked = [family for family in (4, 6) if family in claim.wanted]
            return not asked or self._chose_in_blocks(self.space, claim, asked, now, 0)
        self._choose_wanted(self.space, claim, now)
        return True

    @staticmethod
    def _choose_wanted(space: AddressSpace, claim: Claim, now: float) -> None:
        for family, address in claim.wanted.items():
            reuse = claim.request.reuse
            claim.chosen.append(space.claim(address, now, pointer=POINTERS[family], reuse=reuse))

    def _choose_ports(self, claim: Claim) -> bool:
        host, network = claim.request.host, self.network
        wishes = bound(claim.wishes, network, self.space.families)
        if not self._chosen(claim, wishes, None):
            return False
        claim.swap = self._ports.claiming(host, network.id, claim.id, claim.ports)
        return self._take(claim, claim.swap.after)

    def _choose_ports_instead(self, claim: Claim, before: Endpoint) -> bool:
        """All of its ports at once: those that it had and may keep, and others."""
        families = [address.version for address in before.addresses]
        wishes = bound(claim.wishes, self.network, {*families, *claim.wanted}) if claim.wishes else ()
        if not self._chosen(claim, kept(wishes, before.ports), before):
            return False
        claim.swap = self._ports.replacing(before, claim.ports)
        return self._take(claim, claim.swap.after)

    def _chosen(self, claim: Claim, wishes: tuple[Wish, ...], before: Endpoint | None) -> bool:
        host = claim.request.host
        try:
            claim.ports = self._ports.choose(host, wishes, self._rng, before)
        except Crowded:
            return False
        except Taken as taken:
            raise refusal(taken, host, self._network_of, self._endpoint_of) from taken
        return True

    def _chose_in_blocks(self, space: BlockSpace, claim: Claim, families: Iterable[int], now: float, skip: int) -> bool:
        """False: it waits for a block, and holds nothing meanwhile that others could want."""
        if self._choose_in_blocks(space, claim, families, now, skip):
            return True
        self._busy.leave(claim.turns)
        claim.turns.clear()
        return False

    def _choose_in_blocks(
        self, space: BlockSpace, claim: Claim, families: Iterable[int], now: float, skip: int
    ) -> bool:
        """As many as need a block of this host's make one, the others wait for it."""
        host, reuse = claim.request.host, claim.request.reuse
        turn = f"{keys.blocks(space.network.id)}{host}"
        may_claim = turn not in self._busy
        placed: Placed
        try:
            for family in families:
                if family in claim.wanted:
                    address, pointer = claim.wanted[family], POINTERS[family]
                    placed = space.claim_for(host, address, now, pointer=pointer, may_claim=may_claim, reuse=reuse)
                else:
                    placed = space.choose_for(host, family, now, skip=skip, may_claim=may_claim)
                claim.chosen.append(placed.candidate)
                claim.uses.append(placed.use)
            if any(use.is_written for use in claim.uses):
                self._take(claim, [turn])
        except NoBlock:
            self.let_go([claim])
            return False
        return True

    def _take(self, claim: Claim, names: Collection[str]) -> bool:
        if not self._busy.take(names):
            return False
        claim.turns.extend(names)
        return True

    def note(self, claim: Claim, revision: int) -> None:
        """What this commit wrote, for those who wait to build on it."""
        self._ports.note(revision, claim.swap.after)
        for use in claim.uses:
            if use.is_written and isinstance(self.space, BlockSpace):
                self.space.put_block(use.block, revision)

    def end_turns(self, claims: Iterable[Claim]) -> None:
        for claim in claims:
            if claim.turns:
                self._busy.give_back(claim.turns)
                claim.turns.clear()

    def let_go(self, claims: Iterable[Claim]) -> None:
        for claim in claims:
            for candidate in claim.chosen:
                self.space.let_go(candidate.address)
            claim.chosen.clear()
            for use in claim.uses:
                if isinstance(self.space, BlockSpace):
                    self.space.let_go_block(use.block.cidr)
            claim.uses.clear()

    def _network_of(self, network_id: str) -> Network | None:
        found = self._state.networks.get(network_id)
        return found.value if found is not None else None

    def _endpoint_of(self, network_id: str, endpoint_id: str) -> Endpoint | None:
        found = self._state.endpoints_of(network_id).get(endpoint_id)
        return found.value if found is not None else None


async def see_winners(state: State, store: Store, lost: Iterable[str]) -> None:
    """What others have written to the addresses and blocks that were lost to them, before another choice is made.

    Raises:
        StoreError
    """
    for key in lost:
        if key.startswith(keys.ADDRESSES) and _has_holder(state, key):
            continue  # of many that were lost to one commit, the first that is read brings the others
        if key.startswith((keys.ADDRESSES, keys.BLOCKS)):
            entry = await store.get(key)
            table: Table[Any] = state.addresses if key.startswith(keys.ADDRESSES) else state.host_blocks
            if entry is not None:
                await state.reached(entry.version, table)


def _has_holder(state: State, key: str) -> bool:
    """Whether the memory has it taken by now: it had it free, or cooled down, when it was chosen."""
    shown = state.addresses.get(key.removeprefix(keys.ADDRESSES))
    return shown is not None and shown.value.kind is not ClaimKind.TOMBSTONE
