"""Operations for people and programs: one line in words, and the same as plain data, for plans and the log.

Pure. `kvnet plan` on a host and a dry run at the controller tell a plan by these, so the two cannot tell different
stories. Nothing reads the lines back; what is to be read by programs is in the data.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any, NamedTuple

from datapath.objects import (
    AddAddress,
    Announce,
    Bridge,
    CloseGate,
    CreateLink,
    DeleteLink,
    Enslave,
    Firewall,
    ForgetCallers,
    ForgetFlows,
    Gate,
    Ip,
    Link,
    Mac,
    Macvlan,
    OpenGate,
    Operation,
    Publication,
    Release,
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
    Shim,
    UpdateLink,
    Veth,
    Vxlan,
)

PROTOCOLS = {6: "tcp", 17: "udp"}
KINDS: dict[type[Link], str] = {
    Bridge: "bridge",
    Vxlan: "vxlan",
    Veth: "interface",
    Macvlan: "macvlan",
    Shim: "shim",
}


class Told(NamedTuple):
    """`action`: create, change, delete, set, remove, add, announce, forget. `kind`: of what. `target`: which one."""

    action: str
    kind: str
    target: str
    text: str

    def as_json(self) -> dict[str, Any]:
        return {"action": self.action, "kind": self.kind, "target": self.target, "text": self.text}


def describe(operation: Operation) -> str:
    return tell(operation).text


def tell(operation: Operation) -> Told:
    match operation:
        case CreateLink(link, side):
            where = f", {side.interface} in {side.netns}" if side else ""
            return Told("create", KINDS[type(link)], link.name, f"create {_link(link)}{where}")
        case UpdateLink(link, actual):
            return Told("change", KINDS[type(link)], link.name, f"change {_link(link)}{_changes(link, actual)}")
        case DeleteLink(link):
            kind = KINDS[type(link)]
            return Told("delete", kind, link.name, f"delete {kind} {link.name}")
        case AddAddress(a):
            return Told("add", "address", a.device, f"add address {_ip(a.address)}/{a.prefix_length} to {a.device}")
        case RemoveAddress(a):
            text = f"remove address {_ip(a.address)}/{a.prefix_length} from {a.device}"
            return Told("remove", "address", a.device, text)
        case ReplaceRoute(route):
            return Told("set", "route", _block((route.destination, route.prefix_length)), f"set route {_route(route)}")
        case RemoveRoute(route):
            target = _block((route.destination, route.prefix_length))
            return Told("remove", "route", target, f"remove route {_route(route)}")
        case _:
            return _tell_entry(operation)


def _tell_entry(operation: Operation) -> Told:
    match operation:
        case ReplaceNeighbour(n):
            text = f"set neighbour {_ip(n.address)} is at {_mac(n.mac)} on {n.device}"
            return Told("set", "neighbour", _ip(n.address), text)
        case RemoveNeighbour(n):
            text = f"remove neighbour {_ip(n.address)} from {n.device}"
            return Told("remove", "neighbour", _ip(n.address), text)
        case ReplaceVtep(e):
            text = f"set {_mac(e.mac)} behind {_ip(e.remote)} on {e.device}"
            return Told("set", "fdb", _mac(e.mac), text)
        case RemoveVtep(e):
            text = f"remove {_mac(e.mac)} behind {_ip(e.remote)} from {e.device}"
            return Told("remove", "fdb", _mac(e.mac), text)
        case ReplacePort(p):
            return Told("set", "fdb", _mac(p.mac), f"set {_mac(p.mac)} behind port {p.port}")
        case RemovePort(p):
            return Told("remove", "fdb", _mac(p.mac), f"remove {_mac(p.mac)} from port {p.port}")
        case Announce(n):
            text = f"announce {_ip(n.address)} at {_mac(n.mac)} on {n.device}"
            return Told("announce", "neighbour", _ip(n.address), text)
        case _:
            return _tell_host(operation)


def _tell_host(operation: Operation) -> Told:
    match operation:
        case SetSysctl(path, value):
            return Told("set", "sysctl", path, f"set {path} to {value}")
        case SetFirewall(firewall):
            return Told("set", "nft", "kvnet", f"set the firewall: {_firewall(firewall)}")
        case Enslave(entry):
            return Told("set", "uplink", entry.uplink, f"put uplink {entry.uplink} into {entry.bridge}")
        case Release(entry):
            return Told("remove", "uplink", entry.uplink, f"take uplink {entry.uplink} out of {entry.bridge}")
        case OpenGate(gate):
            text = f"accept kvnet's traffic at the end of FORWARD ({_gate(gate)})"
            return Told("add", "gate", _gate(gate), text)
        case CloseGate(gate):
            return Told("remove", "gate", _gate(gate), f"remove kvnet's rule from FORWARD ({_gate(gate)})")
        case ForgetFlows(address, protocol, port):
            what = f" port {port}/{PROTOCOLS.get(protocol, protocol)}" if port else ""
            return Told("forget", "conntrack", _ip(address), f"forget connections to {_ip(address)}{what}")
        case ForgetCallers(version, protocol, port, address):
            where = f"{_ip(address) if address else f'IPv{version}'} port {port}/{PROTOCOLS.get(protocol, protocol)}"
            return Told("forget", "conntrack", where, f"forget connections to this host's {where}")
    raise TypeError(f"not an operation: {operation!r}")


def firewall_changes(wanted: Firewall, held: Firewall) -> list[tuple[str, str, str]]:
    """What becomes of each set, element by element: ("add", "subnets4", "10.0.0.0/24")."""
    changes: list[tuple[str, str, str]] = []
    for name in Firewall.__dataclass_fields__:
        before, after = getattr(held, name), getattr(wanted, name)
        changes += [("remove", name, text) for text in sorted(map(_element, before - after))]
        changes += [("add", name, text) for text in sorted(map(_element, after - before))]
    return changes


def _element(element: Any) -> str:
    """One element of any of the firewall's sets."""
    match element:
        case Publication():
            at = _ip(element.address) if element.address else "*"
            protocol = PROTOCOLS.get(element.protocol, element.protocol)
            return f"{at}:{element.port}/{protocol} -> {_ip(element.to)}:{element.to_port}"
        case str():
            return element
        case bytes():
            return _mac(element) if len(element) == 6 else _ip(element)
        case (str() as device, (bytes(), int()) as block):
            return f"{device} . {_block(block)}"
        case (bytes(), int()):
            return _block(element)
    return " . ".join(map(str, element))


