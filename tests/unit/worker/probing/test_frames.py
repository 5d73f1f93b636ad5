"""Probes are what the kernel takes them for, and are known again wherever a tap sees them."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.probing import frames
from worker.probing.frames import ETHERTYPE, IPV4, IPV6, Kind, Mark
from worker.probing.sight import Refusal, Seen, program, read

SESSION = b"\1" * 8
A4, B4 = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
A6, B6 = IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2")
marks = st.builds(
    Mark,
    st.just(SESSION),
    st.sampled_from(Kind),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFFFFFF),
)


def runs(protocol: int, packet: bytes) -> bool:
    """What the kernel does with the filter: classic BPF over a cooked packet, as far as the filter uses it."""
    lines, at, a, x = program(), 0, 0, 0
    while True:
        code, yes, no, k = lines[at]
        at += 1
        if code == 0x06:
            return bool(k)
        if code == 0x15:
            at += yes if a == k else no
            continue
        if code == 0xB1:
            if k >= len(packet):
                return False
            x = 4 * (packet[k] & 0x0F)
            continue
        size = {0x20: 4, 0x28: 2, 0x30: 1, 0x40: 4, 0x48: 2, 0x50: 1}[code]
        if k == 0xFFFFF000:
            a = protocol
            continue
        offset = k + (x if code in (0x40, 0x48, 0x50) else 0)
        if offset + size > len(packet):
            return False
        a = int.from_bytes(packet[offset : offset + size], "big")


@given(marks, st.integers(0, 1600), st.sampled_from([(A4, B4, IPV4), (A6, B6, IPV6)]))
def test_a_tunnel_packet_is_as_large_as_asked_for_and_is_read_again_inside_and_outside(
    mark: Mark, size: int, where: tuple[IPv4Address | IPv6Address, IPv4Address | IPv6Address, int]
) -> None:
    source, target, protocol = where

    packet = frames.tunnel_packet(source, target, 50000, 5007, mark, size)

    assert len(packet) == max(size, 20 + 8 + 8 + 14 + 27 + (20 if protocol == IPV6 else 0))
    assert read(protocol, packet) == Seen(mark, is_outer=True)
    assert runs(protocol, packet)
    inside = packet[(20 if protocol == IPV4 else 40) + 16 + 14 :]
    assert read(ETHERTYPE, inside) == Seen(mark)
    assert runs(ETHERTYPE, inside)


def test_an_ipv4_tunnel_packet_may_not_be_fragmented_and_an_ipv6_one_has_a_right_checksum() -> None:
    mark = Mark(SESSION, Kind.SIZED, 0)
    assert struct.unpack_from(">H", frames.tunnel_packet(A4, B4, 1, 0, mark), 6)[0] == 0x4000

    packet = frames.tunnel_packet(A6, B6, 50000, 0, mark, 200)
    pseudo = A6.packed + B6.packed + struct.pack(">II", len(packet) - 40, 17)
    assert frames.internet_checksum(pseudo + packet[40:]) == 0


def test_the_inner_frame_is_to_nobody() -> None:
    packet = frames.tunnel_packet(A4, B4, 50000, 5007, Mark(SESSION, Kind.TUNNEL, 0))

    assert packet[36:42].hex() == "0180c200000e", "no bridge passes that on"
    assert packet[28:36] == struct.pack(">II", 0x08000000, 5007 << 8)


@pytest.mark.parametrize(("version", "protocol"), [(4, IPV4), (6, IPV6)])
def test_an_echo_and_its_reply_are_told_apart(version: int, protocol: int) -> None:
    mark = Mark(SESSION, Kind.ECHO_FULL, 1, 1450, 4, 9)
    request = frames.echo_request(version, 7, 3, mark.packed())
    reply = bytes([frames.ECHO_REPLY[version]]) + request[1:]

    for message, is_reply in ((request, False), (reply, True)):
        packet = ip(version, 1 if version == 4 else 58, message)
        assert read(protocol, packet) == Seen(mark, is_reply=is_reply)
        assert runs(protocol, packet)
    raw = ip(4, 1, reply) if version == 4 else reply
    assert frames.read_echo_reply(version, raw) == (7, 3)


def test_a_router_that_says_how_much_passes_is_heard() -> None:
    mark = Mark(SESSION, Kind.SIZED, 0)
    quoted = frames.tunnel_packet(A4, B4, 50000, 0, mark, 1500)[:28]  # some routers quote no more
    too_big = ip(4, 1, struct.pack(">BBHHH", 3, 4, 0, 0, 1400) + quoted, source="198.51.100.1")
    assert read(IPV4, too_big) == Refusal(B4, 50000, ip_address("198.51.100.1"), 1400)
    assert runs(IPV4, too_big)

    refused = ip(4, 1, struct.pack(">BBHI", 3, 3, 0, 0) + quoted, source="192.0.2.2")
    assert read(IPV4, refused) == Refusal(B4, 50000, B4, 0, is_port=True)

    quoted6 = frames.tunnel_packet(A6, B6, 50000, 0, mark, 1500)[:48]
    too_big6 = ip(6, 58, struct.pack(">BBHI", 2, 0, 0, 1400) + quoted6)
    assert read(IPV6, too_big6) == Refusal(B6, 50000, A6, 1400)
    assert runs(IPV6, too_big6)


@given(st.sampled_from([IPV4, IPV6, ETHERTYPE, 0x0806]), st.binary(max_size=200))
def test_what_is_not_ours_is_neither_let_through_nor_read(protocol: int, packet: bytes) -> None:
    assert read(protocol, packet) is None or b"kvnetprb" in packet or b"\x12\xb5" in packet
    if runs(protocol, packet):
        assert b"kvnetprb" in packet or b"\x12\xb5" in packet


def test_a_question_by_arp_comes_from_nobody_and_goes_to_one() -> None:
    own, mac = b"\2" * 6, b"\4" * 6

    frame = frames.arp_probe(own, mac, B4)

    assert frame[:12] == mac + own
    assert frame[28:32] == bytes(4), "no sender's address: nobody remembers it"
    answer = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 2) + mac + B4.packed + own + bytes(4)
    assert frames.is_arp_answer(answer, mac, B4)
    assert not frames.is_arp_answer(answer, own, B4)
    assert not frames.is_arp_answer(frame[14:], mac, B4), "that is the question"


def ip(version: int, protocol: int, payload: bytes, source: str = "") -> bytes:
    if version == 4:
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0)
        return head + socket.inet_aton(source or str(A4)) + B4.packed + payload
    return struct.pack(">IHBB", 6 << 28, len(payload), protocol, 64) + A6.packed + B6.packed + payload
