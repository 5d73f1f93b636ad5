"""Which endpoints stand for their networks, and how large a packet two hosts must let through."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.connectivity.choice import MAX_PAIRS, choose, needed_sizes
from kvnet.model import Driver, Endpoint, Host, Network, NetworkState, Subnet


def network(name: str = "n1", **changes: Any) -> Network:
    subnets = (Subnet(IPv4Network("10.1.0.0/16"), IPv4Address("10.1.0.1")),)
    values: dict[str, Any] = {"driver": Driver.OVERLAY, "subnets": subnets, "created_at": 0.0, **changes}
    return Network(f"{sum(map(ord, name)):012x}", name, **values)


def endpoint(of: Network, name: str, host: str, number: int, *, is_dual: bool = False) -> Endpoint:
    addresses: tuple[Any, ...] = (IPv4Address("10.1.0.0") + number,)
    if is_dual:
        addresses = (*addresses, IPv6Address("fd00::") + number)
    return Endpoint(name, of.id, host, name, addresses, "02:00:00:00:00:01", float(number))


def names(choice: Any) -> set[tuple[str, str]]:
    return {(pair.source.name, pair.target.name) for pair in choice.pairs}


N1 = network()
SOME = [endpoint(N1, f"{host}-{n}", host, 10 * int(host[1]) + n) for host in ("h1", "h2", "h3") for n in (2, 3)]
ATTACHED = {host: {e.id for e in SOME if e.host == host} for host in ("h1", "h2", "h3")}


def test_one_of_each_host_asks_one_of_every_other_and_a_neighbour() -> None:
    choice = choose([N1], {N1.id: SOME}, ATTACHED, ["h1", "h2", "h3"])

    across = {(f"{a}-2", f"{b}-2") for a in ATTACHED for b in ATTACHED if a != b}
    assert names(choice) == across | {(f"{host}-2", f"{host}-3") for host in ATTACHED}
    assert not choice.left_out


def test_who_does_not_answer_or_has_no_interface_is_left_out_and_counted() -> None:
    attached = {"h1": ATTACHED["h1"], "h2": {"h2-3"}}

    choice = choose([N1], {N1.id: SOME}, attached, ["h1", "h2", "h3"])

    assert names(choice) == {("h1-2", "h1-3"), ("h1-2", "h2-3"), ("h2-3", "h1-2")}
    assert choice.left_out == {"endpoints whose host does not answer": 2, "endpoints without an interface": 1}


def test_hosts_that_were_not_named_are_left_alone() -> None:
    choice = choose([N1], {N1.id: SOME}, ATTACHED, ["h1", "h2"])

    assert {e.host for pair in choice.pairs for e in (pair.source, pair.target)} == {"h1", "h2"}


def test_a_network_of_one_host_is_tried_on_that_alone_and_one_that_keeps_its_workloads_apart_not_at_all() -> None:
    local, apart = network("b1", driver=Driver.BRIDGE), network("a1", icc=False)
    leaving = network("l1", state=NetworkState.DELETING)
    made = {
        one.id: [endpoint(one, f"{one.name}{n}", f"h{1 + n % 2}", n) for n in range(2, 6)]
        for one in (local, apart, leaving)
    }
    attached = {host: {e.id for some in made.values() for e in some if e.host == host} for host in ("h1", "h2")}

    choice = choose([local, apart, leaving], made, attached, ["h1", "h2"])

    assert all(pair.source.host == pair.target.host and pair.network is local for pair in choice.pairs)
    assert len(choice.pairs) == 2
    assert choice.left_out == {"endpoints of networks whose icc is off": 4}


def test_both_families_are_tried_where_both_ends_have_both() -> None:
    some = [
        endpoint(N1, "a", "h1", 2, is_dual=True),
        endpoint(N1, "b", "h2", 3, is_dual=True),
        endpoint(N1, "c", "h3", 4),
    ]
    attached = {e.host: {e.id} for e in some}

    choice = choose([N1], {N1.id: some}, attached, ["h1", "h2", "h3"])

    assert sorted(pair.family for pair in choice.pairs if {pair.source.name, pair.target.name} == {"a", "b"}) == [
        4,
        4,
        6,
        6,
    ]
    assert all(pair.family == 4 for pair in choice.pairs if "c" in (pair.source.name, pair.target.name))


@settings(deadline=None)
@given(st.integers(1, 90))
def test_however_many_there_are_no_more_pairs_are_tried_than_one_test_takes(count: int) -> None:
    some = [endpoint(N1, f"e{n}", f"h{n % 4}", n + 2) for n in range(count)]
    attached = {f"h{n}": {e.id for e in some if e.host == f"h{n}"} for n in range(4)}

    choice = choose([N1], {N1.id: some}, attached, list(attached), everything=True)

    wanted = count * (count - 1)
    assert len(choice.pairs) == min(wanted, MAX_PAIRS)
    assert sum(choice.left_out.values()) == wanted - len(choice.pairs), "what is left out is told"


def host(name: str, mtu: int = 1500, address: str = "192.0.2.1") -> Host:
    return Host(name, ip_address(address), mtu)


def test_what_must_pass_is_what_the_networks_of_both_send() -> None:
    hosts = {"h1": host("h1", 9000), "h2": host("h2", 1500), "h3": host("h3", 9000)}
    fixed, routed = network("f1", mtu=1480), network("r1", driver=Driver.ROUTED, mtu=8000)
    of = {fixed.id: ["h1", "h2"], routed.id: ["h1", "h3"], N1.id: ["h1", "h2", "h3"]}

    needed = needed_sizes(hosts, [fixed, routed, N1], of)

    assert needed["h1", "h2"] == 1530, "the network's packets with the tunnel's headers"
    assert needed["h2", "h3"] == 1500, "what a network without a size of its own would use"
    assert needed["h1", "h3"] == 9000
    assert ("h1", "h1") not in needed


def test_hosts_of_two_families_have_nothing_to_try() -> None:
    assert needed_sizes({"a": host("a"), "b": host("b", address="2001:db8::1")}, [], {}) == {}
