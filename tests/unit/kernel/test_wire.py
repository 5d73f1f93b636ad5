"""Bytes in and out: attributes, announcements, events."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from datapath.objects import PROTOCOL, Hint, Neighbour
from worker.kernel import messages as m
from worker.kernel.announce import frame
from worker.kernel.events import Noticed
from worker.kernel.netlink import HEADER, Message, attribute, attribute_list, attributes

MAC = bytes.fromhex("020000000001")


@given(st.lists(st.tuples(st.integers(1, 1000), st.binary(max_size=40))))
def test_attributes_are_read_as_they_were_written(pairs: list[tuple[int, bytes]]) -> None:
    data = b"".join(attribute(kind, value) for kind, value in pairs)

    assert len(data) % 4 == 0
    assert list(attribute_list(data, 0)) == pairs
    assert attributes(data, 0) == dict(pairs)


@given(st.binary(max_size=200))
def test_nonsense_is_cut_short_and_never_raises(data: bytes) -> None:
    assert len(attributes(data, 0)) <= len(data) // 4 + 1


def test_an_arp_announcement_says_who_has_the_address_now() -> None:
    sent = frame(Neighbour("kvb0", bytes([10, 0, 0, 2]), MAC))

    assert sent[:14] == b"\xff" * 6 + MAC + b"\x08\x06"
    assert sent[22:] == MAC + bytes([10, 0, 0, 2]) + MAC + bytes([10, 0, 0, 2])


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=6, max_size=6))
def test_an_advertisement_has_a_checksum_that_adds_up(address: bytes, mac: bytes) -> None:
    sent = frame(Neighbour("kvb0", address, mac))
    packet = sent[14:]
    pseudo = packet[8:40] + len(packet[40:]).to_bytes(4, "big") + (58).to_bytes(4, "big")

    total = sum(struct.unpack(f">{len(pseudo + packet[40:]) // 2}H", pseudo + packet[40:]))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF


def event(message: Message, kind: int | None = None) -> bytes:
    return HEADER.pack(16 + len(message.body), kind or message.type, 0, 0, 0) + message.body


KNOWN = {7: "kvb0000000000aa", 8: "kvx0000000000aa"}


def hint_of(*datagrams: bytes) -> Hint | None:
    noticed = Noticed(dict(KNOWN))
    for datagram in datagrams:
        noticed.datagram(datagram)
    return noticed.taken() if noticed.is_any else None


def test_what_is_learned_from_traffic_is_no_hint() -> None:
    learned = m.NEIGHBOUR.pack(m.AF_BRIDGE, 8, 0x02, 0, 0) + attribute(m.NDA_LLADDR, MAC)

    assert hint_of(event(Message(m.RTM_NEWNEIGH, 0, learned))) is None
    assert hint_of(event(Message(m.RTM_DELNEIGH, 0, learned))) == Hint(frozenset({KNOWN[8]}))


def test_a_route_of_ours_over_a_device_of_others_is_a_hint_for_everything() -> None:
    head = m.ROUTE.pack(m.AF_INET, 24, 0, 0, m.RT_TABLE_MAIN, PROTOCOL, 0, m.RTN_UNICAST, 0)
    foreign = m.ROUTE.pack(m.AF_INET, 24, 0, 0, m.RT_TABLE_MAIN, 4, 0, m.RTN_UNICAST, 0)
    out = attribute(m.RTA_OIF, m.U32.pack(3))

    assert hint_of(event(Message(m.RTM_DELROUTE, 0, head + out))) == Hint()
    assert hint_of(event(Message(m.RTM_DELROUTE, 0, foreign + out))) is None


def test_a_port_that_leaves_its_bridge_is_still_known() -> None:
    name = attribute(m.IFLA_IFNAME, b"kvx0000000000aa\0")
    left = event(Message(m.RTM_DELLINK, 0, m.LINK.pack(m.AF_BRIDGE, 0, 8, 0, 0) + name))
    changed = event(m.remove_port_entry(8, MAC))

    noticed = Noticed(dict(KNOWN))
    noticed.datagram(left)
    noticed.taken()
    noticed.datagram(changed)

    assert noticed.taken() == Hint(frozenset({KNOWN[8]}))


def test_many_messages_in_one_datagram_are_all_seen() -> None:
    both = event(m.remove_neighbour(7, bytes([10, 0, 0, 1]))) + event(m.remove_port_entry(8, MAC))

    assert hint_of(both) == Hint(frozenset(KNOWN.values()))


def test_a_lost_event_outweighs_every_other() -> None:
    noticed = Noticed(dict(KNOWN))
    noticed.datagram(event(m.remove_port_entry(8, MAC)))
    noticed.lost()

    assert noticed.taken() == Hint()
    assert not noticed.is_any
