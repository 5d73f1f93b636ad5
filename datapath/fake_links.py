"""What a kernel in memory does with links: makes, changes and deletes them as Linux would, with all that follows.

What measurements on a real kernel showed is kept here (a device that goes down forgets its neighbours, a bridge whose
MTU nobody set follows its ports ...). Functions over the tables; an operation that the kernel would refuse raises
`OSError` with its number and words.
"""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import TYPE_CHECKING

from datapath.links import master, segment
from datapath.objects import Bridge, ContainerSide, Enslavement, Link, Mac, Macvlan, Operation, Shim, Veth, Vxlan
from datapath.packing import IPV6_LENGTH
from datapath.sysctls import device_of_sysctl
from kvnet.rules import MTU_MIN_IPV6

if TYPE_CHECKING:
    from datapath.fake_tables import Tables

BRIDGE_MTU = 1500  # of a bridge that nobody gave one: the smallest of its ports', and this without any
MAX_BRIDGE_PORTS = 1023  # measured: port 1,024 fails with EXFULL
_IPV6_DEFAULTS = {"disable_ipv6": "0", "accept_ra": "1", "autoconf": "1"}
_IPV4_DEFAULTS = {"route_localnet": "0", "arp_filter": "0"}


def create(tables: Tables, operation: Operation, link: Link, container: ContainerSide | None) -> None:
    if _is_adopted(tables, operation, link, container):
        return
    if link.name in tables.links or link.name in tables.foreign or link.name in tables.uplinks:
        raise OSError(errno.EEXIST, f"{link.name}: File exists")
    if isinstance(link, Vxlan):
        _require_free_vni(tables, link)
    if master(link):
        _require_room(tables, master(link))
    if isinstance(link, Macvlan | Shim):
        _require_uplink(tables, link, link.mac if isinstance(link, Shim) else container.mac if container else b"")
    if isinstance(link, Veth | Macvlan):
        _create_inside(tables, link, container)
    tables.links[link.name] = replace(link, ipv6=True) if isinstance(link, Bridge) else as_port(link)
    if not isinstance(link, Macvlan):
        tables.sysctls |= _ipv6_defaults(link.name)
        tables.sysctls |= {f"net/ipv4/conf/{link.name}/{name}": value for name, value in _IPV4_DEFAULTS.items()}
    _settle_mtu(tables, link, BRIDGE_MTU)
    _settle_ipv6(tables)


def update(tables: Tables, link: Link) -> None:
    held = tables.links.get(link.name)
    if held is None:
        raise OSError(errno.ENODEV, f"{link.name}: No such device")
    if type(held) is not type(link):
        raise OSError(errno.EOPNOTSUPP, f"{link.name}: cannot change its kind")
    if isinstance(held, Vxlan) and isinstance(link, Vxlan) and segment(held) != segment(link):
        raise OSError(errno.EOPNOTSUPP, "Cannot change VNI")
    if isinstance(link, Macvlan | Shim):
        _update_on_uplink(tables, link, held)
    if master(held) != master(link):
        if master(link):
            _require_room(tables, master(link))
        forget_ports(tables, link.name)
    if isinstance(link, Bridge) and isinstance(held, Bridge):  # whether it has IPv6 is a setting, changed as such
        link = replace(link, ipv6=held.ipv6)
    tables.links[link.name] = as_port(link)
    if isinstance(held, Veth | Vxlan):
        follow_ports(tables, held.bridge)
    _notice_what_is_lost(tables, held, link)
    _settle_mtu(tables, link, held.mtu)
    _settle_ipv6(tables)


def delete(tables: Tables, operation: Operation, name: str) -> None:
    if name in tables.foreign or name in tables.uplinks:
        raise OSError(errno.EPERM, f"{name} is not kvnet's")
    link = tables.links.pop(name, None)
    if link is None:
        tables.vain.append(operation)
        return
    forget_ports(tables, name)
    _forget_neighbours(tables, name)
    tables.addresses = [address for address in tables.addresses if address.device != name]
    tables.drop_routes(lambda route: route.device == name)
    tables.vteps = {key: remotes for key, remotes in tables.vteps.items() if key[0] != name}
    tables.sysctls = {path: value for path, value in tables.sysctls.items() if device_of_sysctl(path) != name}
    for interfaces in tables.namespaces.values():
        for interface in [i for i, other in interfaces.items() if other.link == name]:
            del interfaces[interface]
    if isinstance(link, Bridge):
        _free_ports(tables, name)
    else:
        follow_ports(tables, master(link))


