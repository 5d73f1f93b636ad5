"""Reads the kernel's answers: raw bodies in, the datapath's objects out.

Keeps only what is marked ours: links by name and kind (a bridge that an operator named: by its MAC or alias), and by
group or alias; routes and neighbours by protocol, forwarding entries by their device. The numerous kinds are cut at
fixed places, checked by the attributes' types, and fall back to a walk.
Pure: no I/O; a body that is not understood is left out, never guessed.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from struct import Struct

from datapath.objects import (
    BRIDGE_MAC_PREFIX,
    BRIDGE_PREFIX,
    LINK_GROUP,
    PROTOCOL,
    SHIM_PREFIX,
    VETH_PREFIX,
    VXLAN_PORT,
    VXLAN_PREFIX,
    Bridge,
    Foreign,
    InterfaceAddress,
    Ip,
    Link,
    Mac,
    Neighbour,
    PortEntry,
    Route,
    Shim,
    Uplink,
    Veth,
    VtepEntry,
    Vxlan,
)
from worker.kernel import messages as m
from worker.kernel import steady
from worker.kernel.netlink import attributes

PREFIX_OF_KIND = {"bridge": BRIDGE_PREFIX, "vxlan": VXLAN_PREFIX, "veth": VETH_PREFIX, "macvlan": SHIM_PREFIX}
PREFIXES = tuple(PREFIX_OF_KIND.values())
ALIAS = "kvnet "  # + the network's id: the alias of every link of ours
# Groups given to links about to be deleted: 2^16 of them, so that no two deletions share one. Still ours.
THROW_AWAY_GROUPS = range(0x6B760000, 0x6B770000)

AF_INET6_CONF = 2  # IFLA_INET6_CONF
CONF_VALUES = {"accept_ra": 3, "autoconf": 5, "disable_ipv6": 26, "accept_dad": 27}  # DEVCONF_* of linux/ipv6.h
IFA_SCOPE_LINK = 253
HEAD = 12  # ndmsg
INT32 = Struct("=i")

# ndmsg, then NDA_DST, then NDA_LLADDR: how the kernel writes a neighbour of each family.
NEIGHBOUR4 = Struct("=BxxxiHBB HH4s HH6s")
NEIGHBOUR6 = Struct("=BxxxiHBB HH16s HH6s")
NEIGHBOUR_HEADS = {
    # family -> (struct, length of the DST attribute, where the attributes after LLADDR begin)
    m.AF_INET: (NEIGHBOUR4, 8, 12 + 8 + 12),
    m.AF_INET6: (NEIGHBOUR6, 20, 12 + 20 + 12),
}
# The attributes that follow it are fixed, too: NDA_PROBES, NDA_CACHEINFO, NDA_PROTOCOL.
PROTOCOL_TAIL = Struct("=HHB")
PROTOCOL_OFFSET = 8 + 20
FORWARDING = Struct("=BxxxiHBB HH6s2x HH4s")


@dataclass(slots=True)
class Device:
    """A link as the kernel has it. `kind` is "" for plain interfaces; `link` is set for what is ours."""

    index: int
    name: str
    kind: str
    group: int
    master: int
    mac: Mac
    peer: int
    vni: int | None
    is_ours: bool
    is_default_port: bool
    fields: dict[int, bytes]

    @property
    def mtu(self) -> int:
        return _u32(self.fields.get(m.IFLA_MTU))

    @property
    def network(self) -> str:
        """Whose it is by its alias; "" where there is none, because that comes with a second message."""
        alias = _text(self.fields.get(m.IFLA_IFALIAS))
        return alias[len(ALIAS) :] if alias.startswith(ALIAS) else ""


def device(body: bytes) -> Device:
    """A link message, as far as every link has it."""
    index = m.LINK.unpack_from(body)[2]
    fields = attributes(body, m.LINK.size)
    name = _text(fields.get(m.IFLA_IFNAME))
    info = attributes(fields.get(m.IFLA_LINKINFO, b""), 0)
    kind = _text(info.get(m.IFLA_INFO_KIND))
    group = _u32(fields.get(m.IFLA_GROUP))
    vni, is_default_port = None, False
    if kind == "vxlan":
        data = attributes(info.get(m.IFLA_INFO_DATA, b""), 0)
        vni = _u32(data.get(m.IFLA_VXLAN_ID))
        is_default_port = int.from_bytes(data.get(m.IFLA_VXLAN_PORT, b""), "big") == VXLAN_PORT
    return Device(
        index=index,
        name=name,
        kind=kind,
        group=group,
        master=_u32(fields.get(m.IFLA_MASTER)),
        mac=fields.get(m.IFLA_ADDRESS, b""),
        peer=_u32(fields.get(m.IFLA_LINK)),
        vni=vni,
        is_ours=_is_named_ours(name, kind, fields) and (is_ours_group(group) or _bears_our_alias(fields)),
        is_default_port=is_default_port,
        fields=fields,
    )


def is_ours_group(group: int) -> bool:
    return group == LINK_GROUP or group in THROW_AWAY_GROUPS


def _bears_our_alias(fields: Mapping[int, bytes]) -> bool:
    """It stays ours when somebody takes it out of our group."""
    return fields.get(m.IFLA_IFALIAS, b"").startswith(ALIAS.encode())


def _is_named_ours(name: str, kind: str, fields: Mapping[int, bytes]) -> bool:
    """The marks besides the group. All of them are set in the message that creates a link, but for the alias."""
    prefix = PREFIX_OF_KIND.get(kind)
    if prefix is None:
        return False
    if name.startswith(prefix):
        return True
    mac, alias = fields.get(m.IFLA_ADDRESS, b""), fields.get(m.IFLA_IFALIAS, b"")
    return kind == "bridge" and (mac.startswith(BRIDGE_MAC_PREFIX) or alias.startswith(ALIAS.encode()))


def foreign(found: Device) -> Foreign:
    """A link that is not ours: it may have a name that one of our networks wants, or hold its VNI on our port."""
    return Foreign(found.name, found.kind, found.vni if found.is_default_port else None)


def link(found: Device, body: bytes, names: Mapping[int, str]) -> Link:
    """Our link in the datapath's words. `names` tells the bridge's, or the uplink's."""
    flags, mtu = m.LINK.unpack_from(body)[3], found.mtu
    up = bool(flags & m.IFF_UP)
    is_marked = is_ours_group(found.group) and _bears_our_alias(found.fields)
    altered = not is_marked or steady.is_altered(found.kind, found.fields, flags)
    if found.kind == "bridge":
        ipv6 = setting(found, "disable_ipv6") == 0
        return Bridge(found.name, found.mac, mtu, ipv6=ipv6, up=up, altered=altered, network=found.network)
    if found.kind == "macvlan":
        return Shim(found.name, name_of(names, found.peer), found.mac, mtu, up=up)
    bridge = name_of(names, found.master)
    info = attributes(found.fields.get(m.IFLA_LINKINFO, b""), 0)
    port = attributes(info.get(m.IFLA_INFO_SLAVE_DATA, b""), 0)
    isolated = port.get(m.IFLA_BRPORT_ISOLATED) == m.ON
    if found.kind == "veth":
        hairpin = port.get(m.IFLA_BRPORT_MODE) == m.ON
        return Veth(found.name, mtu, bridge, isolated, up, hairpin, altered, network=found.network)
    data = attributes(info.get(m.IFLA_INFO_DATA, b""), 0)
    return Vxlan(
        name=found.name,
        vni=found.vni or 0,
        local=data.get(m.IFLA_VXLAN_LOCAL) or data.get(m.IFLA_VXLAN_LOCAL6) or b"",
        mtu=mtu,
        bridge=bridge,
        port=int.from_bytes(data.get(m.IFLA_VXLAN_PORT, b""), "big"),
        learning=data.get(m.IFLA_VXLAN_LEARNING) == m.ON or port.get(m.IFLA_BRPORT_LEARNING) == m.ON,
        # A device in no bridge has no port flags; they are told as they are wanted of every tunnel.
        suppress=port.get(m.IFLA_BRPORT_NEIGH_SUPPRESS) == m.ON or not bridge,
        isolated=isolated,
        up=up,
        mac=b"" if bridge or found.mac.startswith(m.PORT_MAC_PREFIX) else found.mac,  # only the wanted one matters
        altered=altered,
    )


