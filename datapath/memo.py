"""What a bridge holds for each endpoint, remembered between calls: one change must not cost a whole network again.

An optimisation only. What is remembered counts for the very same endpoint object behind the very same port, so a memo
can never make a result wrong, and none at all gives the same. Objects that come from it are the same ones as last
time, which is also what makes comparing two states fast. Keep one per host and use it from one thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import NamedTuple

from datapath.objects import Ip, Mac, Neighbour, PortEntry, VtepEntry
from datapath.packing import link_local, packed_mac
from kvnet.model import Endpoint, Host


class EndpointEntries(NamedTuple):
    """`vtep` only for an endpoint on another host."""

    endpoint: Endpoint
    port: PortEntry
    neighbours: tuple[Neighbour, ...]
    vtep: VtepEntry | None


@dataclass(slots=True)
class NetworkMemo:
    """The endpoints of one network. `device` is its bridge."""

    device: str
    has_ipv6: bool
    known: dict[str, EndpointEntries] = field(default_factory=dict)
    _remotes: dict[str, tuple[Host, Ip]] = field(default_factory=dict)

    def remotes(self, peers: Mapping[str, Host]) -> dict[str, Ip]:
        """Where the tunnels to these hosts end."""
        known = self._remotes
        for name, peer in peers.items():
            there = known.get(name)
            if there is None or there[0] is not peer:
                known[name] = peer, peer.underlay.packed
        if len(known) > len(peers):
            for name in known.keys() - peers.keys():
                del known[name]
        return {name: there[1] for name, there in known.items()}

    def entries(self, endpoint: Endpoint, port: str, remote: Ip | None = None) -> EndpointEntries:
        """What lets the bridge forward to an endpoint and answer for it; `remote` is the VTEP it is behind."""
        known = self.known.get(endpoint.id)
        if known is not None and known.endpoint is endpoint and known.port.port == port:
            vtep = known.vtep
            if (vtep is None and remote is None) or (vtep is not None and vtep.remote == remote):
                return known
        mac = packed_mac(endpoint.mac)
        vtep = None if remote is None else VtepEntry(port, mac, remote)
        made = EndpointEntries(endpoint, PortEntry(port, mac), self._neighbours(endpoint, mac), vtep)
        self.known[endpoint.id] = made
        return made

    def keep(self, endpoints: Mapping[str, Endpoint]) -> None:
        """Forget all other endpoints."""
        if len(self.known) > len(endpoints):
            for endpoint_id in self.known.keys() - endpoints.keys():
                del self.known[endpoint_id]

    def _neighbours(self, endpoint: Endpoint, mac: Mac) -> tuple[Neighbour, ...]:
        """IPv6 only where the network has it: elsewhere the kernel refuses such neighbours."""
        device = self.device
        if not self.has_ipv6:
            return tuple(
                Neighbour(device, address.packed, mac) for address in endpoint.addresses if address.version == 4
            )
        found = [Neighbour(device, address.packed, mac) for address in endpoint.addresses]
        return (*found, Neighbour(device, link_local(mac), mac))


@dataclass(slots=True)
class Memo:
    """The networks of one host."""

    networks: dict[str, NetworkMemo] = field(default_factory=dict)

    def of_network(self, device: str, has_ipv6: bool) -> NetworkMemo:
        memo = self.networks.get(device)
        if memo is None or memo.has_ipv6 != has_ipv6:
            memo = self.networks[device] = NetworkMemo(device, has_ipv6)
        return memo

    def forget(self, device: str) -> None:
        self.networks.pop(device, None)

    def keep(self, devices: Set[str]) -> None:
        """Forget all other networks."""
        for device in self.networks.keys() - devices:
            del self.networks[device]
