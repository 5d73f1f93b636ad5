"""What probes look like on the wire, and how they are known again: plain bytes, nothing is sent here.

Every probe bears a mark: which test it belongs to, what it tries, and where it comes from. So a listener counts its own
test's packets and no others, and never has to answer one: nothing here can be used to make a host send anything.

A probe of the tunnel's port is a VXLAN packet as the kernel's own are. Inside is a frame to an address that no bridge
passes on (IEEE 802.1D, 01:80:C2:00:00:0E), of a type that nobody handles (IEEE 802, for local experiments): whoever
listens behind the tunnel sees it, and no workload does. In a segment that no network has (0) it ends in the kernel.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

from datapath.objects import VXLAN_PORT
from kvnet.model import Address

MAGIC = b"kvnetprb"
MARK = struct.Struct(">8s8sBHHHI")  # magic, session, kind, source, size, sequence, pair
SESSION_BYTES = 8
NO_VNI = 0  # kvnet's networks have 1 and more
INNER_TO = bytes.fromhex("0180c200000e")
INNER_FROM = bytes.fromhex("026b70726f62")
ETHERTYPE = 0x88B5
IPV4, IPV6, ARP = 0x0800, 0x86DD, 0x0806
IPV4_HEADER, IPV6_HEADER, UDP_HEADER, VXLAN_HEADER, ETHERNET_HEADER, ICMP_HEADER = 20, 40, 8, 8, 14, 8
DONT_FRAGMENT = 0x4000
HOPS = 64
UDP, ICMP, ICMPV6 = 17, 1, 58
ECHO_REQUEST = {4: 8, 6: 128}
ECHO_REPLY = {4: 0, 6: 129}
UNREACHABLE, PORT_UNREACHABLE, TOO_BIG_V4 = 3, 3, 4
TOO_BIG_V6, UNREACHABLE_V6, PORT_UNREACHABLE_V6 = 2, 1, 4
VXLAN_FLAGS = 0x08000000  # RFC 7348: the VNI is valid


class Kind(IntEnum):
    TUNNEL = 1  # does it come out of the far tunnel?
    SIZED = 2  # does it arrive whole, without fragments?
    ECHO = 3  # between endpoints
    ECHO_FULL = 4  # the same, as large as the network allows


@dataclass(frozen=True, slots=True)
class Mark:
    """`source`: the sender's number in the test. `pair`: which two endpoints. `size`: of the outer packet."""

    session: bytes
    kind: Kind
    source: int
    size: int = 0
    sequence: int = 0
    pair: int = 0

    def packed(self) -> bytes:
        return MARK.pack(MAGIC, self.session, self.kind, self.source, self.size, self.sequence, self.pair)


def read_mark(data: bytes, offset: int) -> Mark | None:
    """None where there is none: too short, or somebody else's."""
    if len(data) < offset + MARK.size or data[offset : offset + len(MAGIC)] != MAGIC:
        return None
    _, session, kind, source, size, sequence, pair = MARK.unpack_from(data, offset)
    try:
        return Mark(session, Kind(kind), source, size, sequence, pair)
    except ValueError:
        return None


def tunnel_packet(source: Address, target: Address, source_port: int, vni: int, mark: Mark, size: int = 0) -> bytes:
    """An IP packet (not to be fragmented) with a VXLAN frame; at least `size` bytes long."""
    inner = INNER_TO + INNER_FROM + struct.pack(">H", ETHERTYPE) + mark.packed()
    payload = struct.pack(">II", VXLAN_FLAGS, vni << 8) + inner
    header = IPV4_HEADER if source.version == 4 else IPV6_HEADER
    payload += bytes(max(0, size - header - UDP_HEADER - len(payload)))
    length = UDP_HEADER + len(payload)
    udp = struct.pack(">HHHH", source_port, VXLAN_PORT, length, 0)
    if isinstance(source, IPv4Address):  # without a checksum, as the kernel's own
        first = struct.pack(">BBHHHBBH", 0x45, 0, header + length, 0, DONT_FRAGMENT, HOPS, UDP, 0)
        return first + source.packed + target.packed + udp + payload
    pseudo = source.packed + target.packed + struct.pack(">II", length, UDP)
    checksum = internet_checksum(pseudo + udp + payload) or 0xFFFF
    udp = struct.pack(">HHHH", source_port, VXLAN_PORT, length, checksum)
    return struct.pack(">IHBB", 6 << 28, length, UDP, HOPS) + source.packed + target.packed + udp + payload


def echo_request(version: int, identifier: int, sequence: int, payload: bytes) -> bytes:
    """Without a checksum for IPv6: the kernel fills that in (RFC 3542 section 3.1)."""
    body = struct.pack(">HH", identifier, sequence) + payload
    checksum = internet_checksum(struct.pack(">BBH", ECHO_REQUEST[4], 0, 0) + body) if version == 4 else 0
    return struct.pack(">BBH", ECHO_REQUEST[version], 0, checksum) + body


def read_echo_reply(version: int, packet: bytes) -> tuple[int, int] | None:
    """Identifier and sequence, of what a raw socket of that version received."""
    offset = (packet[0] & 0x0F) * 4 if version == 4 and packet else 0
    if len(packet) < offset + ICMP_HEADER or packet[offset] != ECHO_REPLY[version]:
        return None
    identifier, sequence = struct.unpack_from(">HH", packet, offset + 4)
    return identifier, sequence


def arp_probe(own_mac: bytes, mac: bytes, address: IPv4Address) -> bytes:
    """A question to that MAC alone, from nobody (RFC 5227): it is answered, and nobody remembers who asked.

    A bridge that answers for others does not answer this one, so the answer is the endpoint's own.
    """
    arp = struct.pack(">HHBBH", 1, IPV4, 6, 4, 1) + own_mac + bytes(4) + bytes(6) + address.packed
    return mac + own_mac + struct.pack(">H", ARP) + arp


def is_arp_answer(frame: bytes, mac: bytes, address: IPv4Address) -> bool:
    """Of what a packet socket received, without its Ethernet header."""
    return len(frame) >= 28 and frame[6:8] == b"\0\2" and frame[8:14] == mac and frame[14:18] == address.packed


def neighbour_solicitation(own: IPv6Address, address: IPv6Address) -> bytes:
    """The ICMPv6 message, to be sent to the address itself with 255 hops."""
    return struct.pack(">BBHI", 135, 0, 0, 0) + address.packed


def is_neighbour_advertisement(packet: bytes, address: IPv6Address) -> bool:
    return len(packet) >= 24 and packet[0] == 136 and packet[8:24] == address.packed


def internet_checksum(data: bytes) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
