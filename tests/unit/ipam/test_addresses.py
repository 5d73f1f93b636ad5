"""Choosing addresses: the order, what is never handed out, and words that name who has an address."""

from __future__ import annotations

import time
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from controller.ipam.addresses import AddressSpace, Candidate
from controller.ipam.idle import IdleQueue, Rest
from kvnet.claims import AddressClaim, ClaimKind
from kvnet.errors import AddressesExhausted, AddressTaken, Invalid
from kvnet.model import Address, Driver, Network, Subnet

COOL_DOWN_S = 60.0
NOW = 1000.0


def subnet(cidr: str, *, bounds: str | None = None, **reserved: str) -> Subnet:
    block = ip_network(cidr)
    return Subnet(
        block,
        block[1],
        None if bounds is None else ip_network(bounds),
        {name: ip_address(address) for name, address in reserved.items()},
    )


def network(*subnets: Subnet) -> Network:
    return Network("c0ffee000001", "blue", Driver.OVERLAY, subnets, 0.0)


def space(*subnets: Subnet) -> AddressSpace:
    return AddressSpace(network(*subnets), lambda endpoint_id: {"e1": "web"}.get(endpoint_id, ""))


def endpoint_claim(holder: str = "e1", since: float = NOW) -> AddressClaim:
    return AddressClaim(ClaimKind.ENDPOINT, holder, since, None, "h1")


def tombstone(since: float, until: float) -> AddressClaim:
    return AddressClaim(ClaimKind.TOMBSTONE, "e1", since, until, "h1")


RESERVATION = AddressClaim(ClaimKind.RESERVATION, "db", NOW)
SUBNETS = (
    subnet("10.0.0.0/28", bounds="10.0.0.0/29", printer="10.0.0.5"),
    subnet("10.0.1.0/29"),
    subnet("fd00::/125", printer="fd00::3"),
)
EVERYTHING = [address for one in SUBNETS for address in one.cidr]


