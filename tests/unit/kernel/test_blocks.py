"""Which route belongs to a network, and which connection is meant: on bytes alone."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network

from hypothesis import given
from hypothesis import strategies as st

from datapath.objects import ForgetCallers, ForgetFlows, Route
from worker.kernel import callers
from worker.kernel.conntrack import (
    CTA_ID,
    CTA_IP_V4_DST,
    CTA_IP_V4_SRC,
    CTA_PROTO_DST_PORT,
    CTA_PROTO_NUM,
    CTA_PROTO_SRC_PORT,
    CTA_TUPLE_IP,
    CTA_TUPLE_ORIG,
    CTA_TUPLE_PROTO,
    CTA_TUPLE_REPLY,
    GENERIC,
    PORT,
    meant,
    parsed,
)
from worker.kernel.netlink import attribute, nested
from worker.kernel.routes import is_within

# Few bits that differ, so that containment is common.
v4 = st.builds(
    lambda value, length: ip_network((value << 26, length), strict=False), st.integers(0, 63), st.integers(0, 32)
)
v6 = st.builds(
    lambda value, length: ip_network((value << 122, length), strict=False), st.integers(0, 63), st.integers(0, 128)
)
Block = IPv4Network | IPv6Network


@given(st.one_of(v4, v6), st.lists(st.one_of(v4, v6), max_size=4))
def test_a_route_is_a_networks_if_it_leads_into_one_of_its_blocks(route: Block, blocks: list[Block]) -> None:
    found = is_within(
        Route(route.network_address.packed, route.prefixlen, ""),
        frozenset((block.network_address.packed, block.prefixlen) for block in blocks),
    )

    assert found == any(b.version == route.version and route.subnet_of(b) for b in blocks)  # type: ignore[arg-type]


def half(address: bytes, protocol: int, port: int) -> bytes:
    return nested(CTA_TUPLE_IP, attribute(CTA_IP_V4_SRC, address)) + nested(
        CTA_TUPLE_PROTO,
        attribute(CTA_PROTO_NUM, bytes([protocol])),
        attribute(CTA_PROTO_SRC_PORT, PORT.pack(port)),
    )


def flow(source: bytes, replier: bytes, protocol: int, port: int) -> bytes:
    original = attribute(CTA_TUPLE_ORIG, half(source, protocol, 40000))
    reply = attribute(CTA_TUPLE_REPLY, half(replier, protocol, port))
    return GENERIC.pack(2, 0, 0) + original + reply + attribute(CTA_ID, bytes(4))


addresses = st.sampled_from([bytes([10, 0, 0, last]) for last in range(4)])
flows = st.tuples(addresses, addresses, st.sampled_from([6, 17]), st.integers(80, 82))
wishes = st.one_of(
    st.builds(ForgetFlows, addresses),
    st.builds(ForgetFlows, addresses, st.sampled_from([6, 17]), st.integers(80, 82)),
)


@given(st.lists(flows, max_size=8), st.lists(wishes, max_size=4))
def test_a_connection_is_meant_by_who_answers_or_who_began_it(
    there: list[tuple[bytes, bytes, int, int]], wanted: list[ForgetFlows]
) -> None:
    found = [chosen for _, chosen in meant([flow(*entry) for entry in there], wanted)]

    def is_meant(source: bytes, replier: bytes, protocol: int, port: int) -> bool:
        return any(
            (not wish.port and wish.address in (source, replier))
            or (wish.port and (wish.address, wish.protocol, wish.port) == (replier, protocol, port))
            for wish in wanted
        )

    assert [(f.source, f.replier, f.protocol, f.port) for f in found] == [entry for entry in there if is_meant(*entry)]


OWN = frozenset({bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])})


@given(
    st.lists(st.tuples(addresses, addresses, st.sampled_from([6, 17]), st.integers(80, 81), st.integers(80, 81))),
    st.sets(
        st.builds(ForgetCallers, st.just(4), st.sampled_from([6, 17]), st.integers(80, 81), st.just(b"") | addresses)
    ),
)
def test_callers_are_those_of_a_port_of_this_host_that_were_led_nowhere(
    there: list[tuple[bytes, bytes, int, int, int]], wanted: set[ForgetCallers]
) -> None:
    """Each connection: whom it was for, who answers, the protocol, the port it was for, the port that answers."""
    bodies = [call(*entry) for entry in there]
    found = {flow.delete for _, flow in callers.meant(bodies, sorted(wanted, key=repr), OWN)}

    def is_meant(asked: bytes, replier: bytes, protocol: int, port: int, reply_port: int) -> bool:
        return (asked, port) == (replier, reply_port) and any(
            (op.protocol, op.port) == (protocol, port) and (asked == op.address if op.address else asked in OWN)
            for op in wanted
        )

    assert found == {flow.delete for entry in there if is_meant(*entry) and (flow := parsed(call(*entry)))}


def call(asked: bytes, replier: bytes, protocol: int, port: int, reply_port: int) -> bytes:
    to = nested(CTA_TUPLE_IP, attribute(CTA_IP_V4_SRC, bytes([192, 0, 2, 9])), attribute(CTA_IP_V4_DST, asked))
    proto = attribute(CTA_PROTO_NUM, bytes([protocol])) + attribute(CTA_PROTO_DST_PORT, PORT.pack(port))
    original = attribute(CTA_TUPLE_ORIG, to + nested(CTA_TUPLE_PROTO, proto))
    reply = attribute(CTA_TUPLE_REPLY, half(replier, protocol, reply_port))
    return GENERIC.pack(2, 0, 0) + original + reply + attribute(CTA_ID, bytes(4))


@given(st.binary(max_size=120))
def test_nonsense_is_no_connection_or_one_without_a_meaning(data: bytes) -> None:
    chosen = parsed(data)

    assert chosen is None or isinstance(chosen.port, int)
