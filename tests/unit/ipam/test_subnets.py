"""Choosing subnets: never an overlap, always room where there is room, and words that name what is in the way."""

from __future__ import annotations

import time
from ipaddress import ip_network

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from controller.ipam.holders import HolderKind
from controller.ipam.subnets import SubnetSpace, counts_as_used
from kvnet.claims import SubnetClaim, SubnetHold
from kvnet.errors import SubnetsExhausted, SubnetTaken
from kvnet.model import Cidr, Inventory, Pool, UsedRange

POOL = Pool("default", ip_network("10.192.0.0/22"), 24)
POOL6 = Pool("default6", ip_network("fd00:1:2::/62"), 64)


def space(*pools: Pool) -> SubnetSpace:
    made = SubnetSpace(lambda network_id: {"a" * 12: "blue"}.get(network_id, ""))
    for pool in pools:
        made.put_pool(pool)
    return made


def host(name: str, *used: tuple[str, str]) -> Inventory:
    return Inventory(name, tuple(UsedRange(ip_network(cidr), source) for cidr, source in used))


def network(character: str) -> SubnetClaim:
    return SubnetClaim(character * 12)


class SubnetSpaceMachine(RuleBasedStateMachine):
    """The space against a list that is searched from end to end."""

    def __init__(self) -> None:
        super().__init__()
        self.space = space(POOL, POOL6)
        self.claims: dict[Cidr, str] = {}
        self.held: set[Cidr] = set()
        self.holds: dict[str, Cidr] = {}
        self.hosts: dict[str, list[Cidr]] = {}
        self.reserved: list[Cidr] = []

    def blocked(self) -> list[Cidr]:
        ranges = [cidr for ranges in self.hosts.values() for cidr in ranges if counts_as_used(cidr)]
        return [*self.claims, *self.held, *ranges, *self.reserved]

    def free(self, pool: Pool, length: int) -> set[Cidr]:
        if not pool.cidr.prefixlen <= length:
            return set()
        candidates = pool.cidr.subnets(new_prefix=length)
        return {c for c in candidates if not any(b.version == c.version and b.overlaps(c) for b in self.blocked())}

    @rule(pool=st.sampled_from([POOL, POOL6]), shorter=st.integers(-3, 3))
    def choose(self, pool: Pool, shorter: int) -> None:
        length = pool.prefix_length + shorter
        free = self.free(pool, length)
        try:
            chosen = self.space.choose([pool], length)
        except SubnetsExhausted as error:
            assert not free
            (told,) = error.context["pools"]
            assert sum(told["blockers"].values()) > 0 or length < pool.cidr.prefixlen
            for example in told["examples"]:
                assert ip_network(example["cidr"]) in self.blocked()
        else:
            assert chosen in free
            self.space.take(chosen, "f" * 12)
            self.held.add(chosen)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), is_won=st.booleans())
    def settle(self, data: st.DataObject, is_won: bool) -> None:
        cidr = data.draw(st.sampled_from(sorted(self.held, key=str)))
        if is_won:
            self.space.put_claim(cidr, network("b"))
            self.claims[cidr] = "b" * 12
            self.holds = {hold: held for hold, held in self.holds.items() if held != cidr}
        self.space.let_go(cidr)
        self.space.let_go(cidr)
        self.held.discard(cidr)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), hold=st.sampled_from(["0" * 12, "1" * 12]))
    def hold(self, data: st.DataObject, hold: str) -> None:
        """One is given for a network, and runs out or is taken over later."""
        cidr = data.draw(st.sampled_from(sorted(self.held, key=str)))
        if hold in self.holds:
            return
        self.space.put_claim(cidr, SubnetClaim(hold, "", SubnetHold("h1", 0.0, 60.0)))
        self.space.let_go(cidr)
        self.held.discard(cidr)
        self.claims[cidr] = hold
        self.holds[hold] = cidr

    @precondition(lambda self: self.holds)
    @rule(data=st.data())
    def take_over(self, data: st.DataObject) -> None:
        hold = data.draw(st.sampled_from(sorted(self.holds)))
        cidr = self.holds.pop(hold)
        if any(part.overlaps(cidr) for part in self.reserved):  # since it was held
            with pytest.raises(SubnetTaken):
                self.space.refuse_overlap(cidr, own=cidr, force=True)
        else:
            self.space.refuse_overlap(cidr, own=cidr, force=True)
        self.space.put_claim(cidr, network("b"))
        self.claims[cidr] = "b" * 12

    @invariant()
    def every_hold_is_known(self) -> None:
        for hold in ("0" * 12, "1" * 12):
            assert self.space.held_by(hold) == self.holds.get(hold)
        assert self.space.aside({}, {}).claims == self.space.claims

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        cidr = data.draw(st.sampled_from(sorted(self.claims, key=str)))
        self.space.drop_claim(cidr)
        self.space.drop_claim(cidr)
        del self.claims[cidr]
        self.holds = {hold: held for hold, held in self.holds.items() if held != cidr}

    @rule(
        name=st.sampled_from(["h1", "h2"]),
        ranges=st.lists(
            st.sampled_from(
                [
                    "0.0.0.0/0",
                    "10.0.0.0/8",
                    "10.192.1.0/24",
                    "10.192.2.128/25",
                    "10.192.3.7/32",
                    "fd00:1:2:1::/64",
                    "::/0",
                ]
            ).map(ip_network),
            max_size=2,
        ),
    )
    def report(self, name: str, ranges: list[Cidr]) -> None:
        self.space.put_inventory(Inventory(name, tuple(UsedRange(cidr, "route dev eth0") for cidr in ranges)))
        self.hosts[name] = ranges

    @rule(name=st.sampled_from(["h1", "h2"]))
    def forget(self, name: str) -> None:
        self.space.drop_inventory(name)
        self.hosts.pop(name, None)

    @rule(reserved=st.lists(st.sampled_from(["10.192.0.0/25", "10.192.0.0/24", "10.192.3.0/24"]).map(ip_network)))
    def reserve(self, reserved: list[Cidr]) -> None:
        self.space.put_pool(Pool(POOL.name, POOL.cidr, POOL.prefix_length, tuple(reserved)))
        self.reserved = reserved

    @rule(
        wanted=st.sampled_from(["10.192.1.0/24", "10.192.0.0/16", "10.192.3.0/30", "fd00:1:2::/48"]),
        force=st.booleans(),
    )
    def ask_for(self, wanted: str, force: bool) -> None:
        cidr = ip_network(wanted)
        in_the_way = [b for b in self.blocked() if b.version == cidr.version and b.overlaps(cidr)]
        soft = [r for ranges in self.hosts.values() for r in ranges]
        hard = [b for b in [*self.claims, *self.held, *self.reserved] if b.version == cidr.version and b.overlaps(cidr)]
        try:
            reason = self.space.refuse_overlap(cidr, force=force)
        except SubnetTaken as error:
            assert hard or (in_the_way and not force)
            for holder in error.context["holders"]:
                assert ip_network(holder["cidr"]) in in_the_way
        else:
            assert not hard
            assert bool(reason) == bool(in_the_way)
            assert not in_the_way or (force and any(str(cidr) in reason for cidr in soft))

    @invariant()
    def free_figures_agree(self) -> None:
        for pool in (POOL, POOL6):
            assert self.space.count_free(pool.cidr, pool.prefix_length) == len(self.free(pool, pool.prefix_length))


SubnetSpaceMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestSubnetSpace = SubnetSpaceMachine.TestCase


def test_a_freed_subnet_rests_until_the_pool_has_gone_round() -> None:
    blocks = space(POOL)
    chosen = []
    for _ in range(4):
        cidr = blocks.choose([POOL])
        blocks.put_claim(cidr, network("b"))
        chosen.append(str(cidr))
        if len(chosen) == 1:
            blocks.drop_claim(cidr)
    assert chosen == ["10.192.0.0/24", "10.192.1.0/24", "10.192.2.0/24", "10.192.3.0/24"]
    assert str(blocks.choose([POOL])) == "10.192.0.0/24"


def test_a_new_process_goes_on_after_the_last_subnet() -> None:
    blocks = space(POOL)
    blocks.put_claim(ip_network("10.192.1.0/24"), network("b"))
    assert str(blocks.choose([POOL])) == "10.192.2.0/24"


def test_the_next_pool_is_asked_when_the_first_is_full() -> None:
    second = Pool("second", ip_network("10.64.0.0/16"), 24)
    blocks = space(POOL, second)
    blocks.put_claim(POOL.cidr, network("a"))
    assert str(blocks.choose([POOL, second])) == "10.64.0.0/24"


def test_a_pool_inside_a_route_of_one_host_is_said_to_be_so() -> None:
    blocks = space(POOL)
    blocks.put_inventory(host("h7", ("10.0.0.0/8", "route dev tun0")))
    with pytest.raises(SubnetsExhausted) as refused:
        blocks.choose([POOL])
    assert "lies entirely within 10.0.0.0/8 of host h7 (route dev tun0)" in refused.value.detail
    assert "kvnet pool create" in refused.value.fix


