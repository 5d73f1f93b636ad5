"""Bytes in and out: attributes, announcements, events."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapath.objects import PROTOCOL, Hint, Neighbour
from worker.kernel import messages as m
from worker.kernel.announce import frame
from worker.kernel.events import Interest, Noticed
from worker.kernel.netlink import HEADER, Message, attribute, attribute_list, attributes
from worker.kernel.nftables import BIG32, GENERIC, NEWGEN, NFPROTO, SUBSYSTEM

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
    noticed = Noticed(Interest(dict(KNOWN)))
    for datagram in datagrams:
        noticed.datagram(datagram)
    return noticed.taken() if noticed.is_any else None


def test_what_is_learned_from_traffic_is_no_hint() -> None:
    learned = m.NEIGHBOUR.pack(m.AF_BRIDGE, 8, 0x02, 0, 0) + attribute(m.NDA_LLADDR, MAC)

    assert hint_of(event(Message(m.RTM_NEWNEIGH, 0, learned))) is None
    assert hint_of(event(Message(m.RTM_DELNEIGH, 0, learned))) == Hint(frozenset({KNOWN[8]}))


OUT = attribute(m.RTA_OIF, m.U32.pack(3)) + attribute(m.RTA_DST, bytes([10, 5, 1, 0]))
OUR_WAY = m.ROUTE.pack(m.AF_INET, 24, 0, 0, m.RT_TABLE_MAIN, PROTOCOL, 0, m.RTN_UNICAST, 0) + OUT
FOREIGN_WAY = m.ROUTE.pack(m.AF_INET, 24, 0, 0, m.RT_TABLE_MAIN, 4, 0, m.RTN_UNICAST, 0) + OUT
WAYS = frozenset({(bytes([10, 5, 1, 0]), 24)})


def test_a_route_of_ours_over_a_device_of_others_is_a_hint_by_its_destination() -> None:
    assert hint_of(event(Message(m.RTM_DELROUTE, 0, OUR_WAY))) == Hint(routes=WAYS)


def test_a_route_of_others_is_the_underlays_business() -> None:
    assert hint_of(event(Message(m.RTM_DELROUTE, 0, FOREIGN_WAY))) == Hint(underlay=True)


def test_a_route_of_others_in_place_of_ours_is_a_hint_for_that() -> None:
    """`ip route replace` tells of the new one only."""
    both = event(Message(m.RTM_NEWROUTE, 0, OUR_WAY)) + event(Message(m.RTM_NEWROUTE, 0, FOREIGN_WAY))

    assert hint_of(both) == Hint(routes=WAYS, underlay=True)


def test_a_link_of_others_that_goes_down_takes_routes_of_ours_with_it() -> None:
    name = attribute(m.IFLA_IFNAME, b"eth0\0")
    noticed = Noticed(Interest(dict(KNOWN), routes=set(WAYS)))

    noticed.datagram(event(Message(m.RTM_NEWLINK, 0, m.LINK.pack(0, 0, 3, 0, m.IFF_UP) + name)))

    assert noticed.taken() == Hint(routes=WAYS, underlay=True)


@pytest.mark.parametrize("event_of", ["link", "renamed"])
def test_an_uplink_is_known_by_its_name(event_of: str) -> None:
    name = attribute(m.IFLA_IFNAME, b"eth0\0" if event_of == "link" else b"other\0")
    noticed = Noticed(Interest(dict(KNOWN), {3: "eth0"}, {"eth0"}))

    noticed.datagram(event(Message(m.RTM_NEWLINK, 0, m.LINK.pack(0, 0, 3, 0, 0) + name)))

    assert noticed.taken() == Hint(frozenset({"eth0"}))


def test_forwarding_of_all_devices_is_the_hosts_business_that_of_one_is_not() -> None:
    def setting(index: int) -> bytes:
        body = bytes(4) + attribute(1, m.U32.pack(index)) + attribute(2, m.U32.pack(0))
        return event(Message(80, 0, body))

    assert hint_of(setting(7)) is None
    assert hint_of(setting((1 << 32) - 1)) == Hint(host=True)


def nft_event(kind: int, family: int, *fields: bytes) -> bytes:
    return event(Message(SUBSYSTEM | kind, 0, GENERIC.pack(family, 0, 0) + b"".join(fields)))


IP, RULE, CHAIN, GENERATION = NFPROTO["ip"], 6, 3, NEWGEN
FILTER = attribute(1, b"filter\0")


def test_only_rules_that_concern_us_are_a_hint() -> None:
    forward_hook = attribute(4, attribute(1, BIG32.pack(2)))
    concerning = {
        "our table": nft_event(RULE, NFPROTO["inet"], attribute(1, b"kvnet\0")),
        "a gate": nft_event(RULE, IP, FILTER, attribute(2, b"FORWARD\0")),
        "a new chain on the hook": nft_event(CHAIN, IP, attribute(1, b"mine\0"), attribute(3, b"f\0"), forward_hook),
    }
    others = {
        "another chain of that table": nft_event(RULE, IP, FILTER, attribute(2, b"INPUT\0")),
        "another table": nft_event(RULE, IP, attribute(1, b"nat\0"), attribute(2, b"FORWARD\0")),
        "the generation": nft_event(GENERATION, 0),
    }

    assert {what: hint_of(data) for what, data in concerning.items()} == dict.fromkeys(concerning, Hint(firewall=True))
    assert {what: hint_of(data) for what, data in others.items()} == dict.fromkeys(others, None)


def test_a_port_that_leaves_its_bridge_is_still_known() -> None:
    name = attribute(m.IFLA_IFNAME, b"kvx0000000000aa\0")
    left = event(Message(m.RTM_DELLINK, 0, m.LINK.pack(m.AF_BRIDGE, 0, 8, 0, 0) + name))
    changed = event(m.remove_port_entry(8, MAC))

    noticed = Noticed(Interest(dict(KNOWN)))
    noticed.datagram(left)
    noticed.taken()
    noticed.datagram(changed)

    assert noticed.taken() == Hint(frozenset({KNOWN[8]}))


def test_many_messages_in_one_datagram_are_all_seen() -> None:
    both = event(m.remove_neighbour(7, bytes([10, 0, 0, 1]))) + event(m.remove_port_entry(8, MAC))

    assert hint_of(both) == Hint(frozenset(KNOWN.values()))


def test_a_lost_event_outweighs_every_other() -> None:
    noticed = Noticed(Interest(dict(KNOWN)))
    noticed.datagram(event(m.remove_port_entry(8, MAC)))
    noticed.lost()

    assert noticed.taken() == Hint()
    assert not noticed.is_any
