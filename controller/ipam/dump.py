"""Everything in the store, decoded for the check of the invariants; what cannot be read is kept apart.

Pure: takes the entries of one listing of the whole root. Keys of prefixes that this kvnet does not know are passed
over: a newer one may have written them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from backends.store import Entry
from kvnet import codec, keys, places, sentinel
from kvnet.claims import AddressClaim, HeldPorts, SubnetClaim
from kvnet.errors import KvnetError
from kvnet.marks import Cluster
from kvnet.model import Alive, Block, Cidr, Endpoint, Host, Inventory, Network, Observed, Pool, Reclaim, Versioned


@dataclass(slots=True)
class Dump:
    """Decoded entries by their place. `names`, `vnis`, `bridges` and `local` hold the id of a network.

    `unreadable`: why, by key; `damaged` has the same keys, with what is there.
    """

    has_sentinel: bool = False
    networks: dict[str, Versioned[Network]] = field(default_factory=dict)
    endpoints: dict[keys.EndpointKey, Versioned[Endpoint]] = field(default_factory=dict)
    addresses: dict[keys.AddressKey, Versioned[AddressClaim]] = field(default_factory=dict)
    subnets: dict[Cidr, Versioned[SubnetClaim]] = field(default_factory=dict)
    names: dict[str, Versioned[str]] = field(default_factory=dict)
    vnis: dict[int, Versioned[str]] = field(default_factory=dict)
    local: dict[keys.LocalKey, Versioned[str]] = field(default_factory=dict)
    hosts: dict[str, Versioned[Host]] = field(default_factory=dict)
    blocks: dict[keys.BlockKey, Versioned[Block]] = field(default_factory=dict)
    ports: dict[keys.PortsKey, Versioned[HeldPorts]] = field(default_factory=dict)
    bridges: dict[str, Versioned[str]] = field(default_factory=dict)
    others: dict[str, Versioned[Any]] = field(default_factory=dict)
    journal: list[Entry] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    damaged: dict[str, Entry] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        return not (self.networks or self.endpoints or self.addresses or self.subnets or self.names or self.local)


def read(entries: Iterable[Entry]) -> Dump:
    """Never raises: what cannot be decoded is in `unreadable`, with the reason."""
    dump = Dump()
    readers = _readers(dump)
    for entry in entries:
        prefix = entry.key[: entry.key.find("/") + 1]
        reader = readers.get(prefix)
        if reader is None:
            continue
        try:
            reader(entry)
        except (KvnetError, ValueError) as error:
            dump.unreadable[entry.key] = str(error)
            dump.damaged[entry.key] = entry
    return dump


def _readers(dump: Dump) -> dict[str, Callable[[Entry], None]]:
    def models(place: dict[Any, Any], parse: Callable[[str], Any], model: type[Any]) -> Callable[[Entry], None]:
        def reader(entry: Entry) -> None:
            value = codec.decode(model, entry.value)
            if model is not Endpoint:  # one under another's key is a finding of its own
                places.require_place(entry.key, value)
            place[parse(entry.key)] = Versioned(value, entry.version)

        return reader

    def ids(place: dict[Any, Any], parse: Callable[[str], Any]) -> Callable[[Entry], None]:
        def reader(entry: Entry) -> None:
            place[parse(entry.key)] = Versioned(entry.value.decode("ascii"), entry.version)

        return reader

    def meta(entry: Entry) -> None:
        found = sentinel.decode(entry.value)
        places.require_place(entry.key, found)
        if entry.key == keys.CLUSTER:
            dump.has_sentinel = isinstance(found, Cluster)

    return {
        keys.META: meta,
        keys.NETWORKS: models(dump.networks, _last, Network),
        keys.ENDPOINTS: models(dump.endpoints, keys.parse_endpoint, Endpoint),
        keys.ADDRESSES: models(dump.addresses, keys.parse_address, AddressClaim),
        keys.SUBNETS: models(dump.subnets, keys.parse_subnet, SubnetClaim),
        keys.HOSTS: models(dump.hosts, _last, Host),
        keys.POOLS: models(dump.others, str, Pool),
        keys.INVENTORY: models(dump.others, str, Inventory),
        keys.ALIVE: models(dump.others, str, Alive),
        keys.OBSERVED: models(dump.others, str, Observed),
        keys.RECLAIMS: models(dump.others, str, Reclaim),
        keys.NAMES: ids(dump.names, _last),
        keys.VNIS: ids(dump.vnis, lambda key: int(_last(key))),
        keys.BLOCKS: models(dump.blocks, keys.parse_block, Block),
        keys.PORTS: models(dump.ports, keys.parse_ports, HeldPorts),
        keys.BRIDGES: ids(dump.bridges, _last),
        keys.LOCAL: ids(dump.local, keys.parse_local),
        keys.JOURNAL: dump.journal.append,
    }


def _last(key: str) -> str:
    return key.split("/", 1)[1]
