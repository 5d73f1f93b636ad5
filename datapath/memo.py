"""What a bridge holds for each endpoint, remembered between calls: one change must not cost a whole network again.

An optimisation only. What is remembered counts for the very same endpoint object behind the very same port, so a memo
can never make a result wrong, and none at all gives the same. Objects that come from it are the same ones as last
time, which is also what makes comparing two states fast. Keep one per host and use it from one thread.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from datapath.census import Census, Members
from datapath.objects import Ip, Mac, Neighbour, PortEntry, VtepEntry
from datapath.packing import link_local, packed_mac
from kvnet.model import Endpoint, Host

E = TypeVar("E")


class Entries(NamedTuple):
    """Of a bridge, in sets or lists."""

    ports: Collection[PortEntry] = ()
    neighbours: Collection[Neighbour] = ()
    vteps: Collection[VtepEntry] = ()


class EndpointEntries(NamedTuple):
    """`vtep` only for an endpoint on another host."""

    endpoint: Endpoint
    port: PortEntry
    neighbours: tuple[Neighbour, ...]
    vtep: VtepEntry | None


@dataclass(frozen=True, slots=True)
class Reached:
    """The peers that tunnels lead to, of these hosts and of those that take part; `remotes`: where each tunnel ends.

    `apart`: those that take part and cannot be reached. `mtu`: what is carried whole by all of them.
    """

    host: Host
    hosts: Mapping[str, Host]
    names: Set[str]
    peers: dict[str, Host]
    apart: Set[str]
    remotes: dict[str, Ip]
    mtu: int


NOTHING = Entries()


@dataclass(frozen=True, slots=True)
class Whole:
    """The entries of the endpoints that are behind `remotes`, and those that are `local`; no two share one, so one can
    be taken away by itself. `step`: that of the members whose they are."""

    step: object
    tunnel: str
    remotes: Mapping[str, Ip]
    local: Entries
    ports: frozenset[PortEntry]
    neighbours: frozenset[Neighbour]
    vteps: frozenset[VtepEntry]

    def changed(self, step: object, local: Entries, more: Entries, less: Entries) -> Whole | None:
        """None where what comes is there already, or what goes was shared: then all has to be looked at."""
        ports = _exchanged(self.ports, less.ports, more.ports)
        neighbours = _exchanged(self.neighbours, less.neighbours, more.neighbours)
        vteps = _exchanged(self.vteps, less.vteps, more.vteps)
        if ports is None or neighbours is None or vteps is None:
            return None
        return Whole(step, self.tunnel, self.remotes, local, ports, neighbours, vteps)


def _exchanged(entries: frozenset[E], less: Collection[E], more: Collection[E]) -> frozenset[E] | None:
    """With as few copies as it takes: of a large network mostly one endpoint comes, or goes."""
    kept = entries.difference(less) if less else entries
    found = kept.union(more) if more else kept
    return found if len(found) == len(entries) + len(more) - len(less) else None


def _joined(one: Entries, other: Entries) -> Entries:
    return Entries([*one.ports, *other.ports], [*one.neighbours, *other.neighbours], [*one.vteps, *other.vteps])


def _without(one: Entries, other: Entries) -> Entries:
    """Those of the one that the other has not."""
    if one == other:
        return NOTHING
    return Entries(
        set(one.ports).difference(other.ports),
        set(one.neighbours).difference(other.neighbours),
        set(one.vteps).difference(other.vteps),
    )


@dataclass(slots=True)
class NetworkMemo:
    """The endpoints of one network. `device` is its bridge."""

    device: str
    has_ipv6: bool
    known: dict[str, EndpointEntries] = field(default_factory=dict)
    reached: Reached | None = None
    census: Census = field(default_factory=Census)
    _whole: Whole | None = None

    def whole(self, members: Members, tunnel: str, remotes: Mapping[str, Ip], local: Entries) -> Whole:
        """What all endpoints behind these remotes take, and what is `local`. Only those that came or went since last
        time are looked at, and where nobody did it is the same object."""
        last, found = self._whole, None
        if last is not None and last.remotes is remotes and last.tunnel == tunnel:
            if last.step is members.step and last.local == local:
                return last
            if last.step in (members.step, members.before):
                is_same = last.step is members.step
                come, gone = ((), ()) if is_same else (members.come, members.gone)
                more = self._of_all(come, tunnel, remotes)
                # Not by what is remembered of the same id: that may be of the object that took its place.
                less = NetworkMemo(self.device, self.has_ipv6)._of_all(gone, tunnel, remotes)
                more, less = _joined(more, _without(local, last.local)), _joined(less, _without(last.local, local))
                found = last.changed(members.step, local, more, less)
        if found is None:
            every = _joined(self._of_all(members.endpoints.values(), tunnel, remotes), local)
            ports, neighbours, vteps = frozenset(every.ports), frozenset(every.neighbours), frozenset(every.vteps)
            found = Whole(members.step, tunnel, remotes, local, ports, neighbours, vteps)
            sizes = len(every.ports), len(every.neighbours), len(every.vteps)
            self._whole = found if sizes == (len(ports), len(neighbours), len(vteps)) else None
        else:
            self._whole = found
        return found

    def _of_all(self, endpoints: Collection[Endpoint], tunnel: str, remotes: Mapping[str, Ip]) -> Entries:
        ports: list[PortEntry] = []
        neighbours: list[Neighbour] = []
        vteps: list[VtepEntry] = []
        for endpoint in endpoints:
            remote = remotes.get(endpoint.host)
            if remote is not None:
                known = self.entries(endpoint, tunnel, remote)
                ports.append(known.port)
                neighbours += known.neighbours
                if known.vtep is not None:
                    vteps.append(known.vtep)
        return Entries(ports, neighbours, vteps)

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
