"""A plan in words, one line per operation, for `kvnet plan` and the log. Pure; nothing parses these."""

from __future__ import annotations

from ipaddress import ip_address

from datapath.objects import (
    AddAddress,
    Announce,
    Bridge,
    CreateLink,
    DeleteLink,
    Ip,
    Link,
    Mac,
    Operation,
    RemoveAddress,
    RemoveNeighbour,
    RemovePort,
    RemoveRoute,
    RemoveVtep,
    ReplaceNeighbour,
    ReplacePort,
    ReplaceRoute,
    ReplaceVtep,
    Route,
    SetFirewall,
    SetSysctl,
    UpdateLink,
    Veth,
    Vxlan,
)


def describe(operation: Operation) -> str:
    match operation:
        case CreateLink(link, container):
            where = f", {container.interface} in {container.netns}" if container else ""
            return f"create {_link(link)}{where}"
        case UpdateLink(link, _):
            return f"change {_link(link)}"
        case DeleteLink(link):
            return f"delete {_kind(link)} {link.name}"
        case AddAddress(a):
            return f"add address {_ip(a.address)}/{a.prefix_length} to {a.device}"
        case RemoveAddress(a):
            return f"remove address {_ip(a.address)}/{a.prefix_length} from {a.device}"
        case ReplaceRoute(route):
            return f"set route {_route(route)}"
        case RemoveRoute(route):
            return f"remove route {_route(route)}"
        case SetSysctl(path, value):
            return f"set {path} to {value}"
        case SetFirewall(firewall):
            return f"set the firewall for {len(firewall.bridges)} networks"
        case _:
            return _entry(operation)


def _entry(operation: Operation) -> str:
    match operation:
        case ReplaceNeighbour(n):
            return f"set neighbour {_ip(n.address)} is at {_mac(n.mac)} on {n.device}"
        case RemoveNeighbour(n):
            return f"remove neighbour {_ip(n.address)} from {n.device}"
        case ReplaceVtep(e):
            return f"set {_mac(e.mac)} behind {_ip(e.remote)} on {e.device}"
        case RemoveVtep(e):
            return f"remove {_mac(e.mac)} behind {_ip(e.remote)} from {e.device}"
        case ReplacePort(p):
            return f"set {_mac(p.mac)} behind port {p.port}"
        case RemovePort(p):
            return f"remove {_mac(p.mac)} from port {p.port}"
        case Announce(n):
            return f"announce {_ip(n.address)} at {_mac(n.mac)} on {n.device}"
    return type(operation).__name__


def _link(link: Link) -> str:
    match link:
        case Bridge():
            return f"bridge {link.name} (MTU {link.mtu})"
        case Vxlan():
            return f"vxlan {link.name} (VNI {link.vni}, MTU {link.mtu}, in {link.bridge})"
        case Veth():
            return f"interface {link.name} (MTU {link.mtu}, in {link.bridge})"


def _kind(link: Link) -> str:
    return {Bridge: "bridge", Vxlan: "vxlan", Veth: "interface"}[type(link)]


def _route(route: Route) -> str:
    return f"{_ip(route.destination)}/{route.prefix_length} over {route.device}"


def _ip(address: Ip) -> str:
    return str(ip_address(address))


def _mac(mac: Mac) -> str:
    return mac.hex(":")
