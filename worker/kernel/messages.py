"""The rtnetlink requests that kvnet makes, as bytes.

Each function is one request, built from plain values and interface indexes. Nothing here knows what is there already,
and nothing here does I/O. Numbers are from the kernel's uapi headers named beside them.
"""

from __future__ import annotations

import hashlib
from struct import Struct

from datapath.objects import LINK_GROUP, PROTOCOL, Bridge, ContainerSide, Ip, Mac, Route, Shim, Veth, Vxlan
from worker.kernel.netlink import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    attribute,
    nested,
)

AF_INET, AF_INET6, AF_BRIDGE = 2, 10, 7

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30

# linux/if_link.h
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_PROTINFO = 1, 3, 4, 5, 10, 12
IFLA_OPERSTATE, IFLA_LINKINFO, IFLA_IFALIAS = 16, 18, 20
IFLA_AF_SPEC, IFLA_GROUP, IFLA_NET_NS_FD, IFLA_EXT_MASK, IFLA_CARRIER = 26, 27, 28, 29, 33
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
IFLA_BR_STP_STATE, IFLA_BR_MCAST_SNOOPING = 5, 23
IFLA_BRPORT_MODE, IFLA_BRPORT_LEARNING, IFLA_BRPORT_NEIGH_SUPPRESS, IFLA_BRPORT_ISOLATED = 4, 8, 32, 33
IFLA_VXLAN_ID, IFLA_VXLAN_LOCAL, IFLA_VXLAN_LEARNING = 1, 4, 7
IFLA_VXLAN_PORT, IFLA_VXLAN_LOCAL6 = 15, 17
VETH_INFO_PEER = 1
IFLA_MACVLAN_MODE, MACVLAN_MODE_BRIDGE = 1, 4
IFF_UP, IFF_NOARP = 1, 0x80
IF_OPER_UNKNOWN, IF_OPER_UP = 0, 6  # linux/if.h
WORKING_STATES = (bytes([IF_OPER_UP]), bytes([IF_OPER_UNKNOWN]))
RTEXT_FILTER_SKIP_STATS = 1 << 3

# linux/neighbour.h
NDA_DST, NDA_LLADDR, NDA_IFINDEX, NDA_MASTER, NDA_PROTOCOL = 1, 2, 8, 9, 12
NUD_NOARP, NUD_PERMANENT = 0x40, 0x80
NTF_SELF, NTF_MASTER, NTF_EXT_LEARNED, NTF_STICKY = 0x02, 0x04, 0x10, 0x40

# linux/if_addr.h, linux/rtnetlink.h
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
IFA_F_NODAD, IFA_F_NOPREFIXROUTE = 0x02, 0x200
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_VIA = 1, 4, 5, 6, 7, 18
RTNH_F_ONLINK = 4
RT_TABLE_MAIN, RTN_UNICAST, RTN_LOCAL, RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 254, 1, 2, 0, 253
RTPROT_STATIC = 4

LINK = Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change
NEIGHBOUR = Struct("=BxxxiHBB")  # ndmsg: family, index, state, flags, type
ADDRESS = Struct("=BBBBi")  # ifaddrmsg: family, prefix length, flags, scope, index
ROUTE = Struct("=BBBBBBBBI")  # rtmsg: family, dst len, src len, tos, table, protocol, scope, type, flags
FAMILY = Struct("=H")  # the head of rtvia
U32 = Struct("=I")

CREATE = NLM_F_CREATE | NLM_F_EXCL
REPLACE = NLM_F_CREATE | NLM_F_REPLACE
NO_ARP = NUD_NOARP | NUD_PERMANENT  # what a VXLAN device takes as static

OFF, ON = b"\0", b"\1"
PORT_MAC_PREFIX = b"\x02\x6c"  # of MACs that nobody asked for
VTEP_FLAGS = NTF_SELF | NTF_EXT_LEARNED
# Sticky: a workload that sends with another one's MAC does not draw its traffic. Also how we know our entries again.
PORT_FLAGS = NTF_MASTER | NTF_STICKY


def family_of(address: Ip) -> int:
    return AF_INET if len(address) == 4 else AF_INET6


def _u32(kind: int, value: int) -> bytes:
    return attribute(kind, U32.pack(value))


def _text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def _link(flags: int, name: str, *details: bytes, up: bool = False) -> Message:
    head = LINK.pack(0, 0, 0, IFF_UP if up else 0, IFF_UP if up else 0)
    return Message(RTM_NEWLINK, flags, head + _text(IFLA_IFNAME, name) + b"".join(details))


