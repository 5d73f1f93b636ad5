"""The change of a living endpoint: the one commit that makes it, against everything that it must not collide with.

Names, labels and the priority are the endpoint's alone, so that commit checks nothing else: it is on the way of every
container that starts. Other host ports are claimed and the former ones given back in that very commit, and so are
addresses. A lost race is run again on what the winner left; a lost answer is looked up first. Never touches an address
or a port that is not the endpoint's.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from backends.store import Absent, Check, Conflict, Delete, Put, Unchanged, Unknown, Write
from controller.claims import Claim, of_blocks
from controller.endpoint_patching import EndpointPatch, changed, other_addresses, wanted_ports, with_addresses
from controller.journal import Changed
from controller.placing import Placing, see_winners
from controller.ports import PortBook
from controller.release import Release, is_holder, is_same, require_version
from controller.requests import Caller, EndpointRequest
from controller.state import State
from controller.tables import Table
from controller.writer import Writer
from kvnet import codec, keys
from kvnet.claims import AddressClaim, ClaimKind
from kvnet.errors import NotFound
from kvnet.model import Endpoint, Network, Versioned

# An address of so young an endpoint, that no host has reported yet, need not cool down: nobody has sent anything to it.
FRESH_S = 5.0


class EndpointChanges:
    """The parts that every change needs."""

    def __init__(self, state: State, writer: Writer, ports: PortBook, release: Release, rng: random.Random) -> None:
        self.state = state
        self.writer = writer
        self.ports = ports
        self.release = release
        self.rng = rng

    async def change(
        self,
        network: Versioned[Network],
        found: Versioned[Endpoint],
        patch: EndpointPatch,
        caller: Caller,
        if_version: int | None,
    ) -> Versioned[Endpoint]:
        """
        Raises:
            NotFound, PreconditionFailed, Immutable, Invalid, NotSupported
            AddressTaken, BlockTaken, PortTaken, PortsExhausted: what others have.
            TooMuchContention, StoreError
        """
        return await _Change(self, network, patch, caller, if_version).run(found)


class _Change:
    """One call: rounds of decide, choose, commit, and see who was faster."""

    def __init__(
        self,
        parts: EndpointChanges,
        network: Versioned[Network],
        patch: EndpointPatch,
        caller: Caller,
        if_version: int | None,
    ) -> None:
        self._release, self._ports = parts.release, parts.ports
        self._state, self._writer = parts.state, parts.writer
        self._rng = parts.rng
        self._network = network
        self._patch = patch
        self._caller = caller
        self._if_version = if_version
        self._meant: Endpoint | None = None  # what the last commit was to write

    async def run(self, found: Versioned[Endpoint]) -> Versioned[Endpoint]:
        turns = self._writer.turns(f"endpoint {found.value.name!r} could not be changed")
        while True:
            await turns.next()
            require_version(found, self._if_version)
            try:
                return await self._try(found)
            except (Conflict, Unknown) as error:
                turns.failed(error)
                stored = await self._again(found.value)
                if isinstance(error, Unknown) and stored.value == self._meant:
                    return stored
                await self._catch_up(error.keys if isinstance(error, Conflict) else (), stored.value)
                found = stored

    async def _try(self, found: Versioned[Endpoint]) -> Versioned[Endpoint]:
        before = found.value
        after, claim = changed(before, self._patch), self._claim(before)
        if claim is None:
            return found if after == before else await self._commit(found, after, [], [])
        placing = Placing(self._state, self._ports, self._network.value, self._rng)
        made = None
        try:
            while not placing.choose_instead(claim, before, self._writer.now(), has_ports=self._patch.ports is None):
                if self._ports.busy.is_idle:  # whoever is in the way has no turn that could end: a lost race
                    raise Conflict([])
                await self._ports.busy.until_given_back()
            after = with_addresses(after, {c.address.version: c.address for c in claim.chosen})
            if self._patch.ports is not None:
                after = replace(after, ports=claim.ports)
            if after == before:
                return found
            made = await self._commit(found, after, *await self._claimed(claim, before, after))
            placing.note(claim, made.version)
            return made
        finally:
            placing.end_turns([claim])
            if made is None:
                placing.let_go([claim])

    def _claim(self, endpoint: Endpoint) -> Claim | None:
        """What it is to get that others may have; None: nothing."""
        addresses, wishes = other_addresses(endpoint, self._patch), wanted_ports(self._patch)
        if not addresses and wishes is None:
            return None
        request = EndpointRequest(endpoint.host, endpoint.name, reuse=self._patch.reuse)
        return Claim(request, addresses, endpoint.id, endpoint.mac, wishes=wishes or ())

    async def _claimed(self, claim: Claim, before: Endpoint, after: Endpoint) -> tuple[list[Check], list[Write]]:
        """What makes what was chosen the endpoint's, and what it leaves free."""
        blocks = of_blocks(claim.uses)
        checks: list[Check] = [*claim.swap.checks, *blocks.checks]
        writes: list[Write] = [*claim.swap.writes, *blocks.writes]
        if not claim.chosen:
            return checks, writes
        checks.append(Unchanged(keys.network(self._network.value.id), self._network.version))
        now = self._writer.now()
        fresh = AddressClaim(ClaimKind.ENDPOINT, after.id, now, None, after.host)
        data = codec.encode(fresh)
        for address, version in claim.chosen:
            key = keys.address(after.network, address)
            checks.append(Absent(key) if version is None else Unchanged(key, version))
            writes.append(Put(key, data))
            self._state.addresses.expect(key, data, fresh)
        claims = await self._release.claims(before)
        for address in before.addresses:
            held = claims.get(address)
            if address in after.addresses or held is None or not is_holder(before, held):
                continue
            key = keys.address(before.network, address)
            checks.append(Unchanged(key, held.version))
            is_unseen = now - held.value.since < FRESH_S and not self._is_seen(before.network, held.version)
            writes.append(Delete(key) if is_unseen else self._release.laid_to_rest(key, before.id, before.host, now))
        return checks, writes

    def _is_seen(self, network: str, version: int) -> bool:
        """Whether any host says that it has applied this, or something later, of the network."""
        seen = (observed.value.networks.get(network) for observed in self._state.observed.items.values())
        return any(one is not None and one.version >= version for one in seen)

    async def _commit(
        self, found: Versioned[Endpoint], after: Endpoint, checks: list[Check], writes: list[Write]
    ) -> Versioned[Endpoint]:
        """Raises: Conflict, Unknown."""
        key, data = keys.endpoint(after.network, after.id), codec.encode(after)
        self._meant = after
        self._state.endpoints.expect(key, data, after)
        revision = await self._writer.commit(
            [Unchanged(key, found.version), *checks],
            [Put(key, data), *writes],
            self._caller,
            Changed("endpoint.changed", key, codec.encode(found.value), data),
        )
        await self._state.reached(revision, *self._tables([key, *(write.key for write in writes)]))
        return Versioned(after, revision)

    def _tables(self, written: Sequence[str]) -> list[Table[Any]]:
        """Those that show what was written. Another one would only hear of the revision later."""
        state = self._state
        tables: tuple[Table[Any], ...] = (state.endpoints, state.addresses, state.ports, state.host_blocks)
        return [table for table in tables if any(key.startswith(table.prefix) for key in written)]

    async def _again(self, before: Endpoint) -> Versioned[Endpoint]:
        """
        Raises:
            NotFound
        """
        entry = await self._writer.store.get(keys.endpoint(before.network, before.id))
        stored = None if entry is None else Versioned(codec.decode(Endpoint, entry.value), entry.version)
        if stored is None or not is_same(stored.value, before):
            raise NotFound(f"endpoint {before.name!r} was deleted meanwhile")
        return stored

    async def _catch_up(self, lost: Sequence[str], endpoint: Endpoint) -> None:
        """See what the winner wrote before choosing again; after a lost answer, whatever may have been."""
        if self._patch.ports is not None:
            await self._ports.look_again(self._writer.store, endpoint.host)
        if keys.network(endpoint.network) in lost:
            self._network = await self._network_again()
        await see_winners(self._state, self._writer.store, lost)

    async def _network_again(self) -> Versioned[Network]:
        entry = await self._writer.store.get(keys.network(self._network.value.id))
        if entry is None:
            raise NotFound(f"network {self._network.value.name!r} was deleted meanwhile")
        await self._state.reached(entry.version, self._state.networks)
        return Versioned(codec.decode(Network, entry.value), entry.version)
