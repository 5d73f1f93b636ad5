"""The check of peers: one side alone is found and taken away, never completed; what both list is left alone."""

from __future__ import annotations

from ipaddress import ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from backends.store import Unchanged
from controller.ipam.check import check
from controller.ipam.findings import Finding, Invariant
from kvnet import codec, keys
from kvnet.claims import SubnetClaim
from kvnet.marks import Cluster
from kvnet.model import Driver, Network, NetworkState, Subnet
from tests.unit.ipam.test_check import Values, apply, entries

NOW = 10_000.0
IDS = [f"{n:012x}" for n in range(1, 5)]
NOWHERE = f"{9:012x}"


def network(number: int, *peers: str, state: NetworkState = NetworkState.ACTIVE) -> Network:
    cidr = ip_network(f"10.0.{number}.0/24")
    subnets = (Subnet(cidr, cidr[1]),)
    return Network(IDS[number - 1], f"n{number}", Driver.BRIDGE, subnets, NOW, peers=peers, state=state)


def stored(*networks: Network) -> Values:
    values: Values = {keys.CLUSTER: codec.encode(Cluster("c", NOW))}
    for one in networks:
        values[keys.network(one.id)] = codec.encode(one)
        values[keys.name(one.name)] = one.id.encode()
        values |= {keys.subnet(s.cidr): codec.encode(SubnetClaim(one.id)) for s in one.subnets}
    return values


def found_in(values: Values) -> list[Finding]:
    return check(entries(values), NOW)


def peers_in(values: Values) -> dict[str, set[str]]:
    return {id_: set(codec.decode(Network, values[keys.network(id_)]).peers) for id_ in IDS}


def test_peers_that_list_each_other_are_well() -> None:
    assert found_in(stored(network(1, IDS[1]), network(2, IDS[0]), network(3))) == []


def test_one_side_alone_is_taken_away() -> None:
    values = stored(network(1, IDS[1]), network(2))
    [finding] = found_in(values)
    assert finding.invariant is Invariant.ENDPOINTS_AND_ADDRESSES_AGREE
    assert "network n1 (000000000001) has the peer n2 (000000000002), which does not list it" in finding.detail
    assert finding.repair is not None
    values = apply(finding.repair, values)
    assert found_in(values) == []
    assert codec.decode(Network, values[keys.network(IDS[0])]) == network(1)


def test_a_peer_that_is_gone_is_taken_away_and_the_others_stay() -> None:
    values = stored(network(1, NOWHERE, IDS[1]), network(2, IDS[0]))
    [finding] = found_in(values)
    assert finding.invariant is Invariant.NOTHING_OUTLIVES_ITS_NETWORK
    assert finding.repair is not None
    values = apply(finding.repair, values)
    assert found_in(values) == []
    assert codec.decode(Network, values[keys.network(IDS[0])]).peers == (IDS[1],)


def test_a_network_that_is_its_own_peer_is_put_right() -> None:
    [finding] = found_in(stored(network(1, IDS[0])))
    assert "itself" in finding.detail


def test_a_network_that_is_being_deleted_leaves_its_peers_one_by_one() -> None:
    assert found_in(stored(network(1, IDS[1], state=NetworkState.DELETING), network(2))) == []


def test_nothing_is_concluded_from_a_network_that_cannot_be_read() -> None:
    values = stored(network(1, IDS[1]), network(2, IDS[0]))
    values[keys.network(IDS[1])] = b"{"
    assert Invariant.NOTHING_OUTLIVES_ITS_NETWORK not in {f.invariant for f in found_in(values) if IDS[0] in f.detail}


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from([*IDS, NOWHERE]), max_size=5), min_size=len(IDS), max_size=len(IDS)))
def test_one_pass_of_repairs_leaves_exactly_what_both_sides_said(lists: list[list[str]]) -> None:
    values = stored(*(network(n, *listed) for n, listed in enumerate(lists, start=1)))
    said = peers_in(values)
    for finding in found_in(values):
        assert finding.repair is not None
        own = [c for c in finding.repair.checks if isinstance(c, Unchanged)]
        assert len(own) == 1, "another network's repair would be in its way"
        values = apply(finding.repair, values)

    assert found_in(values) == []
    both = {a: {b for b in said[a] if b != a and a in said.get(b, ())} for a in IDS}
    assert peers_in(values) == both