def enslave(tables: Tables, operation: Operation, entry: Enslavement) -> None:
    uplink = tables.uplinks.get(entry.uplink)
    if uplink is None or not isinstance(tables.links.get(entry.bridge), Bridge):
        raise OSError(errno.ENODEV, f"{entry.uplink if uplink is None else entry.bridge}: No such device")
    if any(isinstance(link, Macvlan | Shim) and link.uplink == entry.uplink for link in tables.links.values()):
        raise OSError(errno.EBUSY, f"{entry.uplink} carries macvlans: Device or resource busy")
    if uplink.is_bridge:
        raise OSError(errno.ELOOP, "Can not enslave a bridge to a bridge")
    if uplink.bridge == entry.bridge:
        tables.vain.append(operation)
        return
    _require_room(tables, entry.bridge)
    tables.uplinks[entry.uplink] = replace(uplink, bridge=entry.bridge)
    follow_ports(tables, entry.bridge)


def release(tables: Tables, operation: Operation, entry: Enslavement) -> None:
    uplink = tables.uplinks.get(entry.uplink)
    if uplink is None or uplink.bridge != entry.bridge:
        tables.vain.append(operation)
        return
    tables.uplinks[entry.uplink] = replace(uplink, bridge="")
    follow_ports(tables, entry.bridge)


def as_port(link: Link) -> Link:
    """Without a bridge a link has no port flags; it is read as if they were those that a tunnel has by default."""
    if isinstance(link, Vxlan) and not link.bridge:
        return replace(link, learning=False, suppress=True, isolated=False)
    if isinstance(link, Veth) and not link.bridge:
        return replace(link, isolated=False, hairpin=False)
    return link


def forget_ports(tables: Tables, name: str) -> None:
    tables.ports = {key: port for key, port in tables.ports.items() if port != name}


def follow_ports(tables: Tables, bridge: str) -> None:
    """A bridge that nobody gave an MTU has the smallest of its ports'."""
    link = tables.links.get(bridge)
    if isinstance(link, Bridge) and bridge not in tables.fixed_mtus:
        mtus = [port.mtu for port in tables.links.values() if master(port) == bridge]
        mtus += [uplink.mtu for uplink in tables.uplinks.values() if uplink.bridge == bridge]
        tables.links[bridge] = replace(link, mtu=min(mtus, default=BRIDGE_MTU))
        _settle_ipv6(tables)


def set_ipv6(tables: Tables, name: str, on: bool) -> None:
    """Without IPv6 a device has no IPv6 address, neighbour or route."""
    link = tables.links[name]
    if isinstance(link, Bridge):
        tables.links[name] = replace(link, ipv6=on)
    tables.sysctls[f"net/ipv6/conf/{name}/disable_ipv6"] = "0" if on else "1"
    if not on:
        _forget_neighbours(tables, name, IPV6_LENGTH)
        tables.addresses = [a for a in tables.addresses if a.device != name or len(a.address) != IPV6_LENGTH]
        tables.drop_routes(lambda route: route.device == name and len(route.destination) == IPV6_LENGTH)


def _settle_ipv6(tables: Tables) -> None:
    """A device whose MTU is too small for IPv6 has none of it, settings neither; it comes anew with a larger one."""
    for name, link in list(tables.links.items()):
        if isinstance(link, Macvlan):
            continue
        has_settings = f"net/ipv6/conf/{name}/disable_ipv6" in tables.sysctls
        if link.mtu < MTU_MIN_IPV6 and has_settings:
            set_ipv6(tables, name, on=False)
            tables.sysctls = {k: v for k, v in tables.sysctls.items() if not k.startswith(f"net/ipv6/conf/{name}/")}
        elif link.mtu >= MTU_MIN_IPV6 and not has_settings:
            tables.sysctls |= _ipv6_defaults(name)
            set_ipv6(tables, name, on=True)


def _ipv6_defaults(name: str) -> dict[str, str]:
    return {f"net/ipv6/conf/{name}/{setting}": value for setting, value in _IPV6_DEFAULTS.items()}


def _is_adopted(tables: Tables, operation: Operation, link: Link, container: ContainerSide | None) -> bool:
    """Ours and of that kind: brought to what is wanted. An interface that leads somewhere else has to go."""
    held = tables.links.get(link.name)
    if held is None or type(held) is not type(link):
        return False
    if isinstance(held, Vxlan) and isinstance(link, Vxlan) and segment(held) != segment(link):
        return False
    if isinstance(link, Veth | Macvlan) and container is not None:
        interface = tables.namespaces.get(tables.place_of(container), {}).get(container.interface)
        if interface is None or interface.link != link.name or container.is_handed_over:
            delete(tables, operation, link.name)
            return False
    update(tables, link)
    tables.vain.append(operation)
    return True


