"""What a name means to whom: all holders of it, of the asker's networks and of no other."""

from __future__ import annotations

import random
from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from kvnet.model import Driver, Endpoint, Network
from tests.unit.worker.dns.kit import HERE, THERE, Cluster
from worker.dns.askers import NOBODY, Askers
from worker.dns.zone import Found, Names, Under, Verdict, Zone, address_of, names_of

NAMES = st.sampled_from(["db", "DB", "web", "web.1", "a", "shop", "host", "x_y", "1"])
NETWORKS = st.sampled_from(["shop", "Shop2", "a", "web", "db.x"])


def askers(cluster: Cluster) -> Askers:
    return Askers(
        HERE,
        cluster,
        lambda: cluster.records.values(),
        own=frozenset({"127.0.0.1"}),
        clock=lambda: 0.0,
        rng=random.Random(1),
    )


def zone(cluster: Cluster, source: Endpoint | str) -> Zone:
    address = source if isinstance(source, str) else str(source.addresses[0])
    return askers(cluster).known(address).answers.zone


def addresses(meaning: object) -> set[str]:
    assert isinstance(meaning, Found), meaning
    return {str(address) for address in meaning.addresses}


def test_a_name_an_alias_and_a_hostname_stand_for_every_holder_on_any_host() -> None:
    cluster = Cluster()
    shop = cluster.add_network("shop")
    asker = cluster.add(shop, "web", 2, aliases=("www",), hostname="front")
    cluster.add(shop, "db1", 3, THERE, aliases=("db",))
    cluster.add(shop, "db2", 4, THERE, aliases=("DB",))
    asked = zone(cluster, asker)
    for name in ("db", "Db", "db.shop", "db.SHOP", "db.kvnet", "db.shop.kvnet"):
        assert addresses(asked.meaning(name)) == {"10.1.0.3", "10.1.0.4", "fd00:1::3", "fd00:1::4"}, name
    for name in ("www", "front", "web.shop"):
        assert addresses(asked.meaning(name)) == {"10.1.0.2", "fd00:1::2"}, name


def test_a_workload_on_two_networks_gets_the_names_of_both_and_of_one_by_its_name() -> None:
    cluster = Cluster()
    shop, back, other = (cluster.add_network(name) for name in ("shop", "back", "other"))
    on_shop = cluster.add(shop, "web", 2)
    on_back = cluster.add(back, "web", 2)
    cluster.add(shop, "db", 3, THERE)
    cluster.add(back, "db", 3, THERE)
    cluster.add(other, "db", 3, THERE)
    for source in (on_shop, on_back):
        asked = zone(cluster, source)
        assert addresses(asked.meaning("db")) == {"10.1.0.3", "fd00:1::3", "10.2.0.3", "fd00:2::3"}
        assert addresses(asked.meaning("db.back")) == {"10.2.0.3", "fd00:2::3"}
        assert asked.meaning("db.other") is Verdict.ELSEWHERE
        assert asked.meaning("db.other.kvnet") is Verdict.ABSENT


def test_a_peer_s_names_are_not_told() -> None:
    cluster = Cluster()
    shop = cluster.add_network("shop", peers=("000000000002",))
    back = cluster.add_network("back", peers=("000000000001",))
    asker = cluster.add(shop, "web", 2)
    cluster.add(back, "db", 3)
    assert zone(cluster, asker).meaning("db") is Verdict.BARE
    assert zone(cluster, asker).meaning("3.0.2.10.in-addr.arpa") is Verdict.ELSEWHERE


def test_what_is_unknown_is_absent_at_once_unless_others_may_know_it() -> None:
    cluster = Cluster()
    asker = cluster.add(cluster.add_network("dev"), "web", 2)
    asked = zone(cluster, asker)
    assert asked.meaning("nosuch") is Verdict.BARE
    assert asked.meaning("nosuch.kvnet") is Verdict.ABSENT
    assert asked.meaning("nosuch.dev.kvnet") is Verdict.ABSENT
    assert asked.meaning("go.dev") == Under("dev")
    assert asked.meaning("www.example.com") is Verdict.ELSEWHERE
    assert asked.meaning("") is Verdict.ELSEWHERE
    for name in ("dev", "kvnet", "dev.kvnet"):
        assert asked.meaning(name) == Found(), "there is something below it"


def test_reverse_names_lead_to_the_name_with_the_network() -> None:
    cluster = Cluster()
    asker = cluster.add(cluster.add_network("shop"), "web", 2)
    asked = zone(cluster, asker)
    for address in asker.addresses:
        assert asked.meaning(address.reverse_pointer.upper()) == Found(domains=("web.shop",))
    assert asked.meaning(ip_address("10.1.0.9").reverse_pointer) is Verdict.ABSENT
    assert asked.meaning(ip_address("192.0.2.9").reverse_pointer) is Verdict.ELSEWHERE
    assert asked.meaning("1.10.in-addr.arpa") is Verdict.ELSEWHERE
    assert address_of("x.0.1.10.in-addr.arpa") is None


