"""A count that is kept up says what a new one says, whoever comes, goes, moves or claims what another has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from datapath.census import Census, sole_owners
from kvnet.model import Endpoint

HERE = "h0"
HOSTS = (HERE, "h1", "h2")


def endpoint(number: int, host: str, address: int, mac: int) -> Endpoint:
    addresses = (ip_address("10.9.0.0") + address, ip_address("fd00::") + address)
    return Endpoint(f"e{number}", "n", host, f"e{number}", addresses, f"02:00:00:00:00:{mac:02x}", float(number))


# Most have numbers of their own; some claim those of a neighbour.
endpoints = st.builds(
    lambda number, host, more, other: endpoint(number, host, number + more, number + other),
    st.integers(0, 40),
    st.sampled_from(HOSTS),
    st.sampled_from((0, 0, 0, 0, 0, 0, 1)),
    st.sampled_from((0, 0, 0, 0, 0, 0, 1)),
)


@given(st.lists(st.lists(endpoints, min_size=1, max_size=4), max_size=12))
@settings(max_examples=300)
def test_a_count_that_is_kept_up_is_the_same_as_a_new_one(rounds: Sequence[Sequence[Endpoint]]) -> None:
    everyone = {f"e{number}": endpoint(number, HOSTS[number % 3], number, number) for number in range(0, 40, 2)}
    census = Census()
    for changes in [[], *rounds]:
        for one in changes:
            if everyone.get(one.id) == one:
                del everyone[one.id]
            else:
                everyone[one.id] = one
        kept = census.members(everyone.values(), HERE)
        owners = {id(one): one for one in sole_owners(everyone.values())}

        assert kept.endpoints == owners
        assert {id(one) for one in kept.local} == {key for key, one in owners.items() if one.host == HERE}
        assert len(kept.local) == len({id(one) for one in kept.local})
        assert kept.hosts == {one.host for one in owners.values()}


@given(st.lists(endpoints, min_size=1, max_size=40))
def test_of_those_that_share_something_the_newest_stays(found: Sequence[Endpoint]) -> None:
    everyone = list({one.id: one for one in found}.values())
    owners = sole_owners(everyone)
    claimed = Counter(claim for one in owners for claim in (one.mac, *one.addresses))

    assert set(claimed.values()) <= {1}
    kept = {one.id for one in owners}
    for lost in (one for one in everyone if one.id not in kept):
        rivals = [one for one in owners if one.mac == lost.mac or set(one.addresses) & set(lost.addresses)]
        assert any((one.created_at, one.id) > (lost.created_at, lost.id) for one in rivals)