class AddressSpaceMachine(RuleBasedStateMachine):
    """The space against a model that keeps one word per address and looks at all of them, every time."""

    def __init__(self) -> None:
        super().__init__()
        self.space = space(*SUBNETS)
        self.now = NOW
        self.version = 0
        self.stored: dict[Address, tuple[AddressClaim, int]] = {}
        self.in_flight: dict[Address, Rest | None] = {}
        self.idle: dict[Address, Rest] = {}
        self.never_used = {
            address
            for one in SUBNETS
            for address in one.range or one.cidr
            if address != one.cidr.network_address
            and (one.cidr.version == 6 or address != one.cidr.broadcast_address)
            and address != one.gateway
            and address not in one.reserved.values()
        }
        self.automatic = set(self.never_used)

    def put(self, address: Address, claim: AddressClaim) -> None:
        """As a commit by anybody comes in through the mirror."""
        self.version += 1
        self.stored[address] = (claim, self.version)
        self.space.put(address, claim, self.version)
        self.in_flight.pop(address, None)
        self.idle.pop(address, None)
        self.never_used.discard(address)
        if claim.kind is ClaimKind.TOMBSTONE and address in self.automatic:
            assert claim.until is not None
            self.idle[address] = Rest(claim.since, claim.until)

    def drop(self, address: Address, since: float) -> None:
        del self.stored[address]
        self.space.drop(address)
        rest = Rest(since, since)
        if address in self.in_flight:
            self.in_flight[address] = rest
        elif address in self.automatic:
            self.idle[address] = rest

    def longest_idle(self, family: int) -> set[Address]:
        """What may be chosen now."""
        for one in SUBNETS:
            if one.cidr.version != family:
                continue
            fresh = {a for a in self.never_used if a in one.cidr}
            if fresh:
                return fresh
            ready = [(r.since, int(a), a) for a, r in self.idle.items() if a in one.cidr and r.until <= self.now]
            if ready:
                return {min(ready)[2]}
        return set()

    @rule(family=st.sampled_from([4, 6]))
    def choose(self, family: int) -> None:
        expected = self.longest_idle(family)
        try:
            chosen, version = self.space.choose(family, self.now)
        except AddressesExhausted as error:
            assert not expected
            self.require_true_figures(error, family)
            return
        assert chosen in expected
        self.require_version(chosen, version)
        self.take(chosen)

    def take(self, address: Address) -> None:
        self.in_flight[address] = self.idle.pop(address, None)
        self.never_used.discard(address)

    def require_version(self, address: Address, version: int | None) -> None:
        assert version == (self.stored[address][1] if address in self.stored else None)

    def require_true_figures(self, error: AddressesExhausted, family: int) -> None:
        idle = [a for a in self.idle if a.version == family]
        assert error.context["cooling_down"] == len(idle)
        assert error.context["first_free_at"] == min((self.idle[a].until for a in idle), default=None)

    @rule(address=st.sampled_from(EVERYTHING))
    def ask_for(self, address: Address) -> None:
        one = next(s for s in SUBNETS if s.cidr.version == address.version and address in s.cidr)
        claim = self.stored.get(address, (None, 0))[0]
        is_over = claim is not None and claim.kind is ClaimKind.TOMBSTONE and (claim.until or 0) <= self.now
        is_fixed = address in {
            one.cidr.network_address,
            one.gateway,
            *one.reserved.values(),
            *([one.cidr.broadcast_address] if one.cidr.version == 4 else []),
        }
        is_free = not is_fixed and address not in self.in_flight and (claim is None or is_over)
        try:
            chosen, version = self.space.claim(address, self.now)
        except AddressTaken:
            assert not is_free
            return
        assert is_free
        assert chosen == address
        self.require_version(address, version)
        self.take(address)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), outcome=st.sampled_from(["won", "lost", "lost to another"]))
    def settle(self, data: st.DataObject, outcome: str) -> None:
        address = data.draw(st.sampled_from(sorted(self.in_flight, key=str)))
        before = self.in_flight[address]
        if outcome == "lost":
            del self.in_flight[address]
            if address in self.automatic and before is not None:
                self.idle[address] = before
            elif address in self.automatic:
                self.never_used.add(address)
        else:
            self.put(address, endpoint_claim(outcome[-3:], self.now))
        self.space.let_go(address)
        self.space.let_go(address)

    def of_kind(self, *kinds: ClaimKind) -> list[Address]:
        return sorted((a for a, (claim, _) in self.stored.items() if claim.kind in kinds), key=str)

    @precondition(lambda self: self.of_kind(ClaimKind.ENDPOINT))
    @rule(data=st.data(), cool_down=st.sampled_from([COOL_DOWN_S, 1.0]))
    def release(self, data: st.DataObject, cool_down: float) -> None:
        address = data.draw(st.sampled_from(self.of_kind(ClaimKind.ENDPOINT)))
        self.put(address, tombstone(self.now, self.now + cool_down))

    @precondition(lambda self: self.of_kind(ClaimKind.TOMBSTONE))
    @rule(data=st.data())
    def upkeep(self, data: st.DataObject) -> None:
        address = data.draw(st.sampled_from(self.of_kind(ClaimKind.TOMBSTONE)))
        self.drop(address, self.stored[address][0].since)

    @rule(address=st.sampled_from(EVERYTHING))
    def reserve(self, address: Address) -> None:
        if address not in self.stored:
            self.put(address, AddressClaim(ClaimKind.RESERVATION, "db", self.now))

    @precondition(lambda self: self.of_kind(ClaimKind.RESERVATION))
    @rule(data=st.data())
    def lift(self, data: st.DataObject) -> None:
        address = data.draw(st.sampled_from(self.of_kind(ClaimKind.RESERVATION)))
        self.drop(address, self.space._latest)

    @precondition(lambda self: self.stored)
    @rule(data=st.data())
    def hear_it_again(self, data: st.DataObject) -> None:
        """A watch may repeat what it told."""
        address = data.draw(st.sampled_from(sorted(self.stored, key=str)))
        self.space.put(address, *self.stored[address])

    @rule(seconds=st.sampled_from([0.5, 30.0, 61.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def used_is_the_number_of_endpoints(self) -> None:
        assert self.space.used == len(self.of_kind(ClaimKind.ENDPOINT))

    @invariant()
    def the_holder_is_who_it_is(self) -> None:
        for address, (claim, _) in self.stored.items():
            if claim.kind is ClaimKind.ENDPOINT:
                told = self.space.holder_of(address, self.now)
                assert told is not None
                assert told.facts["kind"] in ("endpoint", "gateway", "network", "broadcast", "reserved")


AddressSpaceMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestAddressSpace = AddressSpaceMachine.TestCase


def test_fresh_addresses_come_in_order_and_skip_gateway_and_reservations() -> None:
    blocks = space(subnet("10.0.0.0/29", printer="10.0.0.3"))
    assert [str(blocks.choose(4, NOW).address) for _ in range(4)] == ["10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6"]


def test_a_released_address_waits_until_all_others_were_used() -> None:
    blocks = space(subnet("10.0.0.0/29"))
    first = blocks.choose(4, NOW).address
    blocks.put(first, endpoint_claim(), 1)
    blocks.put(first, tombstone(NOW, NOW + COOL_DOWN_S), 2)
    later = NOW + COOL_DOWN_S
    assert [int(blocks.choose(4, later).address) & 7 for _ in range(4)] == [3, 4, 5, 6]
    assert blocks.choose(4, later) == Candidate(first, 2)


def test_the_claim_of_a_removed_tombstone_needs_no_version() -> None:
    blocks = space(subnet("10.0.0.0/30"))
    only = ip_address("10.0.0.2")
    blocks.put(only, tombstone(NOW, NOW + 1), 7)
    blocks.drop(only)
    assert blocks.choose(4, NOW + 1) == Candidate(only, None)


def test_a_new_process_goes_on_after_the_newest_endpoint() -> None:
    blocks = space(subnet("10.0.0.0/24"))
    blocks.put(ip_address("10.0.0.200"), endpoint_claim("old", NOW - 50), 1)
    blocks.put(ip_address("10.0.0.9"), endpoint_claim("new", NOW - 1), 2)
    assert str(blocks.choose(4, NOW).address) == "10.0.0.10"


def test_who_lost_a_race_may_skip_ahead() -> None:
    blocks = space(subnet("10.0.0.0/24"))
    assert str(blocks.choose(4, NOW, skip=5).address) == "10.0.0.5"


def test_who_lost_a_race_for_released_addresses_may_skip_ahead_too() -> None:
    blocks = space(subnet("10.0.0.0/29"))
    for last in range(2, 7):
        blocks.put(ip_address(f"10.0.0.{last}"), tombstone(NOW + last, NOW + last), last)
    assert str(blocks.choose(4, NOW + 9, skip=2).address) == "10.0.0.4"
    assert [int(blocks.choose(4, NOW + 9).address) & 7 for _ in range(4)] == [2, 3, 5, 6]


def test_the_range_bounds_automatic_choice_but_not_an_explicit_address() -> None:
    blocks = space(subnet("10.0.0.0/24", bounds="10.0.0.128/30"))
    assert [int(blocks.choose(4, NOW).address) & 255 for _ in range(4)] == [128, 129, 130, 131]
    with pytest.raises(AddressesExhausted, match=r"in 10\.0\.0\.128/30"):
        blocks.choose(4, NOW)
    assert str(blocks.claim(ip_address("10.0.0.7"), NOW).address) == "10.0.0.7"


def test_subnets_of_a_family_fill_in_order() -> None:
    blocks = space(subnet("10.0.0.0/30"), subnet("10.0.9.0/30"))
    assert [str(blocks.choose(4, NOW).address) for _ in range(2)] == ["10.0.0.2", "10.0.9.2"]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("10.0.0.0", "is the network address"),
        ("10.0.0.255", "is the broadcast address"),
        ("10.0.0.1", "is the gateway"),
        ("10.0.0.5", "is reserved as 'printer'"),
        ("10.0.0.7", r"is in use by endpoint web \(id e1, host h1\)"),
        ("10.0.0.8", "is reserved as 'db'"),
        ("10.0.0.9", r"is cooling down until 00:17:40 UTC after endpoint web \(id e1, host h1\)"),
        ("10.0.0.2", "is being given to another endpoint right now"),
    ],
)
def test_a_taken_address_names_its_holder(address: str, words: str) -> None:
    blocks = space(subnet("10.0.0.0/24", printer="10.0.0.5"))
    blocks.choose(4, NOW)
    blocks.put(ip_address("10.0.0.7"), endpoint_claim(), 1)
    blocks.put(ip_address("10.0.0.8"), RESERVATION, 2)
    blocks.put(ip_address("10.0.0.9"), tombstone(NOW, NOW + COOL_DOWN_S), 3)
    with pytest.raises(AddressTaken, match=words):
        blocks.claim(ip_address(address), NOW)


def test_an_address_that_cools_down_says_for_how_long() -> None:
    blocks = space(subnet("10.0.0.0/24"))
    blocks.put(ip_address("10.0.0.9"), tombstone(NOW, NOW + COOL_DOWN_S), 3)
    with pytest.raises(AddressTaken) as refused:
        blocks.claim(ip_address("10.0.0.9"), NOW + 20)
    assert "repeat in 40 s" in refused.value.fix
    assert refused.value.context["holder"]["until"] == NOW + COOL_DOWN_S


def test_an_address_of_no_subnet_is_invalid_and_points_at_the_field() -> None:
    with pytest.raises(Invalid, match=r"in no subnet of network blue") as refused:
        space(subnet("10.0.0.0/24")).claim(ip_address("fd00::1"), NOW, pointer="/address6")
    assert refused.value.errors[0].pointer == "/address6"


def test_exhaustion_says_what_took_the_addresses_and_when_the_first_gets_free() -> None:
    blocks = space(subnet("10.0.0.0/29", printer="10.0.0.3"))
    blocks.put(ip_address("10.0.0.2"), endpoint_claim(), 1)
    blocks.put(ip_address("10.0.0.4"), RESERVATION, 2)
    blocks.put(ip_address("10.0.0.5"), tombstone(NOW, NOW + COOL_DOWN_S), 3)
    blocks.choose(4, NOW)
    with pytest.raises(AddressesExhausted) as refused:
        blocks.choose(4, NOW)
    named = f"10.0.0.3 as 'printer', 10.0.0.4 as {RESERVATION.holder!r}"
    figures = f"1 are used, 5 reserved ({named}), 1 cooling down, 1 being claimed; the first is free again in 60 s"
    assert figures in str(refused.value)
    assert refused.value.fix.startswith("wait 60 s")


def test_a_family_without_a_subnet_is_invalid_not_exhausted() -> None:
    with pytest.raises(Invalid, match="has no IPv6 subnet"):
        space(subnet("10.0.0.0/24")).choose(6, NOW)


def test_a_claim_in_the_store_on_the_gateway_does_not_make_it_available() -> None:
    blocks = space(subnet("10.0.0.0/30"))
    blocks.put(ip_address("10.0.0.1"), tombstone(NOW - 9, NOW - 8), 1)
    blocks.drop(ip_address("10.0.0.1"))
    assert str(blocks.choose(4, NOW).address) == "10.0.0.2"
    with pytest.raises(AddressesExhausted):
        blocks.choose(4, NOW)


@pytest.mark.parametrize(("family", "cidr"), [(4, "10.0.0.0/16"), (6, "fd00::/64"), (4, "10.0.0.0/8")])
def test_a_choice_costs_microseconds_in_small_and_huge_subnets(family: int, cidr: str) -> None:
    blocks = space(subnet(cidr))
    count = 20_000
    started = time.process_time()
    chosen = {blocks.choose(family, NOW).address for _ in range(count)}
    assert len(chosen) == count
    assert (time.process_time() - started) / count < 50e-6  # 2 measured; the rest is for a busy machine


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 100), st.floats(0, 20)), max_size=30), st.floats(0, 130))
def test_the_idle_queue_gives_the_longest_idle_that_is_ready(
    released: list[tuple[int, float, float]], now: float
) -> None:
    queue = IdleQueue()
    model: dict[int, Rest] = {}
    for address, since, cool_down in released:
        model[address] = Rest(since, since + cool_down)
        queue.add(address, model[address])
    order = sorted((rest.since, address) for address, rest in model.items() if rest.until <= now)
    taken = []
    while found := queue.pop(now):
        taken.append((found[1].since, found[0]))
    assert taken == order
    assert len(queue) == len(model) - len(order)
