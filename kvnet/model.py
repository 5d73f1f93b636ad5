"""The nouns of kvnet: frozen, validated, plain data.

Every value that enters the store, the datapath or an answer is one of these. They know their own rules (a gateway
lies in its subnet) and nothing about the rest of the world (whether the subnet is free). Constructing an invalid one
raises `Invalid` with a JSON pointer; nothing here does I/O, reads a clock or draws a random number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Generic, TypeVar

from kvnet.addresses import lies_in
from kvnet.errors import Invalid
from kvnet.rules import (
    GATEWAY_PRIORITY,
    IDENTIFIER,
    INTERFACE_PREFIX,
    MAX_ALIASES,
    MAX_PORTS,
    MTU_MAX,
    MTU_MIN,
    NETWORK_ID,
    VNI_MAX,
    require_device,
    require_labels,
    require_mac,
    require_mtu,
    require_name,
    require_unicast,
    require_verbatim,
    shown,
)

Address = IPv4Address | IPv6Address
Cidr = IPv4Network | IPv6Network
T_co = TypeVar("T_co", covariant=True)


class Driver(StrEnum):
    """What a network means on a host."""

    OVERLAY = "overlay"
    BRIDGE = "bridge"
    ROUTED = "routed"
    TRANSPARENT = "transparent"


class UplinkMode(StrEnum):
    """How a transparent network's endpoints stand on the physical one."""

    MACVLAN = "macvlan"
    BRIDGE = "bridge"


class CrossSegment(StrEnum):
    """What a routed network does about a host that is behind a router."""

    REFUSE = "refuse"
    TUNNEL = "tunnel"


class BlockState(StrEnum):
    ACTIVE = "active"
    RELEASING = "releasing"  # no new endpoint gets an address of it; it goes when the last one is free


class NetworkState(StrEnum):
    NAMING = "naming"  # made through Docker, which tells its name only afterwards: takes no endpoints yet
    ACTIVE = "active"
    DELETING = "deleting"


class HostState(StrEnum):
    """A host that an operator removes takes no new endpoints; a worker that registers again makes it active again."""

    ACTIVE = "active"
    LEAVING = "leaving"  # goes if it carries nothing
    EVICTED = "evicted"  # goes with what it carries


@dataclass(frozen=True, slots=True)
class Versioned(Generic[T_co]):
    """A value and the store revision that wrote it: what ETag and If-Match carry."""

    value: T_co
    version: int


@dataclass(frozen=True, slots=True)
class Subnet:
    """One block of a network. `range` bounds automatic choice; `reserved` are named addresses never handed out."""

    cidr: Cidr
    gateway: Address | None = None
    range: Cidr | None = None
    reserved: Mapping[str, Address] = field(default_factory=dict)

    def __post_init__(self) -> None:
        smallest_host_bits = 2  # /31 and /32 (/127, /128) have no room for a gateway and an endpoint
        if self.cidr.prefixlen == 0:
            raise Invalid.field("/cidr", f"{self.cidr} is the whole internet", "choose a prefix length of 8 or more")
        if self.cidr.max_prefixlen - self.cidr.prefixlen < smallest_host_bits:
            raise Invalid.field(
                "/cidr",
                f"{self.cidr} has no room for a gateway and an endpoint",
                f"choose /{self.cidr.max_prefixlen - smallest_host_bits} or larger",
            )
        require_unicast(self.cidr, "/cidr")
        if self.gateway is not None:
            self._require_usable(self.gateway, "/gateway", "gateway")
        if self.range is not None and not lies_in(self.range, self.cidr):
            raise Invalid.field("/range", f"range {self.range} is not inside {self.cidr}")
        if self.range is not None and not self._has_room(self.range):
            raise Invalid.field(
                "/range",
                f"range {self.range} has no address that an endpoint could have",
                "it needs one beside the network address, the broadcast address and the gateway",
            )
        for name, address in self.reserved.items():
            require_name(name, "/reserved")
            self._require_usable(address, f"/reserved/{name}", f"reservation {name!r}")

    def _require_usable(self, address: Address, pointer: str, what: str) -> None:
        if address.version != self.cidr.version or address not in self.cidr:
            raise Invalid.field(pointer, f"{what} {address} is not inside {self.cidr}")
        if address == self.cidr.network_address:
            raise Invalid.field(pointer, f"{what} {address} is the network address of {self.cidr}")
        if self.cidr.version == 4 and address == self.cidr.broadcast_address:
            raise Invalid.field(pointer, f"{what} {address} is the broadcast address of {self.cidr}")

    def _has_room(self, block: Cidr) -> bool:
        fixed = {self.cidr.network_address, self.gateway}
        if self.cidr.version == 4:
            fixed.add(self.cidr.broadcast_address)
        return block.num_addresses > sum(address is not None and address in block for address in fixed)

    @property
    def size(self) -> int:
        """How many addresses endpoints could have: without network, broadcast (IPv4) and gateway."""
        return self.cidr.num_addresses - (2 if self.cidr.version == 4 else 1) - (self.gateway is not None)


