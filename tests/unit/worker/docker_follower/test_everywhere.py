"""Every network in every Docker, once, under its own name: whatever users do, in whatever order it is heard of."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Network, ip_network
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kvnet.model import DockerFields, Driver, Network, NetworkState, Subnet
from tests.unit.worker.docker_follower.three_hosts import EPOCH, HOSTS, Model
from worker.runtimes.docker.everywhere import (
    DOUBT_S,
    FRESH_S,
    IN_FLIGHT_S,
    QUIET_S,
    STRAY_S,
    Adopt,
    Copy,
    Lost,
    Name,
    Remove,
    Replace,
    Sight,
    copy_of,
    decide,
)
from worker.runtimes.docker.ledger import Binding
from worker.runtimes.docker.ports import EngineNetwork
from worker.settings import Following

NET = Network(
    "0123456789ab",
    "web",
    Driver.OVERLAY,
    (Subnet(ip_network("10.1.0.0/24"), IPv4Address("10.1.0.1")),),
    EPOCH,
    vni=1,
    docker=DockerFields(host="h1"),
)
HERE = EngineNetwork("d1", "web", ("10.1.0.0/24",))
BOUND = Binding("d1", NET.id, ("10.1.0.0/24",), since=EPOCH - 100)


def sight(
    *networks: Network, docker: tuple[EngineNetwork, ...] = (), bound: tuple[Binding, ...] = (), **more: Any
) -> Sight:
    return Sight(
        "h1",
        EPOCH,
        {network.id: network for network in networks},
        {known.id: known for known in docker},
        {binding.docker: binding for binding in bound},
        **more,
    )


def what(seen: Sight) -> tuple[Any, ...]:
    return decide(seen).actions


def test_a_network_that_docker_does_not_have_is_copied_and_one_that_it_has_is_left_alone() -> None:
    assert what(sight(NET)) == (Copy(NET.id),)
    assert what(sight(NET, docker=(HERE,), bound=(BOUND,))) == ()


def test_a_nameless_network_is_named_where_it_was_made_and_copied_nowhere() -> None:
    naming = replace(NET, state=NetworkState.NAMING, name="docker-0123456789ab")
    assert what(sight(naming)) == ()
    assert what(sight(naming, docker=(HERE,), bound=(BOUND,))) == (Name(NET.id, "d1"),)


def test_a_network_that_the_catalogue_has_not_heard_of_yet_is_named_and_not_removed() -> None:
    fresh = replace(BOUND, since=EPOCH - 1)
    assert what(sight(docker=(HERE,), bound=(fresh,))) == (Name(NET.id, "d1"),)
    assert what(sight(docker=(HERE,), bound=(fresh,), seen=frozenset({NET.id}))) == (Remove(NET.id, "d1", "gone"),)
    assert what(sight(docker=(HERE,), bound=(BOUND,))) == (Remove(NET.id, "d1", "gone"),)


def test_nothing_is_removed_while_the_store_is_not_believed() -> None:
    assert what(sight(docker=(HERE,), bound=(BOUND,), is_believed=False)) == ()
    assert what(sight(NET, bound=(BOUND,), is_believed=False)) == ()
    assert decide(sight(docker=(HERE,), bound=(BOUND,), is_believed=False)).again_at == EPOCH + DOUBT_S


def test_a_network_under_another_name_than_the_clusters_goes() -> None:
    other = replace(HERE, name="mine")
    assert what(sight(NET, docker=(other,), bound=(BOUND,))) == (Remove(NET.id, "d1", "renamed"),)


def test_what_docker_is_still_making_is_not_lost() -> None:
    fresh = replace(BOUND, since=EPOCH - IN_FLIGHT_S + 2)
    found = decide(sight(NET, bound=(fresh,)))
    assert found.actions == ()
    assert found.again_at == EPOCH + 2
    assert what(sight(NET, bound=(BOUND,))) == (Lost(NET.id, "d1"),)
    assert what(sight(NET, bound=(fresh,), shown=frozenset({"d1"}))) == (Lost(NET.id, "d1"),)


def test_a_stray_is_adopted_by_its_subnets_but_not_at_once_for_docker_may_be_removing_it() -> None:
    found = decide(sight(NET, docker=(HERE,), strays={"d1": EPOCH}))
    assert found.actions == ()
    assert found.again_at == EPOCH + STRAY_S
    long = {"d1": EPOCH - STRAY_S}
    assert what(sight(NET, docker=(HERE,), strays=long)) == (Adopt(NET.id, "d1"),)
    assert what(sight(docker=(HERE,), strays=long)) == (Remove("", "d1", "unknown"),)
    assert what(sight(docker=(HERE,), strays=long, is_believed=False)) == ()


def test_a_network_with_an_automatic_subnet_is_made_anew_before_anybody_uses_it() -> None:
    automatic = replace(BOUND, is_automatic=True, since=EPOCH - FRESH_S)
    assert what(sight(NET, docker=(HERE,), bound=(automatic,))) == (Replace(NET.id, "d1"),)
    assert decide(sight(NET, docker=(HERE,), bound=(replace(automatic, since=EPOCH),))).again_at == EPOCH + FRESH_S
    assert what(sight(NET, docker=(HERE,), bound=(automatic,), keeps_ids=True)) == ()


def test_where_docker_has_no_two_of_a_name_it_is_made_anew_when_scripts_are_done() -> None:
    automatic = replace(BOUND, is_automatic=True, since=EPOCH - FRESH_S)
    fresh = sight(NET, docker=(HERE,), bound=(automatic,), has_namesakes=False)
    assert decide(fresh).actions == ()
    assert decide(fresh).again_at == EPOCH - FRESH_S + QUIET_S
    assert what(replace(fresh, now=EPOCH + QUIET_S)) == (Replace(NET.id, "d1"),)


def test_one_that_was_used_is_made_anew_after_a_quiet_moment() -> None:
    automatic = replace(BOUND, is_automatic=True, since=EPOCH)
    assert what(sight(NET, docker=(HERE,), bound=(automatic,), used=frozenset({NET.id}))) == ()
    just_left = sight(NET, docker=(HERE,), bound=(automatic,), used_at={NET.id: EPOCH - 0.5})
    assert decide(just_left).actions == ()
    assert decide(just_left).again_at == EPOCH - 0.5 + QUIET_S


def test_of_two_the_used_one_stays_and_else_the_one_that_allows_fixed_addresses() -> None:
    second = replace(HERE, id="d2")
    bound = (replace(BOUND, is_automatic=True), replace(BOUND, docker="d2", since=EPOCH))
    assert what(sight(NET, docker=(HERE, second), bound=bound)) == (Remove(NET.id, "d1", "spare"),)
    used = replace(HERE, endpoints={"e": "c"})
    assert what(sight(NET, docker=(used, second), bound=bound)) == (Remove(NET.id, "d2", "spare"),)


def test_a_host_that_follows_only_its_own_networks_gets_no_others() -> None:
    assert what(sight(NET, following=Following.OWN)) == (Copy(NET.id),)
    assert what(sight(replace(NET, docker=None), following=Following.OWN)) == ()
    assert what(sight(replace(NET, docker=DockerFields(host="h2")), following=Following.OWN)) == ()


def test_a_network_without_ipv4_is_told_of_where_docker_cannot_have_it() -> None:
    six = replace(NET, subnets=(Subnet(IPv6Network("fd00:1::/64")),))
    assert decide(sight(six)).unfit.keys() == {NET.id}
    assert what(sight(six, needs_ipv4=False)) == (Copy(NET.id),)


def test_a_copy_has_what_docker_told_at_the_birth_word_for_word() -> None:
    fields = DockerFields({"driver": "overlay"}, {"a": "b"}, {"com.docker.compose.network": "web"}, True, False, "h2")
    subnet = replace(NET.subnets[0], range=ip_network("10.1.0.128/25"), reserved={"aux": IPv4Address("10.1.0.5")})
    assert copy_of(replace(NET, docker=fields, subnets=(subnet,))) == {
        "Name": "web",
        "CheckDuplicate": True,
        "Driver": "kvnet",
        "Options": {"driver": "overlay"},
        "Labels": {"com.docker.compose.network": "web"},
        "Internal": False,
        "Attachable": True,
        "EnableIPv6": False,
        "IPAM": {
            "Driver": "kvnet",
            "Options": {"a": "b"},
            "Config": [
                {
                    "Subnet": "10.1.0.0/24",
                    "Gateway": "10.1.0.1",
                    "IPRange": "10.1.0.128/25",
                    "AuxiliaryAddresses": {"aux": "10.1.0.5"},
                }
            ],
        },
    }


def test_a_copy_of_a_network_that_was_not_made_through_docker_has_its_labels_and_no_options() -> None:
    body = copy_of(replace(NET, docker=None, labels={"team": "a"}, options={"x.y": "z"}))
    assert (body["Options"], body["Labels"], body["IPAM"]["Options"]) == ({}, {"team": "a"}, {})


NAMES = st.sampled_from(["web", "db"])
HOST = st.sampled_from(HOSTS)
OCTET = st.sampled_from([0, 0, 1, 2])
STEP = st.one_of(
    st.tuples(st.just("create"), HOST, NAMES, OCTET),
    st.tuples(st.just("remove"), HOST, NAMES, st.booleans()),
    st.tuples(st.just("use"), HOST, NAMES),
    st.tuples(st.just("unuse"), HOST, NAMES),
    st.tuples(st.just("forget"), HOST, NAMES),
    st.tuples(st.just("api_create"), NAMES, OCTET),
    st.tuples(st.just("api_delete"), NAMES),
    st.tuples(st.just("sync"), HOST),
    st.tuples(st.just("act"), HOST, st.integers(0, 5)),
    st.tuples(st.just("wait"), st.sampled_from([0.01, 0.6, 4.0, 11.0])),
)
ROUNDS = 90


def run(steps: list[tuple[Any, ...]]) -> Model:
    model = Model()
    for step, *arguments in steps:
        if step == "wait":
            model.now += arguments[0]
        elif step == "remove":
            model.remove(arguments[0], arguments[1], is_heard=arguments[2])
        else:
            getattr(model, step)(*arguments)
    return model


def settle(model: Model) -> None:
    """Users are quiet; the followers go on until they have nothing to do."""
    for _ in range(ROUNDS):
        model.now += 1.0
        model.end_misplaced()
        model.upkeep()
        for host in HOSTS:
            model.sync(host)
            for _ in range(len(model.actions(host))):
                model.act(host, 0)
    for host in HOSTS:
        model.sync(host)
        left = [action for action in model.actions(host) if not isinstance(action, (Replace, Remove))]
        assert left == [] or model.hosts[host].foreign, host


@settings(max_examples=600, deadline=None)
@given(st.lists(STEP, max_size=30))
def test_three_hosts_end_with_the_same_networks_each_once(steps: list[tuple[Any, ...]]) -> None:
    model = run(steps)
    settle(model)

    assert all(network.state is NetworkState.ACTIVE for network in model.networks.values())
    for at in model.hosts.values():
        found = sorted((known.name, known.subnets) for known in at.docker.values())
        wanted = sorted((n.name, (str(n.subnets[0].cidr),)) for n in model.networks.values())
        assert found == wanted
        assert {binding.docker for binding in at.bindings.values()} == at.docker.keys()
        for known in at.docker.values():
            assert model.networks[at.bindings[known.id].network].name == known.name


@given(HOST)
def test_a_name_that_another_driver_has_on_one_host_is_missing_there_alone_until_it_is_free(host: str) -> None:
    model = Model()
    model.hosts[host].foreign.add("web")
    model.api_create("web", 9)
    settle(model)
    assert [bool(at.named("web")) for at in model.hosts.values()] == [name != host for name in HOSTS]
    model.hosts[host].foreign.clear()
    settle(model)
    assert all(at.named("web") for at in model.hosts.values())