def _port_mac(name: str, salt: bytes = b"") -> bytes:
    """A MAC of its own for a port. Given, not drawn by the kernel: udev replaces those (systemd 242 and newer)."""
    digest = hashlib.sha256(b"kvnet-port:" + name.encode() + salt).digest()
    return attribute(IFLA_ADDRESS, PORT_MAC_PREFIX + digest[:4])


def _kind(kind: str, *data: bytes) -> bytes:
    return nested(IFLA_LINKINFO, _text(IFLA_INFO_KIND, kind), nested(IFLA_INFO_DATA, *data))


def _born_in(namespace: int | None) -> bytes:
    return b"" if namespace is None else _u32(IFLA_NET_NS_FD, namespace)


def create_bridge(bridge: Bridge) -> Message:
    """Without its MTU: only a later message fixes that, else the bridge follows its ports' (br_mtu_auto_adjust)."""
    details = _kind("bridge", attribute(IFLA_BR_MCAST_SNOOPING, OFF), _u32(IFLA_BR_STP_STATE, 0))
    return _link(CREATE, bridge.name, attribute(IFLA_ADDRESS, bridge.mac), _u32(IFLA_GROUP, LINK_GROUP), details)


def create_vxlan(vxlan: Vxlan, bridge: int) -> Message:
    local = attribute(IFLA_VXLAN_LOCAL if len(vxlan.local) == 4 else IFLA_VXLAN_LOCAL6, vxlan.local)
    details = _kind(
        "vxlan",
        _u32(IFLA_VXLAN_ID, vxlan.vni),
        local,
        attribute(IFLA_VXLAN_PORT, vxlan.port.to_bytes(2, "big")),
        attribute(IFLA_VXLAN_LEARNING, ON if vxlan.learning else OFF),
    )
    mac = attribute(IFLA_ADDRESS, vxlan.mac) if vxlan.mac else _port_mac(vxlan.name, vxlan.local)
    master = _u32(IFLA_MASTER, bridge) if bridge else b""
    return _link(CREATE, vxlan.name, mac, _u32(IFLA_GROUP, LINK_GROUP), _u32(IFLA_MTU, vxlan.mtu), master, details)


def create_veth(veth: Veth, bridge: int, container: ContainerSide, namespace: int | None) -> Message:
    """The workload's half is born in its namespace (a descriptor; None: ours), under its name, with its MAC."""
    peer = (
        LINK.pack(0, 0, 0, 0, 0)
        + _text(IFLA_IFNAME, container.interface)
        + attribute(IFLA_ADDRESS, container.mac)
        + _u32(IFLA_MTU, container.mtu)
        + _born_in(namespace)
    )
    details = _kind("veth", attribute(VETH_INFO_PEER, peer))
    mac = _port_mac(veth.name, container.mac)
    master = _u32(IFLA_MASTER, bridge) if bridge else b""
    return _link(CREATE, veth.name, mac, _u32(IFLA_GROUP, LINK_GROUP), _u32(IFLA_MTU, veth.mtu), master, details)


def create_macvlan(container: ContainerSide, uplink: int, namespace: int | None) -> Message:
    """Born in the workload's namespace (as of a veth), on an uplink of ours; marked as ours where nobody sees it."""
    return _link(
        CREATE,
        container.interface,
        attribute(IFLA_ADDRESS, container.mac),
        _u32(IFLA_GROUP, LINK_GROUP),
        _u32(IFLA_MTU, container.mtu),
        _u32(IFLA_LINK, uplink),
        _born_in(namespace),
        _MACVLAN,
    )


def create_shim(shim: Shim, uplink: int) -> Message:
    mac, group = attribute(IFLA_ADDRESS, shim.mac), _u32(IFLA_GROUP, LINK_GROUP)
    return _link(CREATE, shim.name, mac, group, _u32(IFLA_MTU, shim.mtu), _u32(IFLA_LINK, uplink), _MACVLAN)


def set_link(
    index: int,
    *,
    up: bool | None = None,
    arp: bool | None = None,
    mtu: int | None = None,
    mac: Mac | None = None,
    master: int | None = None,
    group: int | None = None,
    alias: str | None = None,
) -> Message:
    """Change what is given of an existing link. `master` 0 detaches it."""
    details = b"" if mtu is None else _u32(IFLA_MTU, mtu)
    if mac is not None:
        details += attribute(IFLA_ADDRESS, mac)
    if master is not None:
        details += _u32(IFLA_MASTER, master)
    if group is not None:
        details += _u32(IFLA_GROUP, group)
    if alias is not None:
        details += _text(IFLA_IFALIAS, alias)
    flags = (IFF_UP if up else 0) | (0 if arp is None or arp else IFF_NOARP)
    changed = (0 if up is None else IFF_UP) | (0 if arp is None else IFF_NOARP)
    head = LINK.pack(0, 0, index, flags, changed)
    return Message(RTM_NEWLINK, 0, head + details)


