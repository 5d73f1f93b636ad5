"""Published ports at the controller: one holder each, whoever asks at once; free again with their endpoint."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from backends.memory import MemoryStore
from backends.store import Store
from controller.cluster import Cluster
from controller.requests import PortRequest
from kvnet import codec, keys
from kvnet.claims import HeldPorts
from kvnet.errors import Invalid, KvnetError, PortsExhausted, PortTaken
from kvnet.model import Endpoint, Versioned
from tests.unit.controller.kit import ME, FakeTime, add_host, endpoint, network, opened

pytestmark = pytest.mark.anyio

REPLICAS = 3


async def held(store: Store, host: str = "h1") -> list[tuple[str, int, str]]:
    found = []
    for entry in (await store.list(keys.ports_of(host))).entries:
        protocol = keys.parse_ports(entry.key).protocol
        found += [(protocol, h.port, h.endpoint) for h in codec.decode(HeldPorts, entry.value).held]
    return sorted(found)


def published(one: Versioned[Endpoint] | KvnetError) -> list[int | None]:
    assert not isinstance(one, KvnetError), one
    return [port.host_port for port in one.value.ports]


async def test_a_port_is_held_with_its_endpoint_and_free_when_it_is_gone(cluster: Cluster, store: MemoryStore) -> None:
    await cluster.networks.create(network(), ME)
    one = await cluster.endpoints.create("my-net", endpoint(ports=(PortRequest(80, host_port=8080),)), ME)
    assert await held(store) == [("tcp", 8080, one.value.id)]

    await cluster.endpoints.delete("my-net", one.value.id, ME)

    assert await held(store) == []
    assert (await cluster.ipam.check()).ok


async def test_a_taken_port_names_its_holder_with_network_and_host(cluster: Cluster) -> None:
    await cluster.networks.create(network(), ME)
    await cluster.networks.create(network("other"), ME)
    first = await cluster.endpoints.create("my-net", endpoint("web", ports=(PortRequest(80, host_port=8080),)), ME)

    with pytest.raises(PortTaken, match=r"port 8080/tcp of host h1 .* endpoint web .* network my-net") as refused:
        await cluster.endpoints.create("other", endpoint("late", ports=(PortRequest(80, host_port=8080),)), ME)

    assert refused.value.context["holder"]["endpoint"] == first.value.id
    await cluster.endpoints.create("other", endpoint("udp", ports=(PortRequest(80, None, "udp", 8080),)), ME)


async def test_two_addresses_of_a_host_have_their_own_ports_and_all_of_them_have_none(cluster: Cluster) -> None:
    await cluster.networks.create(network(), ME)

    async def publish(address: str | None) -> None:
        port = PortRequest(80, host_port=8080, host_address=address)
        await cluster.endpoints.create("my-net", endpoint(ports=(port,)), ME)

    await publish("127.0.0.1")
    await publish("192.0.2.1")
    await publish("2001:db8::1")
    for address in (None, "127.0.0.1", "0.0.0.0", "::"):
        with pytest.raises(PortTaken):
            await publish(address)


async def test_ranges_are_laid_out_and_what_is_open_is_chosen(cluster: Cluster) -> None:
    await cluster.networks.create(network(), ME)
    ports = (PortRequest(80, 82, host_port=8000), PortRequest(90, host_port=8001, host_port_end=8010), PortRequest(70))
    one = await cluster.endpoints.create("my-net", endpoint(ports=ports), ME)

    found = published(one)
    assert found[:4] == [8000, 8001, 8002, 8003]
    assert found[4] in range(61000, 65536)
    assert [p.port for p in one.value.ports] == [80, 81, 82, 90, 70]


async def test_a_range_of_the_hosts_that_is_full_is_an_error(cluster: Cluster) -> None:
    await cluster.networks.create(network(), ME)
    ports = (PortRequest(80, host_port=8000, host_port_end=8001),)
    made = [await cluster.endpoints.create("my-net", endpoint(f"c{i}", ports=ports), ME) for i in range(2)]
    assert [published(one) for one in made] == [[8000], [8001]]

    with pytest.raises(PortsExhausted, match="8000-8001/tcp"):
        await cluster.endpoints.create("my-net", endpoint("c3", ports=ports), ME)


async def test_repeating_a_creation_with_open_ports_answers_with_what_was_chosen(cluster: Cluster) -> None:
    await cluster.networks.create(network(), ME)
    asked = endpoint(id="mine", ports=(PortRequest(80), PortRequest(81, host_port=9000, host_port_end=9010)))
    first = await cluster.endpoints.create("my-net", asked, ME)

    assert await cluster.endpoints.create("my-net", asked, ME) == first
    with pytest.raises(KvnetError, match="is another one"):
        await cluster.endpoints.create("my-net", endpoint(id="mine", ports=(PortRequest(80),)), ME)


async def test_an_internal_network_publishes_nothing(cluster: Cluster, store: MemoryStore) -> None:
    await cluster.networks.create(network("quiet", internal=True), ME)
    with pytest.raises(Invalid, match="internal"):
        await cluster.endpoints.create("quiet", endpoint(ports=(PortRequest(80),)), ME)
    assert await held(store) == []


async def test_an_ipv6_host_address_needs_an_ipv6_address(cluster: Cluster) -> None:
    await cluster.networks.create(network("four", "10.7.0.0/24"), ME)
    with pytest.raises(Invalid, match="no such address"):
        await cluster.endpoints.create("four", endpoint(ports=(PortRequest(80, host_address="2001:db8::1"),)), ME)


@pytest.mark.parametrize("address", ["::1", "fe80::1", "ff02::1", "239.0.0.1"])
async def test_nothing_is_published_where_nobody_could_call(cluster: Cluster, address: str) -> None:
    await cluster.networks.create(network(), ME)
    with pytest.raises(Invalid, match="no port can be published"):
        await cluster.endpoints.create("my-net", endpoint(ports=(PortRequest(80, host_address=address),)), ME)


@pytest.mark.parametrize("port", [PortRequest(80), PortRequest(80, host_port=20_000, host_port_end=20_200)])
async def test_a_list_of_100_endpoints_that_publish_a_port_each_gets_100_ports(
    cluster: Cluster, store: MemoryStore, port: PortRequest
) -> None:
    await cluster.networks.create(network(), ME)
    made = await cluster.endpoints.create_many("my-net", [endpoint(f"c{i}", ports=(port,)) for i in range(100)], ME)

    chosen = [published(one)[0] for one in made]
    assert len(set(chosen)) == 100
    assert len(await held(store)) == 100


async def test_a_host_with_many_ports_loses_all_of_them_with_it(cluster: Cluster, store: MemoryStore) -> None:
    await cluster.networks.create(network(), ME)
    await add_host(store, "h2", alive=False)
    ports = [endpoint(f"c{i}", "h2", ports=(PortRequest(80, host_port=8000 + i),)) for i in range(80)]
    await cluster.endpoints.create_many("my-net", ports, ME)
    assert len(await held(store, "h2")) == 80

    await cluster.hosts.delete("h2", ME, force=True)

    assert await held(store, "h2") == []
    assert (await cluster.ipam.check()).ok


@pytest.fixture
async def replicas(any_store: Store, time: FakeTime) -> AsyncIterator[list[Cluster]]:
    async with AsyncExitStack() as stack:
        await add_host(any_store, "h1")
        yield [await stack.enter_async_context(opened(any_store, time, seed=i)) for i in range(REPLICAS)]


async def test_of_racing_creators_of_one_host_port_exactly_one_wins(replicas: list[Cluster], any_store: Store) -> None:
    made = await replicas[0].networks.create(network(), ME)
    asked = [endpoint(f"c{i}", ports=(PortRequest(80, host_port=8080),)) for i in range(24)]

    outcomes = await asyncio.gather(
        *(replicas[i % REPLICAS].endpoints.create_many(made.value.id, [one], ME) for i, one in enumerate(asked))
    )

    kinds = Counter(type(outcome) for (outcome,) in outcomes)
    assert kinds == {Versioned: 1, PortTaken: 23}
    assert len(await held(any_store)) == 1


async def test_racing_creators_that_leave_it_open_get_a_port_each(replicas: list[Cluster], any_store: Store) -> None:
    made = await replicas[0].networks.create(network(), ME)
    asked = [endpoint(f"c{i}", ports=(PortRequest(80, host_port=8000, host_port_end=8100),)) for i in range(30)]

    outcomes = await asyncio.gather(
        *(replicas[i % REPLICAS].endpoints.create_many(made.value.id, [one], ME) for i, one in enumerate(asked))
    )

    chosen = {published(one)[0] or 0 for (one,) in outcomes}
    assert len(chosen) == 30
    assert chosen <= set(range(8000, 8101))
    assert (await replicas[0].ipam.check()).findings == ()