def name_of(names: Mapping[int, str], index: int) -> str:
    return names.get(index, f"#{index}") if index else ""


def uplink(found: Device, body: bytes, names: Mapping[int, str], *, has_addresses: bool) -> Uplink:
    """A link of the host's own. A bridge without a carrier only has no ports yet, so that does not count as down."""
    up = bool(m.LINK.unpack_from(body)[3] & m.IFF_UP)
    is_bridge = found.kind == "bridge"
    # The state follows the carrier a moment later.
    works = found.fields.get(m.IFLA_CARRIER) == m.ON and found.fields.get(m.IFLA_OPERSTATE) in m.WORKING_STATES
    return Uplink(
        name=found.name,
        mtu=found.mtu,
        up=up and (works or is_bridge),
        mac=found.mac,
        bridge=name_of(names, found.master),
        is_bridge=is_bridge,
        has_addresses=has_addresses,
    )


def setting(found: Device, name: str) -> int | None:
    """A value of net/ipv6/conf/<device>/, as the link message carries it. None where the kernel has no IPv6."""
    families = attributes(found.fields.get(m.IFLA_AF_SPEC, b""), 0)
    values = attributes(families.get(m.AF_INET6, b""), 0).get(AF_INET6_CONF, b"")
    place = CONF_VALUES[name] * INT32.size
    return int(INT32.unpack_from(values, place)[0]) if len(values) >= place + INT32.size else None


def addresses(bodies: Iterable[bytes], names: Mapping[int, str]) -> Iterable[InterfaceAddress]:
    """On our devices, without the link-local ones that the kernel makes itself."""
    for body in bodies:
        _, length, _, scope, index = m.ADDRESS.unpack_from(body)
        name = names.get(index)
        if name is not None and scope != IFA_SCOPE_LINK:
            fields = attributes(body, m.ADDRESS.size)
            yield InterfaceAddress(name, fields.get(m.IFA_LOCAL) or fields[m.IFA_ADDRESS], length)