def set_bridge(index: int, *options: bytes) -> Message:
    return Message(RTM_NEWLINK, 0, LINK.pack(0, 0, index, 0, 0) + _kind("bridge", *options))


def set_port(index: int, *, learning: bool, suppress: bool, isolated: bool, hairpin: bool = False) -> Message:
    """A bridge port's flags; refused (EOPNOTSUPP) while the link is in no bridge."""
    flags = nested(
        IFLA_PROTINFO,
        attribute(IFLA_BRPORT_MODE, ON if hairpin else OFF),
        attribute(IFLA_BRPORT_LEARNING, ON if learning else OFF),
        attribute(IFLA_BRPORT_NEIGH_SUPPRESS, ON if suppress else OFF),
        attribute(IFLA_BRPORT_ISOLATED, ON if isolated else OFF),
    )
    return Message(RTM_SETLINK, 0, LINK.pack(AF_BRIDGE, 0, index, 0, 0) + flags)


def delete_link(index: int) -> Message:
    return Message(RTM_DELLINK, 0, LINK.pack(0, 0, index, 0, 0))


def delete_group(group: int) -> Message:
    """Everything in the group goes, at the price of one: only for a group that was given out for this, just now."""
    return Message(RTM_DELLINK, 0, LINK.pack(0, 0, 0, 0, 0) + _u32(IFLA_GROUP, group))


def get_link(name: str) -> Message:
    return Message(RTM_GETLINK, 0, LINK.pack(0, 0, 0, 0, 0) + _text(IFLA_IFNAME, name) + _NO_STATISTICS)


def get_link_at(index: int) -> Message:
    return Message(RTM_GETLINK, 0, LINK.pack(0, 0, index, 0, 0) + _NO_STATISTICS)


def dump_links(*, master: int = 0, kind: str = "") -> Message:
    filters = _u32(IFLA_MASTER, master) if master else b""
    if kind:
        filters += nested(IFLA_LINKINFO, _text(IFLA_INFO_KIND, kind))
    return Message(RTM_GETLINK, 0, LINK.pack(0, 0, 0, 0, 0) + filters + _NO_STATISTICS)


def address(index: int, ip: Ip, prefix_length: int, *, prefix_route: bool = False, remove: bool = False) -> Message:
    """Without duplicate-address detection: it sees nothing across hosts, and the store already knows."""
    flags = 0 if prefix_route else IFA_F_NOPREFIXROUTE
    if len(ip) == 16:
        flags |= IFA_F_NODAD
    body = (
        ADDRESS.pack(family_of(ip), prefix_length, 0, 0, index) + attribute(IFA_LOCAL, ip) + attribute(IFA_ADDRESS, ip)
    )
    if remove:
        return Message(RTM_DELADDR, 0, body)
    return Message(RTM_NEWADDR, CREATE, body + _u32(IFA_FLAGS, flags))


def dump_addresses(index: int = 0) -> Message:
    return Message(RTM_GETADDR, 0, ADDRESS.pack(0, 0, 0, 0, index))


def add_route(route: Route, index: int, *, replace: bool = False) -> Message:
    """`index` 0: over whatever leads to the gateway, which the kernel finds out in the same moment."""
    return Message(RTM_NEWROUTE, REPLACE if replace else CREATE, _route(route, index, PROTOCOL))


def remove_route(route: Route, index: int) -> Message:
    return Message(RTM_DELROUTE, 0, _route(route, index, PROTOCOL))


def workload_route(route: Route, index: int, metric: int = 0) -> Message:
    """In a workload's namespace: not ours to mark, the same as an administrator would add."""
    priority = _u32(RTA_PRIORITY, metric) if metric else b""
    return Message(RTM_NEWROUTE, CREATE, _route(route, index, RTPROT_STATIC) + priority)