def test_the_own_host_has_a_name_where_a_network_leads_to_it() -> None:
    cluster = Cluster()
    shop = cluster.add_network("shop")
    inner = cluster.add_network("inner", internal=True)
    lan = cluster.add_network("lan", driver=Driver.TRANSPARENT, uplink="eth0")
    shim = cluster.add_network("shim", driver=Driver.TRANSPARENT, uplink="eth0", shim=True)
    asked = [zone(cluster, cluster.add(network, f"on-{network.name}", 2)) for network in (shop, inner, lan, shim)]
    found = [addresses(one.meaning("host.docker.internal")) for one in asked]
    assert found == [{"10.1.0.1", "fd00:1::1"}, set(), set(), {"192.0.2.1"}]
    assert asked[0].meaning("host.kvnet") == asked[0].meaning("HOST.docker.internal")


def test_of_several_networks_the_way_out_leads_to_the_host() -> None:
    cluster = Cluster()
    first, second = cluster.add_network("first"), cluster.add_network("second", "10.9.0.0/24")
    cluster.add(first, "web", 2)
    asker = cluster.add(second, "web", 2, gateway_priority=5)
    assert addresses(zone(cluster, asker).meaning("host.kvnet")) == {"10.9.0.1", "fd00:1::1"}


def test_a_stranger_gets_no_names_and_the_host_itself_gets_all_of_its_networks() -> None:
    cluster = Cluster()
    remote = cluster.add(cluster.add_network("shop"), "db", 3, THERE)
    assert zone(cluster, "172.17.0.2") == NOBODY
    assert zone(cluster, remote) == NOBODY, "its own host answers for it"
    itself = zone(cluster, "127.0.0.1")
    assert itself.is_host
    assert addresses(itself.meaning("db.shop")) == {"10.1.0.3", "fd00:1::3"}


def test_while_not_all_is_known_nothing_is_said_to_be_absent() -> None:
    cluster = Cluster(is_complete=False)
    assert not askers(cluster).known("10.1.0.2").is_whole
    cluster.is_complete = True
    assert askers(cluster).known("10.1.0.2").is_whole


@st.composite
def clusters(draw: st.DrawFn) -> tuple[Cluster, list[Endpoint]]:
    cluster = Cluster()
    networks = [cluster.add_network(name) for name in draw(st.lists(NETWORKS, min_size=1, max_size=4, unique=True))]
    made: list[Endpoint] = []
    for number in range(draw(st.integers(1, 12))):
        of = draw(st.sampled_from(networks))
        workload = draw(st.sampled_from(["w1", "w2", "w3"]))
        host = draw(st.sampled_from([HERE, THERE]))
        aliases = tuple(draw(st.lists(NAMES, max_size=3)))
        made.append(cluster.add(of, draw(NAMES), number + 2, host, workload=workload, aliases=aliases))
    return cluster, made


@settings(deadline=None)
@given(clusters(), NAMES, st.sampled_from(["", ".kvnet"]), st.one_of(st.just(""), NETWORKS))
def test_never_a_name_of_another_network_and_always_every_holder(
    given_: tuple[Cluster, list[Endpoint]], name: str, suffix: str, network: str
) -> None:
    cluster, made = given_
    full = f"{name}.{network}{suffix}" if network else name + suffix
    for asker in (endpoint for endpoint in made if endpoint.host == HERE):
        workload = cluster.records[asker.id].netns
        own = {r.network_id for r in cluster.records.values() if r.netns == workload}
        wanted = {e.id for e in made if e.network in own and _is_called(e, cluster.listed[e.network].network, full)}
        meaning = zone(cluster, asker).meaning(full)
        holders = {e.id for e in meaning.holders} if isinstance(meaning, Found) else set()
        if full.lower() != "host.kvnet":
            assert holders == wanted


def _is_called(endpoint: Endpoint, network: Network | None, asked: str) -> bool:
    assert network is not None
    own = names_of(endpoint)
    inner = asked.lower().removesuffix(".kvnet")
    return inner in own or any(inner == f"{name}.{network.name.lower()}" for name in own)


@settings(deadline=None)
@given(st.lists(st.lists(st.tuples(NAMES, st.integers(2, 9)), max_size=6), max_size=6))
def test_following_changes_comes_to_the_same_as_starting_anew(steps: list[list[tuple[str, int]]]) -> None:
    cluster = Cluster()
    network = cluster.add_network("shop")
    followed = Names(network.id)
    for step in steps:
        for endpoint in list(cluster.listed[network.id].endpoints.values()):
            if not any((endpoint.name, endpoint.addresses[0]) == (n, f"10.1.0.{i}") for n, i in step):
                cluster.remove(endpoint)
        for name, number in step:
            cluster.add(network, name, number, aliases=(f"alias{number}",))
        endpoints = cluster.listed[network.id].endpoints
        followed.follow(network, endpoints)
        fresh = Names(network.id)
        fresh.follow(network, endpoints)
        assert (followed._holders, followed._addresses) == (fresh._holders, fresh._addresses)
        generation = followed.generation
        followed.follow(network, endpoints)
        assert followed.generation == generation