def has_global_address(bodies: Iterable[bytes], index: int) -> bool:
    heads = (m.ADDRESS.unpack_from(body) for body in bodies)
    return any(device == index and scope == m.RT_SCOPE_UNIVERSE for _, _, _, scope, device in heads)


def routes(bodies: Iterable[bytes]) -> Iterator[tuple[Route, int]]:
    """Those of our protocol in the main table, each with its device's index; `device` is still to be named."""
    for body in bodies:
        family, length, _, _, table, protocol, _, kind, flags = m.ROUTE.unpack_from(body)
        if protocol != PROTOCOL or table != m.RT_TABLE_MAIN or kind != m.RTN_UNICAST:
            continue
        fields = attributes(body, m.ROUTE.size)
        destination = fields.get(m.RTA_DST, bytes(4 if family == m.AF_INET else 16))
        gateway = fields.get(m.RTA_GATEWAY) or fields.get(m.RTA_VIA, b"")[m.FAMILY.size :]
        is_onlink = bool(flags & m.RTNH_F_ONLINK)
        route = Route(destination, length, "", fields.get(m.RTA_PREFSRC, b""), gateway, is_onlink)
        yield route, _u32(fields.get(m.RTA_OIF))


def way(body: bytes) -> int:
    """The index of the device that an answer of "how would you send there" names."""
    return _u32(attributes(body, m.ROUTE.size).get(m.RTA_OIF))


def destination(body: bytes) -> tuple[Ip, int]:
    family, length, *_ = m.ROUTE.unpack_from(body)
    return attributes(body, m.ROUTE.size).get(m.RTA_DST, bytes(4 if family == m.AF_INET else 16)), length


def is_our_route(body: bytes) -> bool:
    return bool(m.ROUTE.unpack_from(body)[5] == PROTOCOL)


def neighbours(bodies: Iterable[bytes], names: Mapping[int, str], family: int) -> list[Neighbour]:
    """Permanent, of our protocol, on our devices."""
    layout, dst_length, after = NEIGHBOUR_HEADS[family]
    unpack = layout.unpack_from
    tail = PROTOCOL_TAIL.unpack_from
    place = after + PROTOCOL_OFFSET
    enough = place + PROTOCOL_TAIL.size
    mine = (5, m.NDA_PROTOCOL, PROTOCOL)
    found: list[Neighbour] = []
    append = found.append
    for body in bodies:
        if len(body) >= enough:
            _, index, state, _, _, length, kind, address, _, kind2, mac = unpack(body)
            if state != m.NUD_PERMANENT or index not in names:
                continue
            if length == dst_length and kind == m.NDA_DST and kind2 == m.NDA_LLADDR and tail(body, place) == mine:
                append(Neighbour(names[index], address, mac))
                continue
        _walk_neighbour(body, names, found)
    return found


def _walk_neighbour(body: bytes, names: Mapping[int, str], found: list[Neighbour]) -> None:
    _, index, state, _, _ = m.NEIGHBOUR.unpack_from(body)
    if state != m.NUD_PERMANENT or index not in names:
        return
    fields = attributes(body, HEAD)
    if fields.get(m.NDA_PROTOCOL) == bytes([PROTOCOL]) and m.NDA_DST in fields:
        found.append(Neighbour(names[index], fields[m.NDA_DST], fields.get(m.NDA_LLADDR, b"")))


def forwarding(
    bodies: Iterable[bytes], names: Mapping[int, str], tunnels: Container[int]
) -> tuple[list[VtepEntry], list[PortEntry]]:
    """The tunnels' own entries, all of them (they learn nothing), and the bridges' entries that bear our mark."""
    vteps: list[VtepEntry] = []
    ports: list[PortEntry] = []
    unpack = FORWARDING.unpack_from
    self_, sticky, noarp = m.NTF_SELF, m.NTF_STICKY, m.NUD_NOARP
    for body in bodies:
        if len(body) < FORWARDING.size:
            continue
        _, index, state, flags, _, _, kind, mac, length2, kind2, value = unpack(body)
        if flags & self_:
            if index in tunnels:
                if kind == m.NDA_LLADDR and kind2 == m.NDA_DST and length2 == 8:
                    vteps.append(VtepEntry(names[index], mac, value))
                else:
                    _walk_vtep(body, names[index], vteps)
        elif flags & sticky and state == noarp and index in names and kind == m.NDA_LLADDR:
            ports.append(PortEntry(names[index], mac))
    return vteps, ports


def _walk_vtep(body: bytes, name: str, found: list[VtepEntry]) -> None:
    fields = attributes(body, HEAD)
    if m.NDA_LLADDR in fields and m.NDA_DST in fields:
        found.append(VtepEntry(name, fields[m.NDA_LLADDR], fields[m.NDA_DST]))


def _u32(value: bytes | None) -> int:
    return int(m.U32.unpack_from(value)[0]) if value else 0


def _text(value: bytes | None) -> str:
    return value.rstrip(b"\0").decode("utf-8", "replace") if value else ""
