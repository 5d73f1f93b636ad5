"""What a tap on all of a host's devices lets through, and what it saw: a filter for the kernel, and a reader.

The tap is a cooked packet socket: what it gets begins with the network header, whatever the link is. Pure.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from datapath.objects import VXLAN_PORT
from kvnet.model import Address
from worker.probing import frames
from worker.probing.frames import (
    ETHERNET_HEADER,
    ETHERTYPE,
    ICMP,
    ICMP_HEADER,
    ICMPV6,
    IPV4,
    IPV4_HEADER,
    IPV6,
    IPV6_HEADER,
    MAGIC,
    UDP,
    UDP_HEADER,
    VXLAN_HEADER,
    Mark,
)

IN_TUNNEL = UDP_HEADER + VXLAN_HEADER + ETHERNET_HEADER  # from the UDP header to the mark
PACKET_OUTGOING = 4  # if_packet.h
LONGEST = 512  # of a packet is kept; the marks are in front

# Classic BPF (linux/filter.h)
LD_W, LD_H, LD_B, LD_W_X, LD_H_X, LD_B_X, LDX_MSH = 0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0xB1
JUMP_EQUAL, RETURN = 0x15, 0x06
PROTOCOL_OF_PACKET = 0xFFFFF000  # SKF_AD_OFF + SKF_AD_PROTOCOL
ACCEPT, REJECT = "accept", "reject"
Line = tuple[int, int, str, str]  # code, operand, label if true, label if not ("" = the next line)


@dataclass(frozen=True, slots=True)
class Seen:
    """A probe on its way. `is_reply`: the answer to an echo. `is_outer`: still in its tunnel."""

    mark: Mark
    is_outer: bool = False
    is_reply: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """A router or host, `by`, says that a packet to `target`'s tunnel port went no further.

    `mtu`: what would; 0 = not that. `is_port`: nobody has the port there, or a firewall says so.
    """

    target: Address
    source_port: int
    by: Address
    mtu: int = 0
    is_port: bool = False


def read(protocol: int, packet: bytes) -> Seen | Refusal | None:
    """None: nothing of ours."""
    if protocol == ETHERTYPE:
        mark = frames.read_mark(packet, 0)
        return Seen(mark) if mark is not None else None
    if protocol == IPV4 and len(packet) >= IPV4_HEADER:
        return _read_ip(4, packet[9], packet, (packet[0] & 0x0F) * 4)
    if protocol == IPV6 and len(packet) >= IPV6_HEADER:
        return _read_ip(6, packet[6], packet, IPV6_HEADER)
    return None


def _read_ip(version: int, protocol: int, packet: bytes, offset: int) -> Seen | Refusal | None:
    if protocol == UDP:
        mark = frames.read_mark(packet, offset + IN_TUNNEL)
        return Seen(mark, is_outer=True) if mark is not None else None
    if protocol not in (ICMP, ICMPV6) or len(packet) < offset + ICMP_HEADER:
        return None
    if packet[offset] in (frames.ECHO_REQUEST[version], frames.ECHO_REPLY[version]):
        mark = frames.read_mark(packet, offset + ICMP_HEADER)
        return Seen(mark, is_reply=packet[offset] == frames.ECHO_REPLY[version]) if mark is not None else None
    return _read_refusal(version, packet, offset)


def _read_refusal(version: int, packet: bytes, offset: int) -> Refusal | None:
    kind, code, _, word = struct.unpack_from(">BBHI", packet, offset)
    quoted = offset + ICMP_HEADER
    header = IPV4_HEADER if version == 4 else IPV6_HEADER
    if len(packet) < quoted + header + 4:
        return None
    source_port, port = struct.unpack_from(">HH", packet, quoted + header)
    if port != VXLAN_PORT:
        return None
    by: Address
    target: Address
    if version == 4:
        by, target = IPv4Address(packet[12:16]), IPv4Address(packet[quoted + 16 : quoted + 20])
        if kind != frames.UNREACHABLE:
            return None
        mtu = word & 0xFFFF if code == frames.TOO_BIG_V4 else 0
        return Refusal(target, source_port, by, mtu, is_port=code == frames.PORT_UNREACHABLE)
    by, target = IPv6Address(packet[8:24]), IPv6Address(packet[quoted + 24 : quoted + 40])
    if kind == frames.TOO_BIG_V6:
        return Refusal(target, source_port, by, word)
    if kind == frames.UNREACHABLE_V6:
        return Refusal(target, source_port, by, is_port=code == frames.PORT_UNREACHABLE_V6)
    return None


def program() -> list[tuple[int, int, int, int]]:
    """The filter, as (code, jump if true, jump if not, operand)."""
    high, low = struct.unpack(">II", MAGIC)

    def marked(load: int, offset: int, label: str) -> list[tuple[str, Line]]:
        return [
            (label, (load, offset, "", "")),
            ("", (JUMP_EQUAL, high, "", REJECT)),
            ("", (load, offset + 4, "", "")),
            ("", (JUMP_EQUAL, low, ACCEPT, REJECT)),
        ]

    quoted4, quoted6 = ICMP_HEADER + IPV4_HEADER + 2, IPV6_HEADER + ICMP_HEADER + IPV6_HEADER + 2
    lines: list[tuple[str, Line]] = [
        ("", (LD_W, PROTOCOL_OF_PACKET, "", "")),
        ("", (JUMP_EQUAL, ETHERTYPE, "bare", "")),
        ("", (JUMP_EQUAL, IPV4, "v4", "")),
        ("", (JUMP_EQUAL, IPV6, "v6", REJECT)),
        *marked(LD_W, 0, "bare"),
        ("v4", (LDX_MSH, 0, "", "")),
        ("", (LD_B, 9, "", "")),
        ("", (JUMP_EQUAL, UDP, "udp4", "")),
        ("", (JUMP_EQUAL, ICMP, "", REJECT)),
        ("", (LD_B_X, 0, "", "")),
        ("", (JUMP_EQUAL, frames.ECHO_REQUEST[4], "echo4", "")),
        ("", (JUMP_EQUAL, frames.ECHO_REPLY[4], "echo4", "")),
        ("", (JUMP_EQUAL, frames.UNREACHABLE, "", REJECT)),
        ("", (LD_H_X, quoted4, "", "")),
        ("", (JUMP_EQUAL, VXLAN_PORT, ACCEPT, REJECT)),
        *marked(LD_W_X, ICMP_HEADER, "echo4"),
        *marked(LD_W_X, IN_TUNNEL, "udp4"),
        ("v6", (LD_B, 6, "", "")),
        ("", (JUMP_EQUAL, UDP, "udp6", "")),
        ("", (JUMP_EQUAL, ICMPV6, "", REJECT)),
        ("", (LD_B, IPV6_HEADER, "", "")),
        ("", (JUMP_EQUAL, frames.ECHO_REQUEST[6], "echo6", "")),
        ("", (JUMP_EQUAL, frames.ECHO_REPLY[6], "echo6", "")),
        ("", (JUMP_EQUAL, frames.TOO_BIG_V6, "quoted6", "")),
        ("", (JUMP_EQUAL, frames.UNREACHABLE_V6, "quoted6", REJECT)),
        ("quoted6", (LD_H, quoted6, "", "")),
        ("", (JUMP_EQUAL, VXLAN_PORT, ACCEPT, REJECT)),
        *marked(LD_W, IPV6_HEADER + ICMP_HEADER, "echo6"),
        *marked(LD_W, IPV6_HEADER + IN_TUNNEL, "udp6"),
        (ACCEPT, (RETURN, LONGEST, "", "")),
        (REJECT, (RETURN, 0, "", "")),
    ]
    at = {label: number for number, (label, _) in enumerate(lines) if label}

    def jump(number: int, label: str) -> int:
        return at[label] - number - 1 if label else 0

    return [(c, jump(n, yes), jump(n, no), k) for n, (_, (c, k, yes, no)) in enumerate(lines)]
