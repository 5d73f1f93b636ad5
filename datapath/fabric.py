"""Hosts joined in memory, and the question that counts: does this packet arrive, and through what?

The hosts' underlay may have several segments with a router between them, which knows no network of ours. Physical
networks ("LANs") join the hosts' uplinks and have machines of their own. How a packet is followed is in `fake_walk`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from datapath import fake_walk
from datapath.fake_rules import Lost, Packet
from datapath.fake_tables import Tables
from datapath.objects import Ip

if TYPE_CHECKING:
    from datapath.fake_walk import Walk

OUTSIDE = {4: b"\xcb\x00\x71\x0a", 16: b"\x20\x01\x0d\xb8" + bytes(11) + b"\x0a"}  # somebody out there
TCP, UDP = 6, 17


class Joined(Protocol):
    """A host as far as the fabric needs to know it."""

    name: str
    segment: str
    tables: Tables

    @property
    def underlay(self) -> tuple[Ip, ...]: ...


@dataclass(frozen=True, slots=True)
class Path:
    """It arrives. `at`: "host/netns", "host", "outside", or "lan/machine".

    flooded: frames went to more than they were for. source, port: whom the receiver sees, and where it came in.
    """

    at: str
    hops: tuple[str, ...]
    flooded: bool = False
    source: Ip = field(default=b"", compare=False)
    port: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Drop:
    """It is lost at the last of `hops`."""

    reason: str
    hop: str
    hops: tuple[str, ...] = ()


@dataclass(slots=True)
class FakeFabric:
    """`cuts`: pairs of host names between which nothing passes. `machines`: by LAN, address -> name."""

    hosts: dict[str, Joined] = field(default_factory=dict)
    cuts: set[frozenset[str]] = field(default_factory=set)
    machines: dict[str, dict[Ip, str]] = field(default_factory=dict)

    def join(self, host: Joined) -> None:
        self.hosts[host.name] = host

    def reaches(self, host: str, netns: str, destination: Ip, *, port: int = 0, protocol: int = TCP) -> Path | Drop:
        """Where a packet to `destination` ends that the workload in `netns` on `host` sends."""
        packet = Packet(destination, port=port, protocol=protocol)
        return self._follow(packet, lambda walk: walk.from_namespace(self.hosts[host], netns))

    def from_host(self, host: str, destination: Ip, *, port: int = 0, protocol: int = TCP) -> Path | Drop:
        """The same for a program of the host's own."""
        packet = Packet(destination, port=port, protocol=protocol, is_own=True)
        return self._follow(packet, lambda walk: walk.from_host(self.hosts[host]))

    def from_outside(self, destination: Ip, *, port: int = 0, protocol: int = TCP, via: str = "") -> Path | Drop:
        """The same for somebody behind the router. `via`: a host to which the packet is led, though it is not its."""
        packet = Packet(destination, OUTSIDE[len(destination)], port, protocol)
        return self._follow(packet, lambda walk: walk.from_outside(self.hosts.get(via)))

    def from_lan(self, lan: str, destination: Ip, *, port: int = 0, protocol: int = TCP) -> Path | Drop:
        """The same for a machine of a physical network."""
        return self._follow(Packet(destination, port=port, protocol=protocol), lambda walk: walk.from_lan(lan))

    def owner_of(self, underlay: Ip) -> Joined | None:
        return next((host for host in self.hosts.values() if underlay in host.underlay), None)

    def are_cut(self, one: Joined, other: Joined) -> bool:
        return frozenset((one.name, other.name)) in self.cuts

    def _follow(self, packet: Packet, start: Callable[[Walk], str]) -> Path | Drop:
        walk = fake_walk.Walk(self, packet)
        try:
            at = start(walk)
        except Lost as lost:
            return Drop(str(lost), walk.hops[-1] if walk.hops else "", tuple(walk.hops))
        return Path(at, tuple(walk.hops), walk.flooded, packet.source, packet.port)
