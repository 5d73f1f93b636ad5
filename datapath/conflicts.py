"""What stands in the way: links that are not ours under a name or a VNI that one of our networks needs.

They are never renamed, changed or deleted. The network behind them is left exactly as it is until the operator has
decided; every other network goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from datapath.names import network_of_device
from datapath.objects import Foreign, HostState, Link, Veth, Vxlan


@dataclass(frozen=True, slots=True)
class Conflict:
    """`device` is the foreign link. `code` is the one of `kvnet.errors.ForeignObject`."""

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
    if not actual.foreign:
        return NO_OBSTACLES
    found = sorted(_found(desired.links, actual.foreign), key=lambda conflict: (conflict.network, conflict.device))
    blocked_networks = {c.network for c in found if not isinstance(desired.links.get(c.device), Veth)}
    devices = {c.device for c in found if c.device in desired.links}
    for links in (desired.links, actual.links):
        devices |= {name for name, link in links.items() if network_of_link(link) in blocked_networks}
    return Obstacles(tuple(found), frozenset(devices))


def network_of_link(link: Link) -> str:
    """The network's id; "" for an interface without a bridge."""
    name = link.bridge if isinstance(link, Veth) else link.name
    return network_of_device(name) or ""


def _found(links: Mapping[str, Link], foreign: Mapping[str, Foreign]) -> Iterator[Conflict]:
    tunnels = {link.vni: link for link in links.values() if isinstance(link, Vxlan)}
    for name, other in foreign.items():
        link = links.get(name)
        tunnel = tunnels.get(other.vni) if other.vni is not None else None
        if link is not None:
            detail = f"the name {name} is taken by a {other.kind or 'link'} that is not kvnet's"
            yield Conflict(network_of_link(link), name, detail)
        elif tunnel is not None:
            detail = f"VNI {tunnel.vni} is used by {name}, a {other.kind or 'link'} that is not kvnet's"
            yield Conflict(network_of_link(tunnel), name, detail)