def _firewall(firewall: Firewall) -> str:
    ports = f", {len(firewall.publications)} published ports" if firewall.publications else ""
    return f"{len(firewall.bridges)} networks{ports}"


def _link(link: Link) -> str:
    match link:
        case Bridge():
            return f"bridge {link.name} (MTU {link.mtu})"
        case Vxlan():
            where = f"in {link.bridge}" if link.bridge else "routed"
            return f"vxlan {link.name} (VNI {link.vni}, MTU {link.mtu}, {where})"
        case Veth():
            return f"interface {link.name} (MTU {link.mtu}, in {link.bridge})"
        case Macvlan():
            return f"macvlan {link.name} (MTU {link.mtu}, on {link.uplink})"
        case Shim():
            return f"shim {link.name} (MTU {link.mtu}, on {link.uplink})"


def _changes(link: Link, actual: Link) -> str:
    if type(link) is not type(actual):
        return ""
    different = [name for name in link.__dataclass_fields__ if getattr(link, name) != getattr(actual, name)]
    told = [f"{name}: {_value(getattr(actual, name))} -> {_value(getattr(link, name))}" for name in different]
    return f": {', '.join(told)}" if told else ""


def _value(value: Any) -> str:
    if isinstance(value, bytes):
        return _element(value) if value else "none"
    return str(value)


def _route(route: Route) -> str:
    block = _block((route.destination, route.prefix_length))
    via = f" via {_ip(route.gateway)}" if route.gateway else ""
    return f"{block}{via} over {route.device}" if route.device else f"{block}{via}"


def _block(block: tuple[Ip, int]) -> str:
    return f"{_ip(block[0])}/{block[1]}"


def _gate(gate: Gate) -> str:
    return f"iptables-{gate.flavour}, IPv{gate.family}"


def _ip(address: Ip) -> str:
    return str(ip_address(address))


def _mac(mac: Mac) -> str:
    return mac.hex(":")