@dataclass(frozen=True, slots=True)
class DockerFields:
    """What Docker keeps of a network that was made through it: every host's Docker shows the same, word for word.

    Else compose would want to make the network anew. `options` are its `-o`, also where they mean a field of the
    network; `egress` and `removal` are among them. `host`: where it was made. Their text is Docker's affair, only its
    size is not.
    """

    options: Mapping[str, str] = field(default_factory=dict)
    ipam_options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    attachable: bool = False
    ipv6: bool = False
    host: str = ""

    def __post_init__(self) -> None:
        require_verbatim({"options": self.options, "ipam_options": self.ipam_options, "labels": self.labels}, "/docker")
        if self.host:
            require_name(self.host, "/docker/host")


@lru_cache(maxsize=4096)
def gateway_mac(network_id: str) -> str:
    digest = hashlib.sha256(b"kvnet-gateway:" + network_id.encode()).digest()
    return ":".join(f"{b:02x}" for b in (0x02, 0x6B, *digest[:4]))


@dataclass(frozen=True, slots=True)
class Network:
    """The specification of a network. `id` is 12 hex digits, so that it fits into a device name with a prefix.

    Attributes:
        icc: whether its workloads may talk to each other. masquerade: whether they leave with their host's address.
        bridge_name: its bridge's name on every host ("" = kvnet's own). interface_prefix: of interfaces in workloads.
        host_binding: where ports are published that do not say so themselves.
        uplink, uplink_mode, shim: of a transparent network: the host's link that it is on, how, and whether the host
            itself gets a way to its workloads.
        block_prefix_length, block_prefix_length6, cross_segment: of a routed network: the size of a host's blocks, and
            what is done about hosts behind a router (a tunnel to them needs a `vni`).
        peers: ids of the networks that it may talk to; they list it too.
        docker: what only Docker knows of it; None where it was not made through Docker.
    """

    id: str
    name: str
    driver: Driver
    subnets: tuple[Subnet, ...]
    created_at: float
    vni: int | None = None
    mtu: int | None = None
    internal: bool = False
    flood: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    state: NetworkState = NetworkState.ACTIVE
    icc: bool = True
    masquerade: bool = True
    bridge_name: str = ""
    interface_prefix: str = ""
    host_binding: Address | None = None
    uplink: str = ""
    uplink_mode: UplinkMode = UplinkMode.MACVLAN
    shim: bool = False
    block_prefix_length: int | None = None
    block_prefix_length6: int | None = None
    cross_segment: CrossSegment = CrossSegment.REFUSE
    peers: tuple[str, ...] = ()
    docker: DockerFields | None = None
    owner: str = ""  # id of the token that made it

    def __post_init__(self) -> None:
        if not NETWORK_ID.match(self.id):
            raise Invalid.field("/id", f"{self.id!r} is not a network id", "12 lower-case hexadecimal digits")
        require_name(self.name, "/name")
        if not self.subnets:
            raise Invalid.field("/subnets", "a network needs at least one subnet")
        for i, a in enumerate(self.subnets):
            for j in range(i):
                if self.subnets[j].cidr.overlaps(a.cidr):
                    other = self.subnets[j].cidr
                    raise Invalid.field(f"/subnets/{i}", f"{a.cidr} overlaps {other} of the same network")
        require_mtu(self.mtu, has_ipv6=any(s.cidr.version == 6 for s in self.subnets))
        if self.vni is not None and not 1 <= self.vni <= VNI_MAX:
            raise Invalid.field("/vni", f"{self.vni} is not a VNI", f"1 to {VNI_MAX}")
        require_labels(self.options, "/options")
        require_labels(self.labels, "/labels")
        if self.bridge_name:
            require_device(self.bridge_name, "/bridge_name")
        if self.uplink:
            require_device(self.uplink, "/uplink")
        if self.interface_prefix and not INTERFACE_PREFIX.match(self.interface_prefix):
            fix = "a lower-case letter, then letters, digits, '_' or '-'; at most 12"
            raise Invalid.field("/interface_prefix", f"{shown(self.interface_prefix)} is not an interface prefix", fix)

    @property
    def gateway_mac(self) -> str:
        """The anycast gateway's MAC, locally administered: the same on every host, so a leaked frame harms nobody."""
        return gateway_mac(self.id)

    @property
    def claimed_links(self) -> tuple[str, ...]:
        """Links that no other network may use: a bridge that it names, an uplink that it puts into a bridge."""
        is_bridged = self.driver is Driver.TRANSPARENT and self.uplink_mode is UplinkMode.BRIDGE
        return tuple(device for device in (self.bridge_name, self.uplink if is_bridged else "") if device)

    @property
    def has_ipv6(self) -> bool:
        return any(s.cidr.version == 6 for s in self.subnets)

    def subnet_of(self, address: Address) -> Subnet | None:
        return next((s for s in self.subnets if s.cidr.version == address.version and address in s.cidr), None)


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """A port of a workload that its host has. In the store `host_port` is always given; `host_address` None = all."""

    port: int
    protocol: str = "tcp"
    host_port: int | None = None
    host_address: Address | None = None

    def __post_init__(self) -> None:
        if self.protocol not in ("tcp", "udp"):
            raise Invalid.field("/protocol", f"{self.protocol!r} is not a protocol", "tcp or udp")
        for name, value in (("port", self.port), ("host_port", self.host_port)):
            if value is not None and not 1 <= value <= 65535:
                raise Invalid.field(f"/{name}", f"{value} is not a port", "1 to 65535")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One interface of one workload on one network. `network` is the network's id; at most one address per family."""

    id: str
    network: str
    host: str
    name: str
    addresses: tuple[Address, ...]
    mac: str
    created_at: float
    hostname: str = ""
    aliases: tuple[str, ...] = ()
    ports: tuple[PublishedPort, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    gateway_priority: int = 0  # of a workload's networks the highest is its way out
    owner: str = ""  # id of the token that made it

    def __post_init__(self) -> None:
        if not IDENTIFIER.match(self.id):
            raise Invalid.field("/id", f"{shown(self.id)} is not an id", "letters, digits, '.', '_', '-'; at most 64")
        require_name(self.host, "/host")
        require_name(self.name, "/name")
        if self.hostname:
            require_name(self.hostname, "/hostname")
        if len(self.aliases) > MAX_ALIASES:
            raise Invalid.field("/aliases", f"{len(self.aliases)} aliases; at most {MAX_ALIASES}")
        for alias in self.aliases:
            require_name(alias, "/aliases")
        require_mac(self.mac)
        require_labels(self.labels, "/labels")
        if len(self.ports) > MAX_PORTS:
            raise Invalid.field("/ports", f"{len(self.ports)} published ports; at most {MAX_PORTS}")
        if abs(self.gateway_priority) > GATEWAY_PRIORITY:
            fix = f"-{GATEWAY_PRIORITY} to {GATEWAY_PRIORITY}"
            raise Invalid.field("/gateway_priority", f"{self.gateway_priority} is out of range", fix)

    @property
    def address(self) -> IPv4Address | None:
        return next((a for a in self.addresses if isinstance(a, IPv4Address)), None)

    @property
    def address6(self) -> IPv6Address | None:
        return next((a for a in self.addresses if isinstance(a, IPv6Address)), None)


@dataclass(frozen=True, slots=True)
class Block:
    """A host's part of a routed network's range, under `blocks/<network>/<cidr>`. Blocks of a family are of one size.

    Its first address is the host's gateway in it; that one, the first and (IPv4) the last are nobody else's.
    """

    network: str
    cidr: Cidr
    host: str
    since: float
    state: BlockState = BlockState.ACTIVE

    @property
    def gateway(self) -> Address:
        return self.cidr.network_address + 1


@dataclass(frozen=True, slots=True)
class Pool:
    """A block that automatic subnets are cut from, each `prefix_length` long; `reserved` parts are never used."""

    name: str
    cidr: Cidr
    prefix_length: int
    reserved: tuple[Cidr, ...] = ()

    def __post_init__(self) -> None:
        require_name(self.name, "/name")
        if self.cidr.prefixlen > self.cidr.max_prefixlen - 2:
            raise Invalid.field(
                "/cidr", f"no subnet can be cut from {self.cidr}", f"choose /{self.cidr.max_prefixlen - 2} or larger"
            )
        if not self.cidr.prefixlen <= self.prefix_length <= self.cidr.max_prefixlen - 2:
            raise Invalid.field(
                "/prefix_length",
                f"subnets of /{self.prefix_length} cannot be cut from {self.cidr}",
                f"{self.cidr.prefixlen} to {self.cidr.max_prefixlen - 2}",
            )
        for i, part in enumerate(self.reserved):
            if not lies_in(part, self.cidr):
                raise Invalid.field(f"/reserved/{i}", f"{part} is not inside {self.cidr}")


@dataclass(frozen=True, slots=True)
class Host:
    """What peers need to know of a host. Changes rarely: every worker watches every one of these.

    `segment`: the block of its underlay that is on the link; a peer whose underlay address is in it needs no router.
    """

    name: str
    underlay: Address
    mtu: int
    abilities: tuple[str, ...] = ()
    state: HostState = HostState.ACTIVE
    segment: Cidr | None = None

    def __post_init__(self) -> None:
        require_name(self.name, "/name")
        if not MTU_MIN <= self.mtu <= MTU_MAX:
            raise Invalid.field("/mtu", f"{self.mtu} is not an MTU", f"{MTU_MIN} to {MTU_MAX}")


@dataclass(frozen=True, slots=True)
class UsedRange:
    """A range that a host uses already. `source` says how: "route dev eth0", "address dev eth0", "resolver"."""

    cidr: Cidr
    source: str


@dataclass(frozen=True, slots=True)
class Inventory:
    """What the controller needs to know of a host: ranges in use there, and what runs there."""

    host: str
    used: tuple[UsedRange, ...] = ()
    kernel: str = ""
    version: str = ""
    boot_id: str = ""


@dataclass(frozen=True, slots=True)
class Alive:
    """Bound to the worker's session: there as long as the worker is. `incarnation` is new at every start.

    `schema`: the newest that it reads and writes.
    """

    host: str
    incarnation: str
    since: float
    schema: int = 1


@dataclass(frozen=True, slots=True)
class Reclaim:
    """The mark on a host that is down, under `reclaims/<host>`: the evidence by which its endpoints may be released.

    Attributes:
        incarnation: the run of the worker that was seen last; "" if the marking controller never saw one.
        last_seen: when that was; None if it is not known.
        absent_since: when a controller began to see the host absent, by its wall clock.
        absent_s: how long they had seen it absent without a gap when this was written, by clocks that nobody sets.
        by: the controller that wrote this, at the store's `revision`.
    """

    host: str
    incarnation: str
    last_seen: float | None
    absent_since: float
    absent_s: float
    by: str
    revision: int


@dataclass(frozen=True, slots=True)
class Condition:
    """Something about a network on a host that an operator should know. `code` as in errors."""

    code: str
    detail: str
    since: float


@dataclass(frozen=True, slots=True)
class NetworkObserved:
    """`version`: every change of this network up to this store revision is in the host's kernel, `since` then.

    `since` is 0 if that is not known. It is no reason for a report: two that differ in nothing else are equal.
    `attached`, `unattached`: which endpoints of the host have an interface, told by those that are few; None: not told.
    """

    version: int
    conditions: tuple[Condition, ...] = ()
    since: float = field(default=0.0, compare=False)
    attached: tuple[str, ...] | None = None
    unattached: tuple[str, ...] | None = None

    def has_interface(self, endpoint: str) -> bool | None:
        """None: it was not told."""
        if self.unattached is not None:
            return endpoint not in self.unattached
        return None if self.attached is None else endpoint in self.attached


@dataclass(frozen=True, slots=True)
class Observed:
    host: str
    at: float
    networks: Mapping[str, NetworkObserved] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JournalChange:
    """One object's change: its key, and its JSON before and after (None: was not, is no more)."""

    kind: str  # "network.created", "endpoint.deleted" ...
    key: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """What one member of a committed batch did, and who asked."""

    at: float
    actor: str
    request_id: str
    source: str
    changes: tuple[JournalChange, ...]
    claimed: str = ""  # who an authenticated caller says that it asks for
