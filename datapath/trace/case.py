"""What is traced: two endpoints, the flow between them, and what the cluster knows of their networks and hosts.

Plain data. Put together by whoever resolved the references; nothing here asks anybody.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_interface

from datapath.drivers.places import Place, in_block, place_of
from datapath.presence import are_peers
from kvnet.model import Address, Block, Driver, Endpoint, Host, Network, UplinkMode


@dataclass(frozen=True, slots=True)
class Flow:
    """`protocol`: icmp, tcp or udp. `port`: where it goes, 0 = any."""

    protocol: str = "icmp"
    port: int = 0


@dataclass(frozen=True, slots=True)
class End:
    """One end of the way. `address`: of the family that is traced."""

    endpoint: Endpoint
    network: Network
    address: Address

    @property
    def id(self) -> str:
        return self.endpoint.id

    @property
    def host(self) -> str:
        return self.endpoint.host

    def __str__(self) -> str:
        return f"{self.network.name}/{self.endpoint.name}"


@dataclass(frozen=True, slots=True)
class Standing:
    """What the cluster knows of a host. `record` None: it has none (any more). `last_seen`: in words."""

    record: Host | None
    is_alive: bool = True
    last_seen: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """`hosts`: every host's record. `standing`: of the two. `endpoints`: of the networks concerned, by network.

    `networks`: both, and their peers. `wanted`: by network, the version that a host has to have applied. `carried`: by
    host, the ids of networks with an endpoint there.
    """

    a: End
    b: End
    flow: Flow
    hosts: Mapping[str, Host]
    standing: Mapping[str, Standing]
    networks: Mapping[str, Network]
    endpoints: Mapping[str, Mapping[str, Endpoint]]
    blocks: Mapping[str, Collection[Block]] = field(default_factory=dict)
    wanted: Mapping[str, int] = field(default_factory=dict)
    carried: Mapping[str, Collection[str]] = field(default_factory=dict)

    @property
    def version(self) -> int:
        return self.a.address.version

    @property
    def own_networks(self) -> tuple[Network, ...]:
        return (self.a.network,) if self.a.network.id == self.b.network.id else (self.a.network, self.b.network)

    @property
    def own_hosts(self) -> tuple[str, ...]:
        return (self.a.host,) if self.a.host == self.b.host else (self.a.host, self.b.host)

    @property
    def is_itself(self) -> bool:
        return self.a.id == self.b.id and self.a.network.id == self.b.network.id

    def is_on_link(self, end: End, other: End) -> bool:
        """Whether a frame of one reaches the other without being routed by a host."""
        if end.network.id != other.network.id:
            return False
        if end.network.driver is not Driver.ROUTED:
            return True
        block = f"{end.address}/{self.place(end).prefix_length}"
        return end.host == other.host and other.address in ip_interface(block).network

    def place(self, end: End) -> Place:
        """What its address means there; in a routed network by the block that its host has."""
        blocks = self.blocks.get(end.network.id, ())
        own = next((b for b in blocks if b.host == end.host and end.address in b.cidr), None)
        return place_of(end.network, end.address) if own is None else in_block(end.network, own.cidr)

    def other_end(self, end: End) -> End:
        return self.b if end is self.a else self.a


def is_macvlan(network: Network) -> bool:
    return network.driver is Driver.TRANSPARENT and network.uplink_mode is UplinkMode.MACVLAN


def may_talk(one: Network, other: Network) -> bool:
    return one.id == other.id or are_peers(one, other)