def _create_inside(tables: Tables, link: Veth | Macvlan, container: ContainerSide | None) -> None:
    if container is None:
        raise OSError(errno.EINVAL, f"{link.name}: no namespace given for its other half")
    place = tables.place_of(container)
    namespace = tables.namespaces.get(place)
    if namespace is None:
        raise OSError(errno.ENOENT, f"{place}: No such network namespace")
    if container.interface in namespace:
        raise OSError(errno.EEXIST, f"{container.interface} in {place}: File exists")
    tables.add_interface(container, link.name)


def _require_free_vni(tables: Tables, wanted: Vxlan) -> None:
    ours = any(isinstance(link, Vxlan) and link.vni == wanted.vni for link in tables.links.values())
    if ours or any(other.vni == wanted.vni for other in tables.foreign.values()):
        raise OSError(errno.EEXIST, "A VXLAN device with the specified VNI already exists")


def _require_room(tables: Tables, bridge: str) -> None:
    uplink = tables.uplinks.get(bridge)
    if not isinstance(tables.links.get(bridge), Bridge) and not (uplink is not None and uplink.is_bridge):
        raise OSError(errno.ENODEV, f"{bridge}: No such device")
    ports = sum(1 for link in tables.links.values() if master(link) == bridge)
    ports += sum(1 for other in tables.uplinks.values() if other.bridge == bridge)
    if ports >= MAX_BRIDGE_PORTS:
        raise OSError(errno.EXFULL, f"{bridge}: Exchange full")


def _require_uplink(tables: Tables, link: Macvlan | Shim, mac: Mac) -> None:
    uplink = tables.uplinks.get(link.uplink)
    if uplink is None:
        raise OSError(errno.ENODEV, f"{link.uplink}: No such device")
    if uplink.bridge:
        raise OSError(errno.EBUSY, f"{link.uplink} is a port of {uplink.bridge}: Device or resource busy")
    if link.mtu > uplink.mtu:
        raise OSError(errno.EINVAL, "mtu greater than device maximum")
    if mac in {uplink.mac, *tables.macs_on(link.uplink, but=link.name)}:
        raise OSError(errno.EADDRINUSE, "Address already in use")
    if not uplink.up:
        raise OSError(errno.ENETDOWN, "Network is down")


def _update_on_uplink(tables: Tables, link: Macvlan | Shim, held: Link) -> None:
    if isinstance(held, Macvlan | Shim) and held.uplink != link.uplink:
        raise OSError(errno.EOPNOTSUPP, f"{link.name}: cannot change what it is on")
    uplink = tables.uplinks.get(link.uplink)
    if uplink is not None and link.mtu > uplink.mtu:
        raise OSError(errno.EINVAL, "mtu greater than device maximum")


def _notice_what_is_lost(tables: Tables, held: Link, link: Link) -> None:
    if isinstance(held, Bridge | Vxlan | Shim) and isinstance(link, Bridge | Vxlan | Shim):
        if held.up and not link.up:
            _went_down(tables, link.name)
        if held.mac != link.mac:
            _forget_neighbours(tables, link.name)


def _went_down(tables: Tables, name: str) -> None:
    """Measured: all neighbours go, PERMANENT ones included, IPv6 addresses and all routes too."""
    _forget_neighbours(tables, name)
    tables.addresses = [a for a in tables.addresses if a.device != name or len(a.address) != IPV6_LENGTH]
    tables.drop_routes(lambda route: route.device == name)


def _forget_neighbours(tables: Tables, name: str, length: int | None = None) -> None:
    """Measured: also when the device gets another MAC."""
    tables.neighbours = {
        key: mac
        for key, mac in tables.neighbours.items()
        if key[0] != name or (length is not None and len(key[1]) != length)
    }


def _free_ports(tables: Tables, name: str) -> None:
    """The bridge is gone: its ports are on their own."""
    tables.ports = {key: port for key, port in tables.ports.items() if key[0] != name}
    for port in list(tables.links.values()):
        if isinstance(port, Vxlan | Veth) and port.bridge == name:
            tables.links[port.name] = as_port(replace(port, bridge=""))
    for uplink in list(tables.uplinks.values()):
        if uplink.bridge == name:
            tables.uplinks[uplink.name] = replace(uplink, bridge="")
    tables.fixed_mtus.discard(name)


def _settle_mtu(tables: Tables, link: Link, before: int) -> None:
    """Only a change of its MTU fixes a bridge's; that of a port may change its bridge's."""
    if not isinstance(link, Bridge):
        follow_ports(tables, master(link))
    elif link.mtu != before:
        tables.fixed_mtus.add(link.name)
