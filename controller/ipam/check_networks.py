"""I1, I3 and the index keys of I6: subnets do not overlap, and index keys and networks agree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from backends.store import Absent, Delete, Put, Unchanged
from controller.ipam.blocks import Blocks
from controller.ipam.dump import Dump
from controller.ipam.findings import Finding, Invariant, Repair
from kvnet import codec, keys
from kvnet.claims import SubnetClaim
from kvnet.model import Cidr

OVERDUE_S = 120.0


def overlaps(dump: Dump) -> Iterator[Finding]:
    blocks: dict[int, Blocks[tuple[str, Cidr]]] = {4: Blocks(32), 6: Blocks(128)}
    for network_id, network in dump.networks.items():
        for subnet in network.value.subnets:
            for other_id, other in blocks[subnet.cidr.version].overlapping(subnet.cidr):
                names = f"{network.value.name} ({network_id}) and {dump.networks[other_id].value.name} ({other_id})"
                yield Finding(
                    Invariant.NO_OVERLAP,
                    f"{subnet.cidr} and {other} of networks {names} overlap",
                    (keys.network(network_id), keys.network(other_id)),
                    "move the endpoints of one of them to a new network and delete it",
                )
            blocks[subnet.cidr.version].add(subnet.cidr, (network_id, subnet.cidr))


def holds(dump: Dump, now: float) -> Iterator[Finding]:
    """A hold that is over goes within two minutes: upkeep waits its whole time again after a change of leader."""
    for cidr, claim in dump.subnets.items():
        hold, key = claim.value.hold, keys.subnet(cidr)
        if hold is not None and hold.until + OVERDUE_S < now:
            yield Finding(
                Invariant.NOTHING_OUTLIVES_ITS_NETWORK,
                f"{cidr} is held for a network of host {hold.host}, which was given up {int(now - hold.until)} s ago",
                (key,),
                "remove the hold",
                Repair((Unchanged(key, claim.version),), (Delete(key),)),
            )


@dataclass(frozen=True, slots=True)
class _Index:
    """One kind of key that points to a network: what it is called, what is there, and what should be."""

    what: str
    there: dict[str, tuple[str, int]]  # key: (network id, version)
    wanted: dict[str, list[str]]  # key: the networks that say it is theirs
    values: dict[str, bytes]


def indexes(dump: Dump) -> Iterator[Finding]:
    for index in (_names(dump), _vnis(dump), _subnets(dump), _bridges(dump)):
        for key, owners in index.wanted.items():
            yield from _missing_or_contested(dump, index, key, owners)
        for key, (owner, version) in index.there.items():
            if owner not in index.wanted.get(key, ()):
                yield _dangling(dump, index, key, owner, version)


def _missing_or_contested(dump: Dump, index: _Index, key: str, owners: list[str]) -> Iterator[Finding]:
    if len(owners) > 1:
        yield Finding(
            Invariant.ONE_OWNER_OF_A_NAME,
            f"{index.what} {_shown(key)} belongs to networks {' and '.join(owners)}",
            (key, *map(keys.network, owners)),
            "delete one of these networks",
        )
    elif key not in index.there and key not in dump.unreadable:
        version = dump.networks[owners[0]].version
        yield Finding(
            Invariant.ONE_OWNER_OF_A_NAME,
            f"{index.what} {_shown(key)} of network {owners[0]} is not claimed by its key",
            (key, keys.network(owners[0])),
            "claim it for the network",
            Repair((Absent(key), Unchanged(keys.network(owners[0]), version)), (Put(key, index.values[key]),)),
        )


def _dangling(dump: Dump, index: _Index, key: str, owner: str, version: int) -> Finding:
    network = dump.networks.get(owner)
    is_known = network is not None or keys.network(owner) in dump.unreadable
    if not is_known:
        return Finding(
            Invariant.NOTHING_OUTLIVES_ITS_NETWORK,
            f"{index.what} {_shown(key)} is claimed for network {owner}, which does not exist",
            (key,),
            "remove the claim",
            Repair((Unchanged(key, version), Absent(keys.network(owner))), (Delete(key),)),
        )
    return Finding(
        Invariant.ONE_OWNER_OF_A_NAME,
        f"{index.what} {_shown(key)} is claimed for network {owner}, which has another",
        (key, keys.network(owner)),
        "remove the claim" if network else "see what is said about the network",
        Repair((Unchanged(key, version), Unchanged(keys.network(owner), network.version)), (Delete(key),))
        if network
        else None,
    )


def _shown(key: str) -> str:
    """What a key stands for, as people write it."""
    return str(keys.parse_subnet(key)) if key.startswith(keys.SUBNETS) else key.split("/", 1)[1]


def _names(dump: Dump) -> _Index:
    wanted: dict[str, list[str]] = defaultdict(list)
    for network_id, network in dump.networks.items():
        wanted[keys.name(network.value.name)].append(network_id)
    there = {keys.name(name): (owner.value, owner.version) for name, owner in dump.names.items()}
    return _Index("name", there, wanted, {key: owners[0].encode() for key, owners in wanted.items()})


def _vnis(dump: Dump) -> _Index:
    wanted: dict[str, list[str]] = defaultdict(list)
    for network_id, network in dump.networks.items():
        if network.value.vni is not None:
            wanted[keys.vni(network.value.vni)].append(network_id)
    there = {keys.vni(vni): (owner.value, owner.version) for vni, owner in dump.vnis.items()}
    return _Index("VNI", there, wanted, {key: owners[0].encode() for key, owners in wanted.items()})


def _bridges(dump: Dump) -> _Index:
    wanted: dict[str, list[str]] = defaultdict(list)
    for network_id, network in dump.networks.items():
        for device in network.value.claimed_links:
            wanted[keys.bridge(device)].append(network_id)
    there = {keys.bridge(device): (owner.value, owner.version) for device, owner in dump.bridges.items()}
    return _Index("bridge name", there, wanted, {key: owners[0].encode() for key, owners in wanted.items()})


def _subnets(dump: Dump) -> _Index:
    wanted: dict[str, list[str]] = defaultdict(list)
    for network_id, network in dump.networks.items():
        for subnet in network.value.subnets:
            wanted[keys.subnet(subnet.cidr)].append(network_id)
    there = {
        keys.subnet(cidr): (claim.value.network, claim.version)
        for cidr, claim in dump.subnets.items()
        if claim.value.hold is None or keys.subnet(cidr) in wanted
    }
    return _Index(
        "subnet", there, wanted, {key: codec.encode(SubnetClaim(owners[0])) for key, owners in wanted.items()}
    )
