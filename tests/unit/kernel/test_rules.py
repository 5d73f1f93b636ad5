"""The rules' text and what is read back of it, without a kernel."""

from __future__ import annotations

import re
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapath.objects import Firewall, Publication
from worker.kernel.elements import difference, elements
from worker.kernel.nftables import blocks_between
from worker.kernel.rules import RULES, replacement

HEX = st.text("0123456789abcdef", min_size=12, max_size=12)
BRIDGES = st.frozensets(HEX.map("kvb".__add__), max_size=5)
LENGTHS = st.integers(0, 16)


def block(seed: int, prefix_length: int, size: int) -> tuple[bytes, int]:
    bits = 8 * size
    return (seed % (1 << bits) >> (bits - prefix_length) << (bits - prefix_length)).to_bytes(size, "big"), prefix_length


BLOCKS4 = st.frozensets(st.builds(block, st.integers(0), st.integers(1, 32), st.just(4)), max_size=6)
BLOCKS6 = st.frozensets(st.builds(block, st.integers(0), st.integers(1, 128), st.just(16)), max_size=4)
PORTS = st.integers(1, 65535)


def one_for_each_port(found: frozenset[Publication]) -> frozenset[Publication]:
    return frozenset({(p.protocol, p.address, p.port, len(p.to)): p for p in found}.values())


@st.composite
def publications(draw: st.DrawFn) -> Publication:
    size = draw(st.sampled_from((4, 16)))
    one = st.binary(min_size=size, max_size=size)
    address = draw(st.one_of(st.just(b""), one))
    return Publication(draw(st.sampled_from((6, 17))), address, draw(PORTS), draw(one), draw(PORTS))


FIREWALLS = st.builds(
    Firewall,
    bridges=BRIDGES,
    internal=BRIDGES,
    subnets4=BLOCKS4,
    subnets6=BLOCKS6,
    isolated=BRIDGES,
    pairs=st.frozensets(st.tuples(HEX.map("kvb".__add__), st.just("br-lan.7")), max_size=3),
    within=st.frozensets(st.tuples(st.just("br-lan.7"), st.one_of(BLOCKS4, BLOCKS6).filter(bool).map(min)), max_size=3),
    blocks=st.builds(frozenset.union, BLOCKS4, BLOCKS6),
    publications=st.frozensets(publications(), max_size=6).map(one_for_each_port),
    vxlans=st.frozensets(HEX.map("kvx".__add__), max_size=3),
    apart=st.frozensets(HEX.map("kvx".__add__), max_size=3),
    gateway_macs=st.frozensets(st.binary(min_size=6, max_size=6), max_size=3),
    dockers=st.frozensets(HEX.map("br-".__add__), max_size=3),
)
LINE = re.compile(r"(add|delete) element (\w+) kvnet (\w+) \{ (.*) \}")


@given(FIREWALLS, FIREWALLS)
def test_a_difference_leads_from_one_content_to_the_other(wanted: Firewall, actual: Firewall) -> None:
    """A map's element is known by its key alone, and a key must be free when it is given away anew."""
    held = {place: dict(map(key_and_data, items)) for place, items in elements(actual).items()}

    for line in difference(wanted, actual).splitlines():
        match = LINE.fullmatch(line)
        assert match is not None, line
        verb, family, name, items = match.groups()
        place = held[family, name]
        for key, data in map(key_and_data, items.split(", ")):
            assert (key in place) == (verb == "delete"), "nothing is removed that is not there, or added twice"
            if verb == "delete":
                assert data == "", "removed by its key"
                del place[key]
            else:
                place[key] = data

    assert held == {place: dict(map(key_and_data, items)) for place, items in elements(wanted).items()}


def key_and_data(element: str) -> tuple[str, str]:
    """`::` of an IPv6 address is no separator: that has blanks around it."""
    key, _, data = element.partition(" : ")
    return key, data


@given(FIREWALLS)
def test_no_difference_is_no_text(firewall: Firewall) -> None:
    assert difference(firewall, firewall) == ""


@given(FIREWALLS)
def test_a_replacement_takes_both_tables_away_first(firewall: Firewall) -> None:
    lines = replacement(firewall, "").splitlines()

    assert lines[:4] == [
        "table inet kvnet",
        "delete table inet kvnet",
        "table bridge kvnet",
        "delete table bridge kvnet",
    ]


def test_the_rules_have_no_numbered_sets() -> None:
    """Their names would differ from load to load, and so would the fingerprint."""
    rules = [line for line in RULES.splitlines() if "{" in line and not re.search(r"^\s*(table|set|map|chain) ", line)]
    assert rules == []


@given(st.text(max_size=20))
def test_only_names_of_devices_reach_the_text(name: str) -> None:
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]{0,14}", name):
        return
    with pytest.raises(ValueError, match="cannot be the name of a device"):
        elements(Firewall(bridges=frozenset({name})))


@pytest.mark.parametrize(
    "publication",
    [
        Publication(6, b"", 0, bytes(4), 80),
        Publication(6, b"", 80, bytes(4), 65536),
        Publication(256, b"", 80, bytes(4), 80),
        Publication(6, bytes(4), 80, bytes(16), 80),
    ],
)
def test_a_publication_that_cannot_be_is_refused(publication: Publication) -> None:
    with pytest.raises(ValueError, match=r"publication|family"):
        elements(Firewall(publications=frozenset({publication})))


@given(BLOCKS4)
def test_intervals_as_the_kernel_spells_them_are_the_blocks_again(blocks: frozenset[tuple[bytes, int]]) -> None:
    apart: list[tuple[bytes, int]] = []
    for candidate in sorted(blocks):
        if not any(ip_network(candidate).overlaps(ip_network(other)) for other in apart):
            apart.append(candidate)
    edges = []
    for address, length in apart:
        start = int.from_bytes(address, "big")
        edges.append((start, False))
        if start + (1 << 32 - length) < 1 << 32:  # the kernel leaves the end of the last one out
            edges.append((start + (1 << 32 - length), True))

    assert frozenset(blocks_between(edges, 4)) == frozenset(apart)


def test_an_interval_that_is_no_block_is_refused() -> None:
    with pytest.raises(ValueError, match="not a block"):
        list(blocks_between([(1, False), (4, True)], 4))
