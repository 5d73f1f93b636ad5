"""Figures of use agree with counting."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from controller.ipam.addresses import AddressSpace
from controller.ipam.subnets import SubnetSpace
from controller.ipam.utilisation import largest_free_block, of_network, of_pool
from kvnet.claims import AddressClaim, ClaimKind, SubnetClaim
from kvnet.model import Cidr, Driver, Network, Pool, Subnet

NOW = 1000.0
BLOCKS: list[Cidr] = [ip_network("10.0.0.0/27"), ip_network("fd00::20/123")]


@given(st.sampled_from(BLOCKS), st.sets(st.integers(0, 31)))
def test_the_largest_free_block_of_addresses_is_what_looking_at_every_block_finds(cidr: Cidr, taken: set[int]) -> None:
    addresses = {int(cidr[offset]) for offset in taken}
    every_block = (
        b for length in range(cidr.prefixlen, cidr.max_prefixlen + 1) for b in cidr.subnets(new_prefix=length)
    )
    expected = next((b for b in every_block if not addresses & {int(a) for a in b}), None)
    assert largest_free_block(cidr, addresses) == expected


def test_a_network_tells_what_its_addresses_are_used_for() -> None:
    block = ip_network("10.0.0.0/28")
    network = Network(
        "c0ffee000001", "blue", Driver.OVERLAY, (Subnet(block, block[1], reserved={"printer": block[2]}),), 0.0
    )
    space = AddressSpace(network)
    claims = [
        (3, AddressClaim(ClaimKind.ENDPOINT, "e1", NOW)),
        (4, AddressClaim(ClaimKind.RESERVATION, "db", NOW)),
        (5, AddressClaim(ClaimKind.TOMBSTONE, "e0", NOW, NOW + 60)),
        (6, AddressClaim(ClaimKind.TOMBSTONE, "e0", NOW - 99, NOW - 39)),  # its cool-down is over: free
    ]
    for last, claim in claims:
        space.put(ip_address(f"10.0.0.{last}"), claim, last)
    (figures,) = of_network(space, NOW)
    assert (figures.used, figures.reserved, figures.cooling_down, figures.size, figures.free) == (1, 2, 1, 13, 9)
    assert figures.largest_free == ip_network("10.0.0.8/30")


def test_a_pool_tells_how_many_subnets_still_fit() -> None:
    pool = Pool("default", ip_network("10.192.0.0/22"), 24, (ip_network("10.192.3.0/24"),))
    space = SubnetSpace()
    space.put_pool(pool)
    space.put_claim(ip_network("10.192.0.0/25"), SubnetClaim("a" * 12))
    figures = of_pool(space, pool)
    assert (figures.subnets_used, figures.subnets_free, figures.subnets_total) == (1, 2, 4)
    assert figures.largest_free == ip_network("10.192.1.0/24")