def test_exhaustion_names_every_pool_and_one_blocker_of_each_kind() -> None:
    reserving = Pool("default", POOL.cidr, 24, (ip_network("10.192.3.0/24"),))
    blocks = space(reserving, POOL6)
    blocks.put_claim(ip_network("10.192.0.0/24"), network("a"))
    blocks.put_claim(ip_network("10.192.1.0/25"), network("a"))
    blocks.put_inventory(host("h2", ("10.192.2.0/24", "route dev eth1")))
    blocks.put_claim(POOL6.cidr, network("c"))
    with pytest.raises(SubnetsExhausted) as refused:
        blocks.choose([reserving, POOL6], 24)
    text = refused.value.detail
    assert "10.192.0.0/24 of network blue (id aaaaaaaaaaaa)" in text
    assert "10.192.2.0/24 of host h2 (route dev eth1)" in text
    assert "10.192.3.0/24, reserved in pool default" in text
    assert "the largest free block is 10.192.1.128/25" in text
    assert "pool default6" in text
    assert "--prefix-length 25" in refused.value.fix
    told = refused.value.context["pools"][0]
    assert told["blockers"] == {"network": 2, "host": 1, "reservation": 1}
    assert {e["network_name"] for e in told["examples"] if e["kind"] == "network"} == {"blue"}


def test_sixteen_thousand_networks_do_not_hide_the_one_vpn() -> None:
    blocks = space(POOL)
    for cidr in POOL.cidr.subnets(new_prefix=30):
        blocks.put_claim(cidr, network("a"))
    blocks.put_inventory(host("h9", ("10.192.3.252/30", "route dev wg0")))
    with pytest.raises(SubnetsExhausted) as refused:
        blocks.choose([POOL])
    assert "host h9 (route dev wg0)" in refused.value.detail


def test_no_pool_at_all_says_how_to_make_one() -> None:
    with pytest.raises(SubnetsExhausted) as refused:
        space().choose([])
    assert "kvnet pool create" in refused.value.fix


def test_a_subnet_larger_than_the_pool_is_refused_with_that_reason() -> None:
    with pytest.raises(SubnetsExhausted, match="is smaller than a /16"):
        space(POOL).choose([POOL], 16)


def test_a_network_in_the_way_is_named_and_cannot_be_forced() -> None:
    blocks = space()
    blocks.put_claim(ip_network("10.1.0.0/24"), network("a"))
    with pytest.raises(SubnetTaken, match=r"10\.1\.0\.0/24 of network blue \(id aaaaaaaaaaaa\)") as refused:
        blocks.refuse_overlap(ip_network("10.1.0.0/16"), force=True)
    assert refused.value.context["can_be_forced"] is False


def test_a_host_in_the_way_is_named_and_can_be_forced_with_the_reason_recorded() -> None:
    blocks = space()
    blocks.put_inventory(host("h2", ("10.1.0.0/16", "route dev eth0")))
    with pytest.raises(SubnetTaken, match=r"10\.1\.0\.0/16 of host h2 \(route dev eth0\)") as refused:
        blocks.refuse_overlap(ip_network("10.1.2.0/24"))
    assert "--force" in refused.value.fix
    reason = blocks.refuse_overlap(ip_network("10.1.2.0/24"), force=True)
    assert reason == "overlaps 10.1.0.0/16 of host h2 (route dev eth0)"


@pytest.mark.parametrize(
    ("cidr", "counts"),
    [
        ("0.0.0.0/0", False),
        ("128.0.0.0/1", False),  # one half of a VPN's default route
        ("::/0", False),
        ("2000::/3", False),
        ("169.254.0.0/16", False),
        ("fe80::/64", False),
        ("127.0.0.0/8", False),
        ("10.0.0.0/8", True),
        ("192.168.1.1/32", True),
        ("fd00::/8", True),
    ],
)
def test_default_routes_and_link_local_do_not_keep_networks_away(cidr: str, counts: bool) -> None:
    assert counts_as_used(ip_network(cidr)) is counts


def test_the_same_route_on_many_hosts_blocks_until_the_last_host_drops_it() -> None:
    blocks = space()
    wanted = ip_network("10.9.0.0/24")
    for name in ("h1", "h2"):
        blocks.put_inventory(host(name, ("10.9.0.0/16", "route dev eth0")))
    blocks.drop_inventory("h1")
    assert [h.name for h in blocks.holders_of(wanted)] == ["h2"]
    blocks.put_inventory(host("h2"))
    assert blocks.refuse_overlap(wanted) == ""


def test_the_last_free_subnet_among_sixteen_thousand_is_found_at_once() -> None:
    pool = Pool("big", ip_network("10.192.0.0/10"), 24)
    blocks = space(pool)
    for cidr in pool.cidr.subnets(new_prefix=24):
        blocks.put_claim(cidr, network("a"))
    last = ip_network("10.230.17.0/24")
    blocks.drop_claim(last)
    started = time.process_time()
    for _ in range(1000):
        assert blocks.choose([pool]) == last
    assert time.process_time() - started < 1.0  # a walk over all of them, each time, would take ten
    assert next(blocks.holders_of(pool.cidr)).kind is HolderKind.NETWORK
