"""Which networks may talk to each other: both list the other, written in one commit that checks both.

Only networks whose traffic kvnet routes can be peered; an internal one has no way out, a transparent one is the
physical network's. Never lists one side only: what removes a network removes it from its peers (`removal`).
"""

from __future__ import annotations

from dataclasses import replace

from backends.store import Check, Conflict, Put, Unchanged, Unknown, Write
from controller.journal import Changed
from controller.network_rules import no_network, require_active
from controller.networks import Networks
from controller.outcomes import store_errors_told
from controller.requests import Caller
from controller.state import State
from controller.writer import Writer
from kvnet import codec, keys
from kvnet.errors import Conflicting, Invalid
from kvnet.model import Driver, Network, Versioned

MAX_PEERS = 64
Pair = tuple[Versioned[Network], Versioned[Network]]


class Peering:
    def __init__(self, state: State, writer: Writer, networks: Networks) -> None:
        self._state = state
        self._writer = writer
        self._networks = networks

    async def peer(self, one: str, other: str, caller: Caller) -> tuple[Versioned[Network], bool]:
        """Let two networks talk; the first of them, and whether that is new.

        Raises:
            NotFound
            Invalid: they are the same network, or one can have no peers; says why.
            NetworkDeleting, TooMuchContention, StoreUnavailable, OutcomeUnknown, StoreBroken
        """
        return await self._write(one, other, caller, is_to_be=True)

    async def unpeer(self, one: str, other: str, caller: Caller) -> None:
        """They are apart again; no error if they were.

        Raises:
            NotFound, TooMuchContention, StoreUnavailable, OutcomeUnknown, StoreBroken
        """
        await self._write(one, other, caller, is_to_be=False)

    async def _write(self, one: str, other: str, caller: Caller, *, is_to_be: bool) -> tuple[Versioned[Network], bool]:
        with store_errors_told():
            ids = [(await self._networks.fresh(name)).value.id for name in (one, other)]
            turns = self._writer.turns(f"the peering of {one!r} and {other!r} could not be changed")
            while True:
                await turns.next()
                pair = await self._stored(ids[0]), await self._stored(ids[1])
                if is_to_be:
                    _require_fitting(pair)
                after = [_with_peer(a.value, b.value.id, is_to_be) for a, b in (pair, pair[::-1])]
                if after == [pair[0].value, pair[1].value]:
                    return pair[0], False
                try:
                    revision = await self._commit(pair, after, caller, "peered" if is_to_be else "unpeered")
                except (Conflict, Unknown) as error:
                    turns.failed(error)
                    continue
                await self._state.reached(revision, self._state.networks)
                return Versioned(after[0], revision), True

    async def _stored(self, network_id: str) -> Versioned[Network]:
        found = await self._networks.find(network_id)
        if found is None:
            raise no_network(network_id)
        return found

    async def _commit(self, pair: Pair, after: list[Network], caller: Caller, what: str) -> int:
        checks: list[Check] = []
        writes: list[Write] = []
        changes = []
        for before, network in zip(pair, after, strict=True):
            key, data = keys.network(network.id), codec.encode(network)
            checks.append(Unchanged(key, before.version))
            writes.append(Put(key, data))
            changes.append(Changed(f"network.{what}", key, codec.encode(before.value), data))
        return await self._writer.commit(checks, writes, caller, *changes)


def _with_peer(network: Network, peer: str, is_to_be: bool) -> Network:
    others = tuple(one for one in network.peers if one != peer)
    if is_to_be and len(others) == len(network.peers):
        return replace(network, peers=(*network.peers, peer))
    return network if is_to_be else replace(network, peers=others)


def _require_fitting(pair: Pair) -> None:
    one, other = pair[0].value, pair[1].value
    if one.id == other.id:
        raise Invalid.field("/path/peer", f"network {one.name!r} cannot be its own peer", "name another network")
    for pointer, network in (("/path/network", one), ("/path/peer", other)):
        require_active(network)
        if network.internal:
            detail = f"network {network.name!r} is internal: nothing comes in or out"
            raise Invalid.field(pointer, detail, "peer networks that are not internal")
        if network.driver is Driver.TRANSPARENT:
            detail = f"network {network.name!r} is transparent: the physical network routes it, not kvnet"
            raise Invalid.field(pointer, detail, "reach it through the physical network's gateway")
    for network, peer in ((one, other), (other, one)):
        if len(network.peers) >= MAX_PEERS and peer.id not in network.peers:
            raise Conflicting(
                f"network {network.name!r} has {len(network.peers)} peers, the most that a network can have",
                fix="unpeer another one first",
            )