def _route(route: Route, index: int, protocol: int) -> bytes:
    family = family_of(route.destination)
    scope = RT_SCOPE_UNIVERSE if route.gateway or family == AF_INET6 else RT_SCOPE_LINK
    flags = RTNH_F_ONLINK if route.onlink else 0
    body = ROUTE.pack(family, route.prefix_length, 0, 0, RT_TABLE_MAIN, protocol, scope, RTN_UNICAST, flags)
    if route.prefix_length:
        body += attribute(RTA_DST, route.destination)
    if route.gateway and family_of(route.gateway) == family:
        body += attribute(RTA_GATEWAY, route.gateway)
    elif route.gateway:
        body += attribute(RTA_VIA, FAMILY.pack(family_of(route.gateway)) + route.gateway)
    if route.source:
        body += attribute(RTA_PREFSRC, route.source)
    return body + _u32(RTA_OIF, index) if index else body


def get_route(destination: Ip) -> Message:
    """How the kernel would send there."""
    head = ROUTE.pack(family_of(destination), 8 * len(destination), 0, 0, 0, 0, 0, 0, 0)
    return Message(RTM_GETROUTE, 0, head + attribute(RTA_DST, destination))


def dump_routes(protocol: int = 0, device: int = 0) -> Message:
    """The main table's unicast routes of both families, of one protocol or device where one is given."""
    filters = _u32(RTA_OIF, device) if device else b""
    return Message(RTM_GETROUTE, 0, ROUTE.pack(0, 0, 0, 0, RT_TABLE_MAIN, protocol, 0, RTN_UNICAST, 0) + filters)


def neighbour(index: int, ip: Ip, mac: Mac) -> Message:
    body = NEIGHBOUR.pack(AF_INET if len(ip) == 4 else AF_INET6, index, NUD_PERMANENT, 0, 0)
    return Message(RTM_NEWNEIGH, REPLACE, body + attribute(NDA_DST, ip) + attribute(NDA_LLADDR, mac) + _OUR_PROTOCOL)


def remove_neighbour(index: int, ip: Ip) -> Message:
    head = NEIGHBOUR.pack(AF_INET if len(ip) == 4 else AF_INET6, index, 0, 0, 0)
    return Message(RTM_DELNEIGH, 0, head + attribute(NDA_DST, ip))


def vtep(index: int, mac: Mac, remote: Ip) -> Message:
    # The all-zero MAC is a list of those who get floods; any other one is in one place only.
    flags = REPLACE if any(mac) else NLM_F_CREATE | NLM_F_APPEND
    head = NEIGHBOUR.pack(AF_BRIDGE, index, NO_ARP, VTEP_FLAGS, 0)
    return Message(RTM_NEWNEIGH, flags, head + attribute(NDA_LLADDR, mac) + attribute(NDA_DST, remote))


def remove_vtep(index: int, mac: Mac, remote: Ip) -> Message:
    head = NEIGHBOUR.pack(AF_BRIDGE, index, 0, NTF_SELF, 0)
    return Message(RTM_DELNEIGH, 0, head + attribute(NDA_LLADDR, mac) + attribute(NDA_DST, remote))


def port_entry(index: int, mac: Mac) -> Message:
    # A bridge takes NUD_PERMANENT for "this address is mine" and swallows the frame, so static entries are NUD_NOARP.
    head = NEIGHBOUR.pack(AF_BRIDGE, index, NUD_NOARP, PORT_FLAGS, 0)
    return Message(RTM_NEWNEIGH, REPLACE, head + attribute(NDA_LLADDR, mac))


def remove_port_entry(index: int, mac: Mac) -> Message:
    return Message(RTM_DELNEIGH, 0, NEIGHBOUR.pack(AF_BRIDGE, index, 0, NTF_MASTER, 0) + attribute(NDA_LLADDR, mac))


def dump_neighbours(family: int, index: int = 0) -> Message:
    filters = _u32(NDA_IFINDEX, index) if index else b""
    return Message(RTM_GETNEIGH, 0, NEIGHBOUR.pack(family, 0, 0, 0, 0) + filters)


def dump_forwarding(*, bridge: int = 0, port: int = 0) -> Message:
    """AF_BRIDGE entries: everywhere, on a bridge and its ports, or of one device."""
    filters = (_u32(NDA_MASTER, bridge) if bridge else b"") + (_u32(NDA_IFINDEX, port) if port else b"")
    return Message(RTM_GETNEIGH, 0, NEIGHBOUR.pack(AF_BRIDGE, 0, 0, 0, 0) + filters)


_MACVLAN = _kind("macvlan", _u32(IFLA_MACVLAN_MODE, MACVLAN_MODE_BRIDGE))
_NO_STATISTICS = _u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
_OUR_PROTOCOL = attribute(NDA_PROTOCOL, bytes([PROTOCOL]))
