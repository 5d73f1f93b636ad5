"""The change of a living endpoint: its names, its ports, its addresses; each in one commit, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from backends.memory import MemoryStore
from backends.store import Put, Store
from controller.changing import NetworkPatch, SubnetPatch
from controller.cluster import Cluster
from controller.endpoint_patching import EndpointPatch
from controller.requests import PortRequest
from kvnet import codec, keys
from kvnet.errors import (
    AddressTaken,
    BlockTaken,
    Immutable,
    Invalid,
    KvnetError,
    NotFound,
    PortTaken,
    PreconditionFailed,
)
from kvnet.model import Endpoint, NetworkObserved, Observed, Versioned
from tests.unit.controller.kit import (
    ME,
    FailingStore,
    FakeTime,
    Fault,
    add_host,
    endpoint,
    eventually,
    network,
    opened,
)
from tests.unit.controller.test_ports import held

pytestmark = pytest.mark.anyio


def patch(*ports: PortRequest, reuse: bool = False, **given: Any) -> EndpointPatch:
    return EndpointPatch(given, ports or None, reuse)


async def stored(store: Store, one: Versioned[Endpoint]) -> Versioned[Endpoint]:
    entry = await store.get(keys.endpoint(one.value.network, one.value.id))
    assert entry is not None
    return Versioned(codec.decode(Endpoint, entry.value), entry.version)


async def claims(store: Store, network_id: str) -> dict[str, str]:
    """Per address what it is: `endpoint`, or `tombstone`."""
    found = (await store.list(keys.addresses(network_id))).entries
    return {str(keys.parse_address(e.key).address): e.value.decode().split('"kind":"')[1].split('"')[0] for e in found}


async def test_names_labels_and_the_priority_change_and_the_rest_stays(cluster: Cluster, store: MemoryStore) -> None:
    await cluster.networks.create(network(), ME)
    made = await cluster.endpoints.create("my-net", endpoint("docker-1", labels={"a": "1", "b": "2"}), ME)
    asked = patch(name="web", hostname="web-1", aliases=("www", "w"), labels={"a": None, "c": "3"}, gateway_priority=7)

    after = await cluster.endpoints.update("my-net", "docker-1", asked, ME)

    assert after.value == replace(
        made.value,
        name="web",
        hostname="web-1",
        aliases=("www", "w"),
        labels={"b": "2", "c": "3"},
        gateway_priority=7,
    )
    assert after.version > made.version
    assert await stored(store, after) == after
    assert cluster.endpoints.get("my-net", "web") == after
    with pytest.raises(NotFound):
        cluster.endpoints.get("my-net", "docker-1")
    assert (await cluster.ipam.check()).findings == ()


async def test_the_same_patch_again_changes_nothing(cluster: Cluster, store: MemoryStore) -> None:
    await cluster.networks.create(network(), ME)
    made = await cluster.endpoints.create("my-net", endpoint(), ME)
    asked = patch(PortRequest(80), PortRequest(81, host_port=8081), name="web")

    first = await cluster.endpoints.update("my-net", made.value.id, asked, ME)
    again = await cluster.endpoints.update("my-net", made.value.id, asked, ME)

    assert again == first
    assert len(await held(store)) == 2


async def test_a_patch_is_one_commit_and_is_in_the_journal(cluster: Cluster, store: MemoryStore) -> None:
    await cluster.networks.create(network(), ME)
    made = await cluster.endpoints.create("my-net", endpoint(ports=(PortRequest(80, host_port=8080),)), ME)

    after = await cluster.endpoints.update("my-net", "c1", patch(PortRequest(80, host_port=8081), name="web"), ME)

    changed = [e for e in (await store.list("")).entries if e.version == after.version]
    assert {e.key.split("/")[0] for e in changed} == {"endpoints", "ports", "journal"}
    (note,) = [e.value for e in changed if e.key.startswith(keys.JOURNAL)]
    assert note.count(b'"endpoint.changed"') == 1
    assert after.value.id == made.value.id


async def test_null_is_the_default_again_but_a_name_there_must_be(cluster: Cluster) -> None:
    await cluster.networks.create(network(), ME)
    full = endpoint(hostname="h", aliases=("a",), labels={"l": "1"}, gateway_priority=3, ports=(PortRequest(80),))
    await cluster.endpoints.create("my-net", full, ME)
    nothing = dict.fromkeys(("hostname", "aliases", "labels", "gateway_priority"))

    after = (await cluster.endpoints.update("my-net", "c1", EndpointPatch(nothing, ()), ME)).value

    assert (after.hostname, after.aliases, after.labels, after.gateway_priority, after.ports) == ("", (), {}, 0, ())
    with pytest.raises(Invalid) as refused:
        await cluster.endpoints.update("my-net", "c1", patch(name=None), ME)
    assert [e.pointer for e in refused.value.errors] == ["/name"]


async def test_all_that_cannot_change_is_named_and_nothing_is_changed(cluster: Cluster, store: MemoryStore) -> None:
    await cluster.networks.create(network(), ME)
    made = await cluster.endpoints.create("my-net", endpoint(), ME)
    asked = patch(id="x", network="x", host="h2", mac="02:00:00:00:00:99", created_at="2020-01-01T00:00:00Z", name="y")

    with pytest.raises(Immutable) as refused:
        await cluster.endpoints.update("my-net", "c1", asked, ME)

    assert [e.pointer for e in refused.value.errors] == ["/id", "/network", "/host", "/mac", "/created_at"]
    assert await stored(store, made) == made


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        (patch(name="-"), "/name"),
        (patch(aliases=("a", "a")), "/aliases"),
        (patch(aliases=("a b",)), "/aliases"),
        (patch(hostname="."), "/hostname"),
        (patch(labels={"": "1"}), "/labels"),
        (patch(gateway_priority=501), "/gateway_priority"),
        (patch(PortRequest(0)), "/ports/0/port"),
        (patch(PortRequest(80, host_address="fe80::1")), "/ports/0/host_address"),
        (patch(address="10.9.0.1"), "/address"),
        (patch(address="fd00::7"), "/address"),
        (patch(address6="here"), "/address6"),
        (patch(address=None), "/address"),
    ],
)
async def test_bad_input_is_refused_where_it_is_wrong(
    cluster: Cluster, store: MemoryStore, asked: EndpointPatch, pointer: str
) -> None:
    await cluster.networks.create(network("my-net", "10.7.0.0/24"), ME)
    made = await cluster.endpoints.create("my-net", endpoint(), ME)

    with pytest.raises(Invalid) as refused:
        await cluster.endpoints.update("my-net", "c1", asked, ME)

    assert [e.pointer for e in refused.value.errors] == [pointer]
    assert await stored(store, made) == made
    assert await held(store) == []


async def test_only_the_version_that_was_asked_for_is_changed(cluster: Cluster) -> None:
    await cluster.networks.create(network(), ME)
    made = await cluster.endpoints.create("my-net", endpoint(), ME)
    after = await cluster.endpoints.update("my-net", "c1", patch(name="web"), ME, made.version)

    with pytest.raises(PreconditionFailed):
        await cluster.endpoints.update("my-net", "web", patch(name="late"), ME, made.version)
    with pytest.raises(PreconditionFailed):
        await cluster.endpoints.delete("my-net", "web", ME, made.version)
    assert cluster.endpoints.get("my-net", made.value.id) == after


# -- ports


async def test_new_ports_are_claimed_and_old_ones_free_in_the_same_moment(cluster: Cluster, store: MemoryStore) -> None:
    await cluster.networks.create(network(), ME)
    made = await cluster.endpoints.create("my-net", endpoint(ports=(PortRequest(80, host_port=8080),)), ME)

    after = await cluster.endpoints.update("my-net", "c1", patch(PortRequest(80, host_port=9090), PortRequest(53)), ME)

    assert await held(store) == [
        ("tcp", port, made.value.id) for port in sorted(p.host_port for p in after.value.ports)
    ]
    other = await cluster.endpoints.create("my-net", endpoint("c2", ports=(PortRequest(80, host_port=8080),)), ME)
    assert other.value.ports[0].host_port == 8080
    assert (await cluster.ipam.check()).findings == ()


async def test_no_ports_gives_all_of_them_back(cluster: Cluster, store: MemoryStore) -> None:
    await cluster.networks.create(network(), ME)
    ports = (PortRequest(80, 90, host_port=8080), PortRequest(53, protocol="udp"))
    await cluster.endpoints.create("my-net", endpoint(ports=ports), ME)

    after = await cluster.endpoints.update("my-net", "c1", EndpointPatch({}, ()), ME)

    assert after.value.ports == ()
    assert await held(store) == []


async def test_what_is_published_already_keeps_its_port(cluster: Cluster) -> None:
    await cluster.networks.create(network(), ME)
    made = await cluster.endpoints.create("my-net", endpoint(ports=(PortRequest(80), PortRequest(81))), ME)
    first, second = made.value.ports

    after = await cluster.endpoints.update("my-net", "c1", patch(PortRequest(90), PortRequest(81), PortRequest(80)), ME)

    assert after.value.ports[1:] == (second, first)
    assert after.value.ports[0].host_port not in {first.host_port, second.host_port}


async def test_a_port_that_another_of_its_own_wants_is_given_to_that(cluster: Cluster) -> None:
    await cluster.networks.create(network(), ME)
    await cluster.endpoints.create("my-net", endpoint(ports=(PortRequest(80, host_port=8000),)), ME)

    after = await cluster.endpoints.update("my-net", "c1", patch(PortRequest(80), PortRequest(81, host_port=8000)), ME)

    assert after.value.ports[1].host_port == 8000
    assert after.value.ports[0].host_port != 8000


async def test_a_port_moves_to_another_address_of_the_host(cluster: Cluster, store: MemoryStore) -> None:
    await cluster.networks.create(network(), ME)
    local = PortRequest(80, host_port=8080, host_address="127.0.0.1")
    await cluster.endpoints.create("my-net", endpoint(ports=(local,)), ME)

    after = await cluster.endpoints.update("my-net", "c1", patch(PortRequest(80, host_port=8080)), ME)

    assert [(p.host_port, p.host_address) for p in after.value.ports] == [(8080, None)]
    assert len(await held(store)) == 1


async def test_a_taken_port_is_refused_as_at_creation_and_the_old_one_stays(
    cluster: Cluster, store: MemoryStore
) -> None:
    await cluster.networks.create(network(), ME)
    one = await cluster.endpoints.create("my-net", endpoint("one", ports=(PortRequest(80, host_port=8080),)), ME)
    two = await cluster.endpoints.create("my-net", endpoint("two", ports=(PortRequest(80, host_port=8081),)), ME)

    with pytest.raises(PortTaken, match=r"port 8080/tcp of host h1 .* endpoint one"):
        await cluster.endpoints.update("my-net", "two", patch(PortRequest(80, host_port=8080), name="x"), ME)

    assert await held(store) == [("tcp", 8080, one.value.id), ("tcp", 8081, two.value.id)]
    assert await stored(store, two) == two


async def test_an_internal_network_publishes_nothing_later_either(cluster: Cluster) -> None:
    await cluster.networks.create(network("quiet", internal=True), ME)
    await cluster.endpoints.create("quiet", endpoint(), ME)

    with pytest.raises(Invalid, match="internal"):
        await cluster.endpoints.update("quiet", "c1", patch(PortRequest(80)), ME)
    await cluster.endpoints.update("quiet", "c1", EndpointPatch({}, ()), ME)


async def test_ports_that_lie_too_far_apart_change_in_two_steps(cluster: Cluster, store: MemoryStore) -> None:
    await cluster.networks.create(network(), ME)
    apart = [PortRequest(80, host_port=1000 + 64 * i) for i in range(32)]
    await cluster.endpoints.create("my-net", endpoint(ports=tuple(apart[:16])), ME)

    with pytest.raises(Invalid, match="at most 20 can change at once"):
        await cluster.endpoints.update("my-net", "c1", patch(*apart[16:]), ME)
    await cluster.endpoints.update("my-net", "c1", EndpointPatch({}, ()), ME)
    await cluster.endpoints.update("my-net", "c1", patch(*apart[16:]), ME)

    assert len(await held(store)) == 16


# -- addresses


async def test_another_address_is_claimed_and_a_fresh_one_nobody_saw_is_free_at_once(
    cluster: Cluster, store: MemoryStore
) -> None:
    net = await cluster.networks.create(network("my-net", "10.7.0.0/24", "fd07::/64"), ME)
    made = await cluster.endpoints.create("my-net", endpoint(), ME)

    after = await cluster.endpoints.update("my-net", "c1", patch(address6="fd07::77"), ME)

    assert after.value.addresses == (made.value.address, ip_address("fd07::77"))
    assert await claims(store, net.value.id) == {str(made.value.address): "endpoint", "fd07::77": "endpoint"}
    assert cluster.endpoints.list(address="fd07::77") == (after,)
    assert (await cluster.ipam.check()).findings == ()
    await cluster.endpoints.create("my-net", endpoint("c2", address6=str(made.value.address6)), ME)


async def test_an_address_that_a_host_may_have_used_rests(cluster: Cluster, store: MemoryStore, time: FakeTime) -> None:
    net = await cluster.networks.create(network("my-net", "10.7.0.0/24"), ME)
    old = await cluster.endpoints.create("my-net", endpoint("old", address="10.7.0.8"), ME)
    time.pass_by(6)
    seen = await cluster.endpoints.create("my-net", endpoint("seen", address="10.7.0.9"), ME)
    report = Observed("h1", time.now(), {net.value.id: NetworkObserved(seen.version)})
    await store.commit([], [Put(keys.observed("h1"), codec.encode(report))])
    await eventually(lambda: cluster.convergence.of_endpoint(seen).converged)

    await cluster.endpoints.update("my-net", old.value.id, patch(address="10.7.0.18"), ME)
    await cluster.endpoints.update("my-net", seen.value.id, patch(address="10.7.0.19"), ME)

    found = await claims(store, net.value.id)
    assert [found[f"10.7.0.{n}"] for n in (8, 9, 18, 19)] == ["tombstone", "tombstone", "endpoint", "endpoint"]
    with pytest.raises(AddressTaken, match="cooling down"):
        await cluster.endpoints.create("my-net", endpoint("late", address="10.7.0.8"), ME)
    assert (await cluster.ipam.check()).findings == ()


async def test_an_address_of_another_is_refused_and_the_own_one_stays(cluster: Cluster, store: MemoryStore) -> None:
    net = await cluster.networks.create(network("my-net", "10.7.0.0/24"), ME)
    await cluster.endpoints.create("my-net", endpoint("one", address="10.7.0.8"), ME)
    two = await cluster.endpoints.create("my-net", endpoint("two", address="10.7.0.9"), ME)

    for taken in ("10.7.0.8", "10.7.0.1", "10.7.0.0"):
        with pytest.raises(AddressTaken):
            await cluster.endpoints.update("my-net", "two", patch(address=taken), ME)

    assert await stored(store, two) == two
    assert set((await claims(store, net.value.id)).values()) == {"endpoint"}


async def test_a_subnet_that_came_later_gives_an_endpoint_its_second_address(cluster: Cluster) -> None:
    await cluster.networks.create(network("my-net", "10.7.0.0/24"), ME)
    made = await cluster.endpoints.create("my-net", endpoint(), ME)
    both = (SubnetPatch("10.7.0.0/24"), SubnetPatch("fd07::/64"))
    await cluster.updates.update("my-net", NetworkPatch(subnets=both), ME)

    after = await cluster.endpoints.update("my-net", "c1", patch(address6="fd07::7"), ME)

    assert after.value.addresses == (made.value.address, ip_address("fd07::7"))
    assert (await cluster.ipam.check()).findings == ()


async def test_in_a_routed_network_another_address_comes_from_the_hosts_own_blocks(
    cluster: Cluster, store: MemoryStore
) -> None:
    await add_host(store, "h2", underlay="192.0.2.2")
    await cluster.networks.create(network("routed", "10.8.0.0/16", driver="routed", ipv6=False), ME)
    here = await cluster.endpoints.create("routed", endpoint(), ME)
    there = await cluster.endpoints.create("routed", endpoint("c2", "h2"), ME)
    address = here.value.addresses[0]

    after = await cluster.endpoints.update("routed", "c1", patch(address=str(address + 5)), ME)
    elsewhere = await cluster.endpoints.update("routed", "c1", patch(address="10.8.200.9"), ME)

    assert (after.value.address, str(elsewhere.value.address)) == (address + 5, "10.8.200.9")
    with pytest.raises(BlockTaken):
        await cluster.endpoints.update("routed", "c1", patch(address=str(there.value.addresses[0] + 1)), ME)
    assert (await cluster.ipam.check()).findings == ()


# -- an address that cools down


@pytest.mark.parametrize("driver", ["overlay", "routed"])
async def test_who_asks_for_reuse_gets_an_address_that_cools_down(cluster: Cluster, driver: str) -> None:
    await cluster.networks.create(network("my-net", "10.7.0.0/24", driver=driver), ME)
    await cluster.endpoints.create("my-net", endpoint("c1", address="10.7.0.9"), ME)
    await cluster.endpoints.delete("my-net", "c1", ME)

    with pytest.raises(AddressTaken, match="cooling down") as refused:
        await cluster.endpoints.create("my-net", endpoint("c1", address="10.7.0.9"), ME)
    again = await cluster.endpoints.create("my-net", endpoint("c1", address="10.7.0.9", reuse=True), ME)

    assert str(again.value.address) == "10.7.0.9"
    assert "reuse" in refused.value.fix
    with pytest.raises(AddressTaken, match="in use"):
        await cluster.endpoints.create("my-net", endpoint("c2", address="10.7.0.9", reuse=True), ME)
    assert (await cluster.ipam.check()).findings == ()


async def test_a_patch_may_take_an_address_that_cools_down(cluster: Cluster) -> None:
    await cluster.networks.create(network("my-net", "10.7.0.0/24"), ME)
    await cluster.endpoints.create("my-net", endpoint("c1", address="10.7.0.9"), ME)
    await cluster.endpoints.delete("my-net", "c1", ME)
    await cluster.endpoints.create("my-net", endpoint("c2"), ME)

    with pytest.raises(AddressTaken):
        await cluster.endpoints.update("my-net", "c2", patch(address="10.7.0.9"), ME)
    after = await cluster.endpoints.update("my-net", "c2", patch(address="10.7.0.9", reuse=True), ME)

    assert str(after.value.address) == "10.7.0.9"


async def test_what_cools_down_is_still_nobodys_free_choice(cluster: Cluster) -> None:
    await cluster.networks.create(network("tiny", "10.7.0.0/30"), ME)
    await cluster.endpoints.create("tiny", endpoint("c1"), ME)
    await cluster.endpoints.delete("tiny", "c1", ME)

    with pytest.raises(KvnetError, match="1 cooling down"):
        await cluster.endpoints.create("tiny", endpoint("c1", reuse=True), ME)


# -- others, and faults


@pytest.fixture
async def replicas(any_store: Store, time: FakeTime) -> AsyncIterator[list[Cluster]]:
    async with AsyncExitStack() as stack:
        await add_host(any_store, "h1")
        yield [await stack.enter_async_context(opened(any_store, time, seed=i)) for i in range(3)]


async def test_patches_at_the_same_moment_all_come_to_be(replicas: list[Cluster], any_store: Store) -> None:
    made = await replicas[0].networks.create(network(), ME)
    one = await replicas[0].endpoints.create(made.value.id, endpoint(), ME)
    asked = [patch(labels={f"l{i}": str(i)}) for i in range(9)] + [patch(PortRequest(80, host_port=8080))]

    await asyncio.gather(
        *(replicas[i % 3].endpoints.update(made.value.id, one.value.id, p, ME) for i, p in enumerate(asked))
    )

    after = await stored(any_store, one)
    assert after.value.labels == {f"l{i}": str(i) for i in range(9)}
    assert [p.host_port for p in after.value.ports] == [8080]


async def test_of_racing_patches_for_one_port_exactly_one_wins(replicas: list[Cluster], any_store: Store) -> None:
    made = await replicas[0].networks.create(network(), ME)
    many = [endpoint(f"c{i}", ports=(PortRequest(80, host_port=7000 + i),)) for i in range(12)]
    ones = await replicas[0].endpoints.create_many(made.value.id, many, ME)
    wanted = patch(PortRequest(80, host_port=8080))

    outcomes = await asyncio.gather(
        *(
            replicas[i % 3].endpoints.update(made.value.id, one.value.id, wanted, ME)
            for i, one in enumerate(ones)
            if isinstance(one, Versioned)
        ),
        return_exceptions=True,
    )

    assert sum(isinstance(outcome, Versioned) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, PortTaken) for outcome in outcomes) == 11
    assert len(await held(any_store)) == 12
    assert (await replicas[0].ipam.check()).findings == ()


async def test_a_deletion_takes_what_a_patch_gave_a_moment_before(replicas: list[Cluster], any_store: Store) -> None:
    made = await replicas[0].networks.create(network(), ME)
    for i in range(8):
        one = await replicas[0].endpoints.create(made.value.id, endpoint(f"c{i}"), ME)
        change = replicas[1].endpoints.update(made.value.id, one.value.id, patch(PortRequest(80), name="x"), ME)
        deletion = replicas[2].endpoints.delete(made.value.id, one.value.id, ME)
        outcomes = await asyncio.gather(change, deletion, return_exceptions=True)

        assert isinstance(outcomes[1], tuple)
        assert isinstance(outcomes[0], Versioned | NotFound)
    assert await held(any_store) == []
    assert (await any_store.list(keys.ENDPOINTS)).entries == ()
    assert (await replicas[0].ipam.check()).findings == ()


async def test_whatever_call_fails_the_endpoint_is_as_it_was_or_as_it_is_to_be(
    store: MemoryStore, time: FakeTime
) -> None:
    await add_host(store, "h1")
    failing = FailingStore(store)
    async with opened(failing, time) as cluster:
        await cluster.networks.create(network("my-net", "10.7.0.0/24"), ME)
        for at in range(1, 6):
            for before in (True, False):
                name = f"c{at}{before}"
                one = await cluster.endpoints.create("my-net", endpoint(name, ports=(PortRequest(80),)), ME)
                asked = patch(PortRequest(81), address=f"10.7.0.{100 + 2 * at + before}", labels={"x": "1"})
                failing.fault, failing.calls = Fault(at, kill=False, before=before), 0
                try:
                    after = await cluster.endpoints.update("my-net", one.value.id, asked, ME, one.version)
                    assert await stored(store, one) == after
                except KvnetError:
                    assert await stored(store, one) == one
                failing.fault = None
                assert (await cluster.ipam.check()).findings == ()
                assert len(await held(store)) == len(cluster.endpoints.list())


async def test_a_rehearsed_patch_writes_nothing_and_is_refused_as_the_real_one(
    cluster: Cluster, store: MemoryStore
) -> None:
    await cluster.networks.create(network("my-net", "10.7.0.0/24"), ME)
    one = await cluster.endpoints.create("my-net", endpoint(ports=(PortRequest(80, host_port=8080),)), ME)
    await cluster.endpoints.create("my-net", endpoint("c2", ports=(PortRequest(80, host_port=8081),)), ME)

    asked = patch(PortRequest(80, host_port=9090), address="10.7.0.77")
    made, _ = await cluster.rehearse(lambda changes: changes.endpoints.update("my-net", "c1", asked, ME))

    assert (made.value.ports[0].host_port, str(made.value.address)) == (9090, "10.7.0.77")
    assert await stored(store, one) == one
    taken = patch(PortRequest(80, host_port=8081))
    with pytest.raises(PortTaken):
        await cluster.rehearse(lambda changes: changes.endpoints.update("my-net", "c1", taken, ME))
