"""What stands in the way: links that are not ours under a name or a VNI that one of our networks needs, and uplinks
that are missing or somebody else's.

They are never renamed, changed or deleted. The network behind them is left exactly as it is until the operator has
decided; every other network goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from datapath.names import network_of_device
from datapath.objects import Bridge, Enslavement, Foreign, HostState, Link, Macvlan, Shim, Uplink, Veth, Vxlan


@dataclass(frozen=True, slots=True)
class Conflict:
    """`device` is the foreign link, or the uplink.

    `code`: that of `kvnet.errors.ForeignObject`, uplink-missing or uplink-in-use. `detail` says what to do about the
    latter two.
    """

    network: str
    device: str
    detail: str
    code: str = "foreign-object"


@dataclass(frozen=True, slots=True)
class Obstacles:
    """`devices` must not be touched: all of a blocked network, or the one interface whose name is taken."""

    conflicts: tuple[Conflict, ...] = ()
    devices: frozenset[str] = frozenset()


NO_OBSTACLES = Obstacles()


def obstacles(desired: HostState, actual: HostState) -> Obstacles:
    on_uplinks = {name: link for name, link in desired.links.items() if isinstance(link, (Macvlan, Shim))}
    if not (actual.foreign or on_uplinks or desired.enslaved):
        return NO_OBSTACLES
    owners = _owners(actual.links, desired.links)
    found = [
        *_taken(desired.links, actual.foreign, owners),
        *_of_stacked(on_uplinks, actual.uplinks, owners),
        *_of_enslaved(desired, actual, owners),
    ]
    if not found:
        return NO_OBSTACLES
    found = sorted(set(found), key=lambda conflict: (conflict.network, conflict.code, conflict.device))
    blocked = {c.network for c in found if not isinstance(desired.links.get(c.device), Veth)} - {""}
    devices = {c.device for c in found if c.device in desired.links}
    devices |= {name for name in desired.links.keys() | actual.links.keys() if owners.get(name) in blocked}
    return Obstacles(tuple(found), frozenset(devices))


def network_of_link(link: Link) -> str:
    """The network's id; "" where only the link's bridge, or nothing, tells it."""
    if isinstance(link, (Bridge, Veth, Macvlan)) and link.network:
        return link.network
    return network_of_device(link.bridge if isinstance(link, Veth) else link.name) or ""


def _owners(*states: Mapping[str, Link]) -> dict[str, str]:
    """By device its network. What is desired says it of every device; a found one may only be known by its bridge."""
    owners: dict[str, str] = {}
    for links in states:
        owners.update((name, owner) for name, link in links.items() if (owner := network_of_link(link)))
    for links in states:
        for name, link in links.items():
            if isinstance(link, Veth) and name not in owners and link.bridge in owners:
                owners[name] = owners[link.bridge]
    return owners


def _taken(links: Mapping[str, Link], foreign: Mapping[str, Foreign], owners: Mapping[str, str]) -> Iterator[Conflict]:
    tunnels = {link.vni: link for link in links.values() if isinstance(link, Vxlan)}
    for name, other in foreign.items():
        tunnel = tunnels.get(other.vni) if other.vni is not None else None
        if name in links:
            detail = f"the name {name} is taken by a {other.kind or 'link'} that is not kvnet's"
            yield Conflict(owners.get(name, ""), name, detail)
        elif tunnel is not None:
            detail = f"VNI {tunnel.vni} is used by {name}, a {other.kind or 'link'} that is not kvnet's"
            yield Conflict(owners.get(tunnel.name, ""), name, detail)


def _of_stacked(
    links: Mapping[str, Macvlan | Shim], uplinks: Mapping[str, Uplink], owners: Mapping[str, str]
) -> Iterator[Conflict]:
    """Interfaces directly on an uplink."""
    for name, link in links.items():
        uplink, network = uplinks.get(link.uplink), owners.get(name, "")
        if uplink is None:
            yield _missing(network, link.uplink)
        elif uplink.bridge:
            fix = f"take it out, or give the network the uplink {uplink.bridge} and uplink_mode bridge"
            detail = f"the uplink {uplink.name} is a port of {uplink.bridge}, so nothing can stand on it; {fix}"
            yield Conflict(network, uplink.name, detail, "uplink-in-use")


def _of_enslaved(desired: HostState, actual: HostState, owners: Mapping[str, str]) -> Iterator[Conflict]:
    """Uplinks that are to join a bridge of ours. One that is in it already stays, whatever it got meanwhile."""
    for entry in desired.enslaved:
        uplink, network = actual.uplinks.get(entry.uplink), owners.get(entry.bridge, "")
        if uplink is None:
            yield _missing(network, entry.uplink)
        elif uplink.bridge != entry.bridge and (detail := _why_not(entry, uplink, desired, actual)):
            yield Conflict(network, uplink.name, detail, "uplink-in-use")


def _why_not(entry: Enslavement, uplink: Uplink, desired: HostState, actual: HostState) -> str:
    if uplink.bridge and Enslavement(uplink.name, uplink.bridge) not in actual.enslaved - desired.enslaved:
        return f"the uplink {uplink.name} is a port of {uplink.bridge} already; a link can be in one bridge only"
    if uplink.has_addresses:
        fix = "move them to a bridge of your own and make that the uplink, or use uplink_mode macvlan"
        return f"the uplink {uplink.name} has addresses, which would go dead in a bridge; {fix}"
    first = min(other.bridge for other in desired.enslaved if other.uplink == uplink.name)
    if first != entry.bridge:
        return f"the uplink {uplink.name} goes to {first}; a link can be in one bridge only"
    stacked = [link for link in desired.links.values() if isinstance(link, (Macvlan, Shim))]
    if any(link.uplink == uplink.name for link in stacked):
        return f"interfaces of another network stand on the uplink {uplink.name} directly; use another uplink"
    return ""


def _missing(network: str, uplink: str) -> Conflict:
    detail = f"the uplink {uplink} is not on this host; the network stays as it is until it is"
    return Conflict(network, uplink, detail, "uplink-missing")
