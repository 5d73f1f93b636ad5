"""Choosing host ports: what is chosen never clashes with what is held, and what is refused cannot be had."""

from __future__ import annotations

import random
from collections.abc import Sequence
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.ipam.ports import (
    EPHEMERAL,
    Crowded,
    Look,
    Taken,
    Wish,
    choose_ports,
    clash,
    covers,
    hold_of,
    with_holds,
    without,
)
from kvnet.claims import HeldPorts, PortHold
from kvnet.keys import PORTS_PER_BUCKET
from kvnet.model import Address

ADDRESSES: Sequence[Address | None] = [None, *map(ip_address, ("0.0.0.0", "10.0.0.1", "10.0.0.2", "::", "fd00::1"))]
PROTOCOLS = st.sampled_from(["tcp", "udp"])
LOW, HIGH = 8000, 8080


def wishes() -> st.SearchStrategy[Wish]:
    ports = st.integers(LOW, HIGH)
    spans = st.one_of(
        st.just((0, 0)), ports.map(lambda p: (p, p)), st.tuples(ports, ports).map(lambda s: (min(s), max(s)))
    )
    return st.builds(
        lambda protocol, span, address: Wish(80, protocol, *span, address), PROTOCOLS, spans, st.sampled_from(ADDRESSES)
    )


def holds() -> st.SearchStrategy[list[tuple[str, PortHold]]]:
    """As a healthy store has them: none clashes with another."""
    one = st.tuples(
        PROTOCOLS, st.builds(PortHold, st.integers(LOW, HIGH), st.just("n"), st.just("e"), st.sampled_from(ADDRESSES))
    )
    return st.lists(one, max_size=60).map(_compatible)


def _compatible(found: list[tuple[str, PortHold]]) -> list[tuple[str, PortHold]]:
    kept: list[tuple[str, PortHold]] = []
    for protocol, hold in found:
        if clash((h for p, h in kept if p == protocol), hold.port, hold.address) is None:
            kept.append((protocol, hold))
    return kept


def look_at(held: list[tuple[str, PortHold]], busy: frozenset[int] = frozenset()) -> Look:
    def look(protocol: str, port: int) -> HeldPorts | None:
        bucket = port // PORTS_PER_BUCKET
        if bucket in busy:
            return None
        return HeldPorts(tuple(h for p, h in held if p == protocol and h.port // PORTS_PER_BUCKET == bucket))

    return look


@given(holds(), st.lists(wishes(), max_size=12), st.integers())
def test_no_two_holds_ever_clash_and_each_wish_gets_what_it_asked_for(
    held: list[tuple[str, PortHold]], asked: list[Wish], seed: int
) -> None:
    try:
        chosen = choose_ports(asked, look_at(held), random.Random(seed))
    except Taken as taken:
        _require_truth(taken, held)
        return
    everything = [*held, *((port.protocol, hold_of(port, "n", "new")) for port in chosen)]
    assert _compatible(everything) == everything
    for wish, port in zip(asked, chosen, strict=True):
        assert wish.is_answered_by(port, None)
        if not wish.low:
            assert any(low <= (port.host_port or 0) <= high for low, high in EPHEMERAL)


def _require_truth(taken: Taken, held: list[tuple[str, PortHold]]) -> None:
    """A refusal names a hold that is there and in the way; without one it is the endpoint's own, or a whole range's."""
    if taken.hold is not None:
        assert (taken.wish.protocol, taken.hold) in held
        assert taken.hold.port == taken.wish.low
        assert covers(taken.hold.address, taken.wish.address)


@given(holds(), st.integers(LOW, HIGH), st.integers(LOW, HIGH), st.sampled_from(ADDRESSES))
def test_a_range_is_refused_only_if_every_port_of_it_is_taken(
    held: list[tuple[str, PortHold]], one: int, other: int, address: Address | None
) -> None:
    wish = Wish(80, "tcp", min(one, other), max(one, other), address)
    free = [
        p
        for p in range(wish.low, wish.high + 1)
        if clash((h for protocol, h in held if protocol == "tcp"), p, address) is None
    ]
    try:
        (port,) = choose_ports([wish], look_at(held), random.Random(0))
    except Taken:
        assert not free
    else:
        assert port.host_port == free[0]


def test_what_others_are_changing_is_passed_over_or_waited_for() -> None:
    busy = frozenset({8000 // PORTS_PER_BUCKET})
    (port,) = choose_ports([Wish(80, "tcp", 8000, 8100)], look_at([], busy), random.Random(0))
    assert port.host_port == (8000 // PORTS_PER_BUCKET + 1) * PORTS_PER_BUCKET
    with pytest.raises(Crowded):
        choose_ports([Wish(80, "tcp", 8000, 8000)], look_at([], busy), random.Random(0))
    with pytest.raises(Crowded):
        choose_ports([Wish(80, "tcp", 8000, 8010)], look_at([], busy), random.Random(0))


def test_several_free_choices_of_an_endpoint_lie_side_by_side() -> None:
    chosen = [
        p.host_port or 0 for p in choose_ports([Wish(i, "tcp") for i in range(1, 257)], look_at([]), random.Random(1))
    ]
    assert len({p // PORTS_PER_BUCKET for p in chosen}) <= 6
    assert len(set(chosen)) == 256


@pytest.mark.parametrize("one", ADDRESSES)
@pytest.mark.parametrize("other", ADDRESSES)
def test_whether_two_addresses_meet_does_not_depend_on_their_order(one: Address | None, other: Address | None) -> None:
    assert covers(one, other) == covers(other, one)


@given(holds())
def test_what_is_given_back_is_exactly_what_was_held(held: list[tuple[str, PortHold]]) -> None:
    before = with_holds(HeldPorts(), [h for p, h in held if p == "tcp"])
    mine = [PortHold(9000 + i, "n", "mine") for i in range(3)]
    assert without(with_holds(before, mine), "n", "mine") == before
