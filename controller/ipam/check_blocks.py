"""I1, I4 and I6 for routed networks: blocks do not overlap, belong to somebody, hold the addresses of their host."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from backends.store import Absent, Check, Delete, Put, Unchanged
from controller.ipam.blocks import Blocks
from controller.ipam.dump import Dump
from controller.ipam.findings import Finding, Invariant, Repair
from controller.ipam.grid import Grid
from kvnet import codec, keys
from kvnet.model import Address, Block, Cidr, Driver, Endpoint, Versioned


def blocks(dump: Dump) -> Iterator[Finding]:
    places = _Places(dump)
    yield from places.overlaps()
    for place, block in dump.blocks.items():
        yield from _its_owner(dump, place, block, places.inhabitants[place])
    yield from _homeless(dump, places)


class _Places:
    """The blocks of each network, by what contains an address."""

    def __init__(self, dump: Dump) -> None:
        self.inhabitants: dict[keys.BlockKey, list[Endpoint]] = defaultdict(list)
        self._dump = dump
        self._lengths: dict[str, set[tuple[int, int]]] = defaultdict(set)
        for network, cidr in dump.blocks:
            self._lengths[network].add((cidr.version, cidr.max_prefixlen - cidr.prefixlen))
        self._at = {(n, c.version, c.max_prefixlen - c.prefixlen, int(c.network_address)): c for n, c in dump.blocks}
        for where, endpoint in dump.endpoints.items():
            for address in endpoint.value.addresses:
                place = self.of(where.network, address)
                if place is not None:
                    self.inhabitants[place].append(endpoint.value)

    def of(self, network: str, address: Address) -> keys.BlockKey | None:
        for version, bits in self._lengths.get(network, ()):
            if version == address.version:
                cidr = self._at.get((network, version, bits, int(address) >> bits << bits))
                if cidr is not None:
                    return keys.BlockKey(network, cidr)
        return None

    def overlaps(self) -> Iterator[Finding]:
        seen: dict[str, dict[int, Blocks[Cidr]]] = {}
        for network, cidr in self._dump.blocks:
            known = seen.setdefault(network, {4: Blocks(32), 6: Blocks(128)})[cidr.version]
            for other in known.overlapping(cidr):
                pair = [self._dump.blocks[keys.BlockKey(network, c)].value for c in (cidr, other)]
                yield Finding(
                    Invariant.NO_OVERLAP,
                    f"blocks {cidr} of host {pair[0].host} and {other} of host {pair[1].host} "
                    f"of network {network} overlap",
                    (keys.block(network, cidr), keys.block(network, other)),
                    "detach the endpoints in one of them; it is given back when it is empty",
                )
            known.add(cidr, cidr)


def _its_owner(
    dump: Dump, place: keys.BlockKey, block: Versioned[Block], inhabitants: list[Endpoint]
) -> Iterator[Finding]:
    key, one = keys.block(*place), block.value
    if (one.network, one.cidr) != place:
        yield Finding(
            Invariant.ENDPOINTS_AND_ADDRESSES_AGREE,
            f"{key} holds block {one.cidr} of network {one.network}",
            (key,),
            "restore this key from a backup",
        )
        return
    network_key = keys.network(place.network)
    if place.network not in dump.networks and network_key not in dump.unreadable:
        yield Finding(
            Invariant.NOTHING_OUTLIVES_ITS_NETWORK,
            f"block {place.cidr} of host {one.host} belongs to network {place.network}, which does not exist",
            (key,),
            "remove it",
            Repair((Unchanged(key, block.version), Absent(network_key)), (Delete(key),)),
        )
        return
    yield from _of_its_host(dump, place, block, inhabitants)


def _of_its_host(
    dump: Dump, place: keys.BlockKey, block: Versioned[Block], inhabitants: list[Endpoint]
) -> Iterator[Finding]:
    key, one = keys.block(*place), block.value
    host_key = keys.host(one.host)
    if one.host not in dump.hosts and host_key not in dump.unreadable:
        own = [e for e in inhabitants if e.host == one.host]
        yield Finding(
            Invariant.ENDPOINTS_AND_ADDRESSES_AGREE,
            f"block {place.cidr} of network {place.network} belongs to host {one.host}, which does not exist",
            (key,),
            f"start 'kvnet worker' on {one.host} again, or remove its endpoints" if own else "give it back",
            None if own else Repair((Unchanged(key, block.version), Absent(host_key)), (Delete(key),)),
        )
    for endpoint in inhabitants:
        if endpoint.host != one.host:
            yield Finding(
                Invariant.ENDPOINTS_AND_ADDRESSES_AGREE,
                f"endpoint {endpoint.name} ({endpoint.id}) on host {endpoint.host} has an address of block "
                f"{place.cidr}, which is host {one.host}'s",
                (keys.endpoint(endpoint.network, endpoint.id), key),
                "detach it and attach it again: it gets an address of its own host's block",
            )


def _homeless(dump: Dump, places: _Places) -> Iterator[Finding]:
    """Addresses of endpoints of routed networks that are in no block at all: no route leads to them."""
    routed = {n for n, network in dump.networks.items() if network.value.driver is Driver.ROUTED}
    missing: dict[keys.BlockKey, list[tuple[Versioned[Endpoint], Address]]] = defaultdict(list)
    for where, endpoint in dump.endpoints.items():
        if where.network not in routed:
            continue
        for address in endpoint.value.addresses:
            if places.of(where.network, address) is None:
                cidr = _grid_block(dump, where.network, address)
                if cidr is not None and keys.block(where.network, cidr) not in dump.unreadable:
                    missing[keys.BlockKey(where.network, cidr)].append((endpoint, address))
    for place, found in missing.items():
        yield _unclaimed(dump, place, found)


def _unclaimed(dump: Dump, place: keys.BlockKey, found: list[tuple[Versioned[Endpoint], Address]]) -> Finding:
    key, hosts = keys.block(*place), {endpoint.value.host for endpoint, _ in found}
    endpoint, address = found[0]
    one = endpoint.value
    is_safe = len(hosts) == 1 and not any(n == place.network and c.overlaps(place.cidr) for n, c in dump.blocks)
    owner = Block(place.network, place.cidr, one.host, one.created_at)
    seen: tuple[Check, ...] = (Absent(key), Unchanged(keys.endpoint(one.network, one.id), endpoint.version))
    return Finding(
        Invariant.ENDPOINTS_AND_ADDRESSES_AGREE,
        f"endpoint {one.name} ({one.id}) on host {one.host} has {address} of block {place.cidr}, which no host has",
        (key, keys.endpoint(one.network, one.id)),
        "claim the block for the host" if is_safe else "detach the endpoints that are in it and attach them again",
        Repair(seen, (Put(key, codec.encode(owner)),)) if is_safe else None,
    )


def _grid_block(dump: Dump, network_id: str, address: Address) -> Cidr | None:
    network = dump.networks[network_id].value
    subnet = network.subnet_of(address)
    return None if subnet is None else Grid(network, subnet).around(address)
