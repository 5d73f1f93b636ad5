"""What of our bridges and ports is the same in every network: no spanning tree, no filtering, all kinds of flooding.

The datapath has no words for these; it knows only whether a link still has them (`altered`). They are what the kernel
gives a new link, so they are written only where somebody changed them.
Pure: tells what differs, and builds the messages that put it right.
"""

from __future__ import annotations

from collections.abc import Mapping

from datapath.objects import LINK_GROUP
from worker.kernel import messages as m
from worker.kernel.netlink import Message, attribute, attributes, nested

# linux/if_link.h, by number.
PORT: Mapping[int, bytes] = {
    5: m.OFF,  # GUARD
    6: m.OFF,  # PROTECT
    9: m.ON,  # UNICAST_FLOOD
    10: m.OFF,  # PROXYARP
    12: m.OFF,  # PROXYARP_WIFI
    27: m.ON,  # MCAST_FLOOD
    28: m.OFF,  # MCAST_TO_UCAST
    29: m.OFF,  # VLAN_TUNNEL
    30: m.ON,  # BCAST_FLOOD
    39: m.OFF,  # LOCKED
}
VETH = {**PORT, m.IFLA_BRPORT_LEARNING: m.ON, m.IFLA_BRPORT_NEIGH_SUPPRESS: m.OFF}
VXLAN = {**PORT, m.IFLA_BRPORT_MODE: m.OFF}
BRIDGE: Mapping[int, bytes] = {
    m.IFLA_BR_STP_STATE: m.U32.pack(0),
    7: m.OFF,  # VLAN_FILTERING
    m.IFLA_BR_MCAST_SNOOPING: m.OFF,
}
PORTS = {"veth": VETH, "vxlan": VXLAN}


def is_altered(kind: str, fields: Mapping[int, bytes], flags: int) -> bool:
    """`fields` and `flags`: those of the link's message."""
    return bool(flags & m.IFF_NOARP or _of_port(kind, fields) or _of_bridge(kind, fields))


def restoring(index: int, kind: str, fields: Mapping[int, bytes], alias: str) -> list[Message]:
    """For a link of ours that was found with these fields."""
    found = [m.set_link(index, arp=True, group=LINK_GROUP, alias=alias)]
    if wrong := _of_bridge(kind, fields):
        found.append(m.set_bridge(index, *(attribute(number, value) for number, value in wrong.items())))
    if wrong := _of_port(kind, fields):
        flags = nested(m.IFLA_PROTINFO, *(attribute(number, value) for number, value in wrong.items()))
        found.append(Message(m.RTM_SETLINK, 0, m.LINK.pack(m.AF_BRIDGE, 0, index, 0, 0) + flags))
    return found


def _of_port(kind: str, fields: Mapping[int, bytes]) -> dict[int, bytes]:
    """What should be there. What the kernel does not tell it does not know, and a link in no bridge has none of it."""
    info = attributes(fields.get(m.IFLA_LINKINFO, b""), 0)
    if info.get(m.IFLA_INFO_SLAVE_KIND, b"").rstrip(b"\0") != b"bridge":
        return {}
    return _wrong(PORTS.get(kind, {}), attributes(info.get(m.IFLA_INFO_SLAVE_DATA, b""), 0))


def _of_bridge(kind: str, fields: Mapping[int, bytes]) -> dict[int, bytes]:
    if kind != "bridge":
        return {}
    info = attributes(fields.get(m.IFLA_LINKINFO, b""), 0)
    return _wrong(BRIDGE, attributes(info.get(m.IFLA_INFO_DATA, b""), 0))


def _wrong(wanted: Mapping[int, bytes], there: Mapping[int, bytes]) -> dict[int, bytes]:
    return {number: value for number, value in wanted.items() if there.get(number, value) != value}
