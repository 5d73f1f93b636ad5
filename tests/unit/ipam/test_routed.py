"""Blocks of hosts: none is two hosts', none overlaps another, and every address lies in one of its own host."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.ipam.addresses import AddressSpace
from controller.ipam.grid import Grid, block_length
from controller.ipam.host_addresses import HostAddresses
from controller.ipam.routed import BlockSpace, NoBlock, Placed
from controller.ipam.segments import are_adjacent
from kvnet.claims import AddressClaim, ClaimKind
from kvnet.errors import AddressesExhausted, AddressTaken, BlocksExhausted, BlockTaken
from kvnet.model import Driver, Host, Inventory, Network, Subnet, UsedRange

ID = "0123456789ab"
HOSTS = ["h1", "h2", "h3"]


def routed(*cidrs: str, **more: object) -> Network:
    subnets = tuple(Subnet(ip_network(cidr)) for cidr in cidrs)
    return Network(ID, "flat", Driver.ROUTED, subnets, 0.0, **more)  # type: ignore[arg-type]


def claimed(holder: str, now: float) -> AddressClaim:
    return AddressClaim(ClaimKind.ENDPOINT, holder, now)


class World:
    """A store of one process: what is placed is written, and what is written is told."""

    def __init__(self, network: Network) -> None:
        self.space = BlockSpace(network)
        self.version = 0
        self.held: dict[object, str] = {}

    def attach(self, host: str, family: int, now: float) -> Placed:
        placed = self.space.choose_for(host, family, now)
        self.write(placed, host, now)
        return placed

    def write(self, placed: Placed, host: str, now: float) -> None:
        self.version += 1
        if placed.use.is_written:
            self.space.put_block(placed.use.block, self.version)
        address = placed.candidate.address
        assert address not in self.held
        self.held[address] = host
        self.space.put(address, claimed(f"e{self.version}", now), self.version)


SUBNETS = [("10.9.0.0/25", "fd00::/120"), ("10.9.0.0/28", "10.9.1.0/27", "fd00::/124")]
ACTIONS = st.lists(st.tuples(st.sampled_from(HOSTS), st.booleans(), st.integers(0, 200)), max_size=80)


@given(
    ACTIONS,
    st.sampled_from([None, 28, 30]),
    st.sampled_from([("10.9.0.0/25", "fd00::/120"), ("10.9.0.0/28", "10.9.1.0/27", "fd00::/124")]),
)
def test_blocks_are_never_shared_never_overlap_and_hold_the_addresses_of_their_host(
    actions: list[tuple[str, bool, int]], length: int | None, cidrs: tuple[str, ...]
) -> None:
    world = World(routed(*cidrs, block_prefix_length=length))
    for now, (host, detaches, at) in enumerate(actions):
        if detaches and world.held:
            address = sorted(world.held, key=str)[at % len(world.held)]
            del world.held[address]
            world.space.drop(address)  # type: ignore[arg-type]
            continue
        for family in (4, 6):
            try:
                placed = world.attach(host, family, float(now))
            except BlocksExhausted:
                continue
            block = placed.use.block
            assert block.host == host
            assert placed.candidate.address in block.cidr
            assert placed.candidate.address not in (block.cidr.network_address, block.gateway)
            if family == 4:
                assert placed.candidate.address != block.cidr.broadcast_address
    for one, other in combinations(world.space.blocks, 2):
        assert not one.overlaps(other)
    for address, host in world.held.items():
        (owner,) = [b.value.host for c, b in world.space.blocks.items() if address in c]
        assert owner == host


@given(st.integers(0, 255), st.sampled_from(HOSTS))
def test_a_wanted_address_is_in_a_block_of_its_host_or_refused_with_the_reason(last: int, host: str) -> None:
    world = World(routed("10.9.0.0/24"))
    world.attach("h1", 4, 1.0)
    address = ip_address(f"10.9.0.{last}")
    fixed = last % 64 in (0, 1, 63)
    try:
        placed = world.space.claim_for(host, address, 2.0, pointer="/address")
    except BlockTaken:
        assert not fixed
        assert host != "h1"
        assert last < 64
    except AddressTaken:
        assert fixed or address in world.held
    else:
        assert placed.use.block.host == host
        assert address in placed.use.block.cidr


def test_who_may_not_claim_a_block_waits() -> None:
    world = World(routed("10.9.0.0/24"))
    with pytest.raises(NoBlock):
        world.space.choose_for("h1", 4, 1.0, may_claim=False)
    with pytest.raises(NoBlock):
        world.space.claim_for("h1", ip_address("10.9.0.9"), 1.0, pointer="/address", may_claim=False)


def test_a_block_that_is_being_claimed_is_nobody_elses_choice() -> None:
    space = BlockSpace(routed("10.9.0.0/25"))
    one, two = space.choose_for("h1", 4, 1.0), space.choose_for("h2", 4, 1.0)
    assert one.use.block.cidr != two.use.block.cidr
    with pytest.raises(BlocksExhausted):
        space.choose_for("h3", 4, 1.0)
    space.let_go(one.candidate.address)
    space.let_go_block(one.use.block.cidr)
    assert space.choose_for("h3", 4, 1.0).use.block.cidr == one.use.block.cidr


def test_blocks_of_a_subnet_that_grew_are_not_given_out_again() -> None:
    small = BlockSpace(routed("10.9.0.0/28"))
    block = small.choose_for("h1", 4, 1.0).use.block
    grown = BlockSpace(routed("10.9.0.0/24"))
    grown.put_block(block, 1)
    others = [grown.choose_for(f"h{i}", 4, 1.0).use.block.cidr for i in (2, 3, 4)]
    assert not any(cidr.overlaps(block.cidr) for cidr in others)
    assert grown.claim_for("h1", ip_address("10.9.0.9"), 1.0, pointer="/address").use.block == block


@pytest.mark.parametrize(
    ("cidr", "more", "length"),
    [
        ("10.0.0.0/16", {}, 26),
        ("10.0.0.0/28", {}, 28),
        ("10.0.0.0/16", {"block_prefix_length": 24}, 24),
        ("fd00::/64", {}, 122),
        ("fd00::/64", {"block_prefix_length6": 96}, 96),
    ],
)
def test_the_size_of_a_block_is_what_was_asked_for_or_fits(cidr: str, more: dict[str, int], length: int) -> None:
    network = routed(cidr, **more)
    assert block_length(network, network.subnets[0]) == length
    assert Grid(network, network.subnets[0]).at(0).prefixlen == length


def _transparent(*own: str) -> tuple[AddressSpace, HostAddresses]:
    hosts = HostAddresses()
    used = tuple(UsedRange(ip_network(a), "address dev eth0") for a in (*own, "192.0.2.0/29"))
    hosts.put_inventory("h1", Inventory("h1", used))
    network = Network(
        ID, "lan", Driver.TRANSPARENT, (Subnet(ip_network("192.0.2.0/29"), ip_address("192.0.2.1")),), 0.0
    )
    return AddressSpace(network, lambda _: "", hosts.host_of), hosts


def test_a_hosts_own_address_is_never_given_to_an_endpoint_of_its_network() -> None:
    space, hosts = _transparent("192.0.2.2", "192.0.2.4")
    hosts.put_host("h2", Host("h2", ip_address("192.0.2.5"), 1500))
    assert [str(space.choose(4, 1.0).address) for _ in range(2)] == ["192.0.2.3", "192.0.2.6"]
    with pytest.raises(AddressesExhausted, match="3 of hosts"):
        space.choose(4, 1.0)
    with pytest.raises(AddressTaken, match="host h2's own address"):
        space.claim(ip_address("192.0.2.5"), 1.0)

    hosts.put_host("h2", None)

    assert str(space.choose(4, 2.0).address) == "192.0.2.5"


@given(st.lists(st.tuples(st.sampled_from(HOSTS), st.sets(st.integers(1, 4))), max_size=12))
def test_an_address_that_several_hosts_report_is_free_when_none_does(told: list[tuple[str, set[int]]]) -> None:
    hosts, now = HostAddresses(), dict[str, set[int]]()
    for host, numbers in told:
        now[host] = numbers
        used = tuple(UsedRange(ip_network(f"192.0.2.{n}/32"), "address dev docker0") for n in numbers)
        hosts.put_inventory(host, Inventory(host, used))
    for n in range(1, 5):
        holders = sorted(host for host, numbers in now.items() if n in numbers)
        assert hosts.host_of(ip_address(f"192.0.2.{n}")) == (holders[0] if holders else "")


def test_hosts_are_adjacent_if_each_is_on_the_others_link() -> None:
    def host(underlay: str, segment: str | None) -> Host:
        return Host("h", ip_address(underlay), 1500, segment=ip_network(segment) if segment else None)

    near, also, far = host("10.0.0.1", "10.0.0.0/24"), host("10.0.0.2", "10.0.0.0/24"), host("10.1.0.1", "10.1.0.0/24")
    assert are_adjacent(near, also)
    assert not are_adjacent(near, far)
    assert not are_adjacent(host("10.1.0.9", "10.0.0.0/8"), near)
    assert are_adjacent(near, host("10.0.0.9", None))
    assert not are_adjacent(near, host("10.9.0.9", None))
