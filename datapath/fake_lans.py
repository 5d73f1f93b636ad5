"""Physical networks in memory: who is on one, and who of them hears whom.

A macvlan on an uplink and the host's own stack behind that uplink never hear each other, though both are on the same
wire: that is what a shim is for. Everything else on a LAN hears everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from datapath.fake_tables import Interface, Tables
from datapath.objects import Ip, Mac, Macvlan, Shim
from datapath.packing import IPV6_LENGTH, link_local

if TYPE_CHECKING:
    from datapath.fabric import FakeFabric, Joined


@dataclass(frozen=True, slots=True)
class Station:
    """`host` None: a machine of the LAN's own. `link`: its interface on the host ("" for the host's own stack)."""

    lan: str
    host: Joined | None
    uplink: str
    link: str
    mac: Mac
    addresses: frozenset[Ip]
    is_workload: bool = False
    is_macvlan: bool = False


@dataclass(frozen=True, slots=True)
class Asker:
    """`link`: a macvlan or shim; "" for the host's own stack, or the uplink as a bridge's port."""

    lan: str
    host: Joined | None = None
    uplink: str = ""
    link: str = ""


def heard(fabric: FakeFabric, asker: Asker) -> Iterator[Station]:
    """Those whom the asker's questions reach."""
    for station in _stations(fabric, asker.lan):
        is_same_wire = asker.host is not None and station.host is asker.host and station.uplink == asker.uplink
        if not is_same_wire:
            if not _is_shim(station):
                yield station
        elif asker.link and station.is_macvlan and station.link != asker.link and _answers(station, asker):
            yield station


def behind(fabric: FakeFabric, host: Joined, bridge: str) -> Iterator[Station]:
    """Whom a bridge's uplinks lead to: its own, if it is an operator's, or the one that is a port of it."""
    tables = host.tables
    for uplink in tables.uplinks.values():
        if uplink.up and (uplink.bridge == bridge or (uplink.is_bridge and uplink.name == bridge)):
            yield from heard(fabric, Asker(tables.lans.get(uplink.name, ""), host, uplink.name))


def _answers(station: Station, asker: Asker) -> bool:
    """A shim answers for the host's addresses, to those whom the host reaches through it."""
    if not _is_shim(station) or station.host is None:
        return True
    found = station.host.tables.interface_of(asker.link)
    own = {address for address, _ in found[1].side.addresses} if found is not None else set()
    return any(r.device == station.link and r.destination in own for r in station.host.tables.routes.values())


def _is_shim(station: Station) -> bool:
    return station.is_macvlan and not station.is_workload


def _stations(fabric: FakeFabric, lan: str) -> Iterator[Station]:
    for address, name in fabric.machines.get(lan, {}).items():
        yield Station(lan, None, "", name, b"\x02\x1a" + address[-4:], frozenset({address}))
    for host in fabric.hosts.values():
        for uplink in host.tables.uplinks.values():
            if uplink.up and lan and host.tables.lans.get(uplink.name) == lan:
                yield from _on_uplink(lan, host, uplink.name)


def _on_uplink(lan: str, host: Joined, name: str) -> Iterator[Station]:
    tables: Tables = host.tables
    uplink = tables.uplinks[name]
    bridge = name if uplink.is_bridge else uplink.bridge
    own = frozenset(address for address, _ in tables.uplink_blocks.get(name, ()))
    yield Station(lan, host, name, bridge or name, uplink.mac, own)
    for interface in tables.interfaces_on(bridge) if bridge else ():
        yield _workload(lan, host, name, interface)
    for link in tables.links.values():
        if isinstance(link, Shim) and link.uplink == name and link.up:
            yield Station(lan, host, name, link.name, link.mac, _of_shim(tables, link.name), is_macvlan=True)
        elif isinstance(link, Macvlan) and link.uplink == name:
            found = tables.interface_of(link.name)
            if found is not None:
                yield _workload(lan, host, name, found[1], is_macvlan=True)


def _of_shim(tables: Tables, shim: str) -> frozenset[Ip]:
    """ARP answers for every address of the host, NDP for those that the device has."""
    theirs = {address.address for address in tables.addresses if address.device == shim}
    return frozenset(theirs | {address for address in tables.local_addresses() if len(address) != IPV6_LENGTH})


def _workload(lan: str, host: Joined, uplink: str, interface: Interface, *, is_macvlan: bool = False) -> Station:
    addresses = {address for address, _ in interface.side.addresses} | {link_local(interface.side.mac)}
    mac = interface.side.mac
    return Station(lan, host, uplink, interface.link, mac, frozenset(addresses), True, is_macvlan)
