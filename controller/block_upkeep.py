"""Gives back the blocks of routed networks that their hosts need no more, in two steps.

First the block is marked as releasing, once nothing was in it for a while: every endpoint's commit checks that its
block is as it was seen, so none can come in from then on. Then the store itself is asked what is in it, and only if
there is no endpoint and no address that cools down does it go; an endpoint that was faster than the mark makes it
active again. Killed between the steps nothing is lost: the mark stands, and the next sweep goes on from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from backends.committer import Transaction
from backends.store import Check, Delete, Put, Unchanged, Write
from controller.journal import Changed
from controller.requests import Caller
from controller.settings import Settings
from controller.state import State
from controller.suspicions import Suspicions
from controller.writer import Writer
from kvnet import codec, keys
from kvnet.claims import AddressClaim, ClaimKind
from kvnet.model import Address, Block, BlockState, Cidr, Versioned

MAX_PER_SWEEP = 1_000


class BlockUpkeep:
    """Only the elected controller calls it, and only while the store is believed and the mirrors are in step."""

    def __init__(self, state: State, writer: Writer, settings: Settings, actor: str) -> None:
        self._state = state
        self._writer = writer
        self._settings = settings
        self._actor = actor
        self._empty: Suspicions[tuple[str, int]] = Suspicions()
        # What cooled down in it kept it long already; this keeps one from going and coming with every workload.
        self._grace_s = min(settings.leak_grace_s, settings.cool_down_s)

    def forget(self) -> None:
        self._empty.forget()

    async def sweep(self) -> int:
        """How many blocks were given back.

        Raises:
            StoreError
        """
        now = self._writer.now()
        empty = {(keys.block(b.value.network, b.value.cidr), b.version): b for b in self._unused(now)}
        confirmed = self._empty.confirmed(empty, self._settings.clock.monotonic(), self._grace_s)
        await self._commit([self._marking(empty[one]) for one in confirmed[:MAX_PER_SWEEP]])
        return await self._finish(await self._releasing())

    def _unused(self, now: float) -> Iterator[Versioned[Block]]:
        """Active blocks without an endpoint's address and without one that cools down, as the mirrors have it."""
        for network in {name.partition("/")[0] for name in self._state.host_blocks.items}:
            used = {a for a, claim in self._state.claims_of(network).items() if _is_in_use(claim.value, now)}
            occupied = _occupied(used, self._state.blocks_of(network))
            for cidr, block in self._state.blocks_of(network).items():
                if block.value.state is BlockState.ACTIVE and cidr not in occupied:
                    yield block

    def _marking(self, block: Versioned[Block]) -> Transaction:
        key = keys.block(block.value.network, block.value.cidr)
        after = codec.encode(replace(block.value, state=BlockState.RELEASING))
        change = Changed("block.releasing", key, codec.encode(block.value), after)
        return self._transaction([Unchanged(key, block.version)], [Put(key, after)], change)

    async def _releasing(self) -> list[Versioned[Block]]:
        """From the store: the mirrors may not show yet what was marked just now."""
        found = []
        if self._state.host_blocks.items:
            for entry in (await self._writer.store.list(keys.BLOCKS)).entries:
                block = Versioned(codec.decode(Block, entry.value), entry.version)
                if block.value.state is BlockState.RELEASING:
                    found.append(block)
        return found

    async def _finish(self, releasing: list[Versioned[Block]]) -> int:
        """Second step. What the list shows is all there can be: it is younger than the marks."""
        transactions: list[Transaction] = []
        for network in {block.value.network for block in releasing}:
            now = self._writer.now()
            listed = await self._writer.store.list(keys.addresses(network))
            used = {
                keys.parse_address(entry.key).address: claim
                for entry in listed.entries
                if _is_in_use(claim := codec.decode(AddressClaim, entry.value), now)
            }
            own = {block.value.cidr: block for block in releasing if block.value.network == network}
            occupied = _occupied(used, own)
            living = _occupied({a for a, claim in used.items() if claim.kind is ClaimKind.ENDPOINT}, own)
            for cidr, block in own.items():
                if cidr in living:
                    transactions.append(self._taking_back(block))
                elif cidr not in occupied:
                    transactions.append(self._giving_back(block))
        await self._commit(transactions[:MAX_PER_SWEEP])
        return sum(isinstance(write, Delete) for one in transactions for write in one.writes)

    def _giving_back(self, block: Versioned[Block]) -> Transaction:
        key = keys.block(block.value.network, block.value.cidr)
        change = Changed("block.released", key, codec.encode(block.value), None)
        return self._transaction([Unchanged(key, block.version)], [Delete(key)], change)

    def _taking_back(self, block: Versioned[Block]) -> Transaction:
        key = keys.block(block.value.network, block.value.cidr)
        after = codec.encode(replace(block.value, state=BlockState.ACTIVE))
        change = Changed("block.kept", key, codec.encode(block.value), after)
        return self._transaction([Unchanged(key, block.version)], [Put(key, after)], change)

    def _transaction(self, checks: list[Check], writes: list[Write], change: Changed) -> Transaction:
        return self._writer.transaction(checks, writes, Caller(self._actor, "", "blocks without endpoints"), change)

    async def _commit(self, transactions: list[Transaction]) -> None:
        """Who lost a race is looked at again in the next sweep."""
        if transactions:
            await self._writer.commit_many(transactions)


def _is_in_use(claim: AddressClaim, now: float) -> bool:
    """Reservations are the network's, not a host's: they keep no block."""
    if claim.kind is ClaimKind.TOMBSTONE:
        return (claim.until or 0.0) > now
    return claim.kind is ClaimKind.ENDPOINT


def _occupied(addresses: Mapping[Address, AddressClaim] | set[Address], blocks: Mapping[Cidr, object]) -> set[Cidr]:
    """Which of the blocks have one of the addresses in them. Blocks of a family are of few sizes."""
    sizes = {(cidr.version, cidr.max_prefixlen - cidr.prefixlen) for cidr in blocks}
    places = {(c.version, c.max_prefixlen - c.prefixlen, int(c.network_address)): c for c in blocks}
    found = set()
    for address in addresses:
        for version, bits in sizes:
            if version == address.version:
                cidr = places.get((version, bits, int(address) >> bits << bits))
                if cidr is not None:
                    found.add(cidr)
    return found
