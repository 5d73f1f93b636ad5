"""The store as one host sees it: what it takes part in, from the first moment to the last, and nothing beside it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from backends.memory import MemoryState, MemoryStore
from backends.mirror import Mirror
from backends.passing import PassingStore
from backends.sqlite import SqliteStore
from backends.store import (
    MIN_TTL_S,
    Absent,
    Batch,
    Change,
    Conflict,
    Delete,
    Put,
    Refused,
    SessionLost,
    Store,
    Unavailable,
    Unchanged,
)
from controller.cluster import Cluster
from controller.requests import Caller, EndpointRequest, NetworkRequest
from controller.security.hidden_store import HiddenStore
from controller.security.host_limits import MAX_TTL_S
from controller.security.host_store import Gate
from controller.security.principal import Principal
from controller.settings import Settings
from kvnet import codec, keys
from kvnet.model import Alive, Host, Network, NetworkObserved, Observed
from kvnet.security import Grant, Role
from tests.store.watching import until

pytestmark = pytest.mark.anyio

ME = Caller("tester", "r", "test")
DEADLINE_S = 10.0
Opener = Callable[[], Awaitable[Store]]


def principal(host: str, **more: object) -> Principal:
    return replace(Principal(f"host:{host}", Role.HOST, token=host, host=host), **more)  # type: ignore[arg-type]


class Site:
    """A cluster with two hosts, and the store as each of them sees it."""

    def __init__(self, store: Store, cluster: Cluster) -> None:
        self.store = store
        self.cluster = cluster

    def seen_by(self, host: str, **more: object) -> Store:
        return self.cluster.gate.store_for(principal(host, **more), HiddenStore(self.store))

    async def network(self, name: str, **more: object) -> Network:
        made = await self.cluster.networks.create(replace(NetworkRequest(name), **more), ME)  # type: ignore[arg-type]
        return made.value

    async def endpoint(self, network: Network, host: str, name: str = "e", **more: object) -> str:
        asked = replace(EndpointRequest(host, name), **more)  # type: ignore[arg-type]
        return (await self.cluster.endpoints.create(network.id, asked, ME)).value.id

    async def remove(self, network: Network, endpoint: str) -> None:
        await self.cluster.endpoints.delete(network.id, endpoint, ME)


@pytest.fixture(params=["memory", "sqlite"])
async def opener(request: pytest.FixtureRequest, tmp_path: Path, anyio_backend: str) -> Opener:
    """Another client of the one store. What nothing happens to is not told of revisions on the second."""
    if request.param == "sqlite":
        return lambda: SqliteStore.open(tmp_path / "store.db")
    memory = MemoryState()

    async def opened() -> Store:
        return MemoryStore(memory)

    return opened


@pytest.fixture
async def site(opener: Opener) -> AsyncIterator[Site]:
    async with await opener() as store, Cluster.open(store, Settings(upkeep=False)) as cluster:
        for number, name in enumerate(("h1", "h2"), start=1):
            await store.commit([], [Put(keys.host(name), codec.encode(record(name, f"192.0.2.{number}")))])
        await until(lambda: len(cluster.hosts.list()) == 2)
        yield Site(store, cluster)


def record(host: str, underlay: str) -> Host:
    return Host(host, ip_address(underlay), 1500, segment=ip_network(f"{underlay}/24", strict=False))


def of_network(network: Network) -> list[str]:
    return [keys.network(network.id), keys.endpoints(network.id), keys.blocks(network.id)]


# reading


async def test_a_network_is_read_by_those_that_take_part_and_refused_to_others(site: Site) -> None:
    network = await site.network("a")
    endpoint = await site.endpoint(network, "h1")
    h1, h2 = site.seen_by("h1"), site.seen_by("h2")

    for prefix in of_network(network):
        assert (await h1.list(prefix)).revision > 0
        with pytest.raises(Refused, match="h2"):
            await h2.list(prefix)
        with pytest.raises(Refused):
            await anext(h2.watch(prefix, 0))
    for key in (keys.network(network.id), keys.endpoint(network.id, endpoint)):
        assert await h1.get(key) is not None
        with pytest.raises(Refused):
            await h2.get(key)


async def test_a_refusal_says_nothing_of_whether_there_is_such_a_network(site: Site) -> None:
    network = await site.network("a")
    h2 = site.seen_by("h2")
    said = set()
    for id_ in (network.id, "0" * 12):
        with pytest.raises(Refused) as refused:
            await h2.list(keys.endpoints(id_))
        said.add(str(refused.value).replace(id_, "ID"))
    assert len(said) == 1


async def test_peers_of_a_hosts_networks_are_read_and_their_peers_are_not(site: Site) -> None:
    a, b, c = [await site.network(name) for name in "abc"]
    await site.endpoint(a, "h1")
    await site.cluster.peering.peer(a.id, b.id, ME)
    await site.cluster.peering.peer(b.id, c.id, ME)
    h1 = site.seen_by("h1")
    for prefix in (*of_network(a), *of_network(b)):
        await h1.list(prefix)
    for prefix in of_network(c):
        with pytest.raises(Refused):
            await h1.list(prefix)


async def test_an_endpoint_that_this_replica_has_not_heard_of_counts_at_once(opener: Opener, site: Site) -> None:
    """Another replica made it; this one's mirrors stand still."""
    network = await site.network("late")
    peer = await site.network("peer")
    await site.cluster.peering.peer(network.id, peer.id, ME)
    async with await opener() as other, Cluster.open(other, Settings(upkeep=False)) as elsewhere:
        blind = blinded(site)
        made = await elsewhere.endpoints.create(network.id, EndpointRequest("h1", "e"), ME)
        assert not blind.participation.takes_part("h1", network.id)
        h1 = blind.store_for(principal("h1"), site.store)
        assert [e.key for e in (await h1.list(keys.endpoints(network.id))).entries] == [
            keys.endpoint(network.id, made.value.id)
        ]
        await h1.list(keys.endpoints(peer.id))
        batches = h1.watch(keys.endpoints(network.id), 0)
        await anext(batches)
        await batches.aclose()  # type: ignore[attr-defined]


def blinded(site: Site) -> Gate:
    """A gate whose state is that of a replica that has heard of nothing yet."""
    from random import Random

    from controller.state import State

    state = State(site.store, Settings(), Random(1))
    return Gate(state, site.store, secrets.token_bytes, lambda: 0.0)


async def test_a_host_that_is_refused_all_day_costs_the_store_a_bounded_number_of_reads(site: Site) -> None:
    network = await site.network("a")
    reads = 0
    inner = site.store.list

    async def counted(prefix: str) -> object:
        nonlocal reads
        reads += 1
        return await inner(prefix)

    site.store.list = counted  # type: ignore[method-assign, assignment]
    h2 = blinded(site).store_for(principal("h2"), site.store)  # its clock stands still
    for _ in range(1000):
        with pytest.raises((Refused, Unavailable)):
            await h2.list(keys.endpoints(network.id))
    assert reads <= 60


async def test_a_name_leads_to_a_network_that_the_host_may_join_and_to_no_other(site: Site) -> None:
    red, blue = await site.network("red", labels={"team": "r"}), await site.network("blue", labels={"team": "b"})
    everywhere, scoped = site.seen_by("h1"), site.seen_by("h1", scope={"team": "r"})
    for name, network in (("red", red), ("blue", blue)):
        found = await everywhere.get(keys.name(name))
        assert found is not None
        assert found.value.decode() == network.id
    assert await scoped.get(keys.name("red")) is not None
    assert await scoped.get(keys.name("blue")) is None
    assert await scoped.get(keys.name("green")) is None


async def test_the_catalogue_is_for_hosts_with_docker_and_shows_their_scope(site: Site) -> None:
    red, blue = await site.network("red", labels={"team": "r"}), await site.network("blue", labels={"team": "b"})
    with pytest.raises(Refused, match="docker"):
        await site.seen_by("h1").list(keys.NETWORKS)
    with pytest.raises(Refused, match="docker"):
        await anext(site.seen_by("h1").watch(keys.NETWORKS, 0))

    docker = {"grants": (Grant.DOCKER,)}
    assert len((await site.seen_by("h1", **docker).list(keys.NETWORKS)).entries) == 2
    scoped = site.seen_by("h1", scope={"team": "r"}, **docker)
    assert [e.key for e in (await scoped.list(keys.NETWORKS)).entries] == [keys.network(red.id)]
    assert await scoped.get(keys.network(red.id)) is not None
    assert await scoped.get(keys.network(blue.id)) is None
    with pytest.raises(Refused):
        await scoped.list(keys.endpoints(red.id))  # it knows of the network; who is in it is for those who take part

    snapshot = await scoped.list(keys.NETWORKS)
    batches = scoped.watch(keys.NETWORKS, snapshot.revision)
    await anext(batches)
    await site.store.commit([], [Put(keys.network(red.id), codec.encode(replace(red, labels={"team": "b"})))])
    batch = await anext(batches)
    assert batch.changes == (Change(keys.network(red.id), None),)  # it left the scope
    await site.store.commit([], [Put(keys.network(blue.id), codec.encode(replace(blue, mtu=1400)))])
    await site.store.commit([], [Put(keys.network(red.id), codec.encode(red))])
    told = [change.key async for change in _changes(batches, 1)]
    assert told == [keys.network(red.id)]  # it is back; of the other one nothing was told
    await batches.aclose()  # type: ignore[attr-defined]


async def _changes(batches: AsyncIterator[Batch], number: int) -> AsyncIterator[Change]:
    async with asyncio.timeout(DEADLINE_S):
        async for batch in batches:
            for change in batch.changes:
                yield change
                number -= 1
            if number <= 0:
                return


# watching


async def test_a_watch_of_a_network_tells_of_the_hosts_last_endpoint_and_ends_then(site: Site) -> None:
    network = await site.network("a")
    endpoint, other = await site.endpoint(network, "h1"), await site.endpoint(network, "h2", "o")
    h1 = site.seen_by("h1")
    seen: list[Change] = []
    mirror = Mirror(h1, keys.endpoints(network.id), on_change=seen.extend)
    following = asyncio.create_task(mirror.run())
    try:
        await until(lambda: len(mirror.entries) == 2)
        await site.remove(network, endpoint)
        await until(lambda: isinstance(mirror.last_error, Refused))
        assert Change(keys.endpoint(network.id, endpoint), None) in seen
        later = await site.endpoint(network, "h2", "later")
        assert keys.endpoint(network.id, later) not in mirror.entries
        assert keys.endpoint(network.id, other) in mirror.entries  # what it knew it knows

        again = await site.endpoint(network, "h1", "again")  # and back
        await until(lambda: {keys.endpoint(network.id, id_) for id_ in (again, later)} <= mirror.entries.keys())
    finally:
        following.cancel()


class Halting(PassingStore):
    """One that tells nothing of `networks/` after the first word, and of the others first how far it has come."""

    async def watch(self, prefix: str, after: int) -> AsyncIterator[Batch]:
        async for batch in self._inner.watch(prefix, after):
            if batch.changes and prefix.startswith(keys.ENDPOINTS):
                yield Batch((), batch.revision - 1)
            yield batch
            if prefix == keys.NETWORKS:
                await asyncio.Event().wait()


async def test_it_tells_of_that_however_the_store_tells_of_it(opener: Opener, site: Site) -> None:
    network = await site.network("a")
    endpoint = await site.endpoint(network, "h1")
    async with await opener() as other, Cluster.open(Halting(other), Settings(upkeep=False)) as elsewhere:
        seen: list[Change] = []
        h1 = elsewhere.gate.store_for(principal("h1"), Halting(other))
        mirror = Mirror(h1, keys.endpoints(network.id), on_change=seen.extend)
        following = asyncio.create_task(mirror.run())
        try:
            await until(lambda: len(mirror.entries) == 1)
            await site.remove(network, endpoint)
            await until(lambda: isinstance(mirror.last_error, Refused))
            assert Change(keys.endpoint(network.id, endpoint), None) in seen
        finally:
            following.cancel()


async def test_a_watch_goes_on_while_the_host_has_another_endpoint_there(site: Site) -> None:
    network = await site.network("a")
    first, second = await site.endpoint(network, "h1"), await site.endpoint(network, "h1", "f")
    mirror = Mirror(site.seen_by("h1"), keys.endpoints(network.id))
    following = asyncio.create_task(mirror.run())
    try:
        await until(lambda: len(mirror.entries) == 2)
        await site.remove(network, first)
        await until(lambda: len(mirror.entries) == 1)
        third = await site.endpoint(network, "h2", "t")
        await until(lambda: keys.endpoint(network.id, third) in mirror.entries)
        assert keys.endpoint(network.id, second) in mirror.entries
        assert mirror.last_error is None
    finally:
        following.cancel()


@pytest.mark.parametrize("which", [0, 1, 2])
async def test_a_silent_watch_ends_too_when_the_host_leaves_or_the_networks_part(site: Site, which: int) -> None:
    a, b = await site.network("a"), await site.network("b")
    endpoint = await site.endpoint(a, "h1")
    await site.cluster.peering.peer(a.id, b.id, ME)
    h1 = site.seen_by("h1")

    async def ended(prefix: str, act: Callable[[], object]) -> None:
        batches = h1.watch(prefix, (await h1.list(prefix)).revision)
        await anext(batches)
        coming = asyncio.create_task(_until_refused(batches))
        await asyncio.sleep(0)
        await act()  # type: ignore[misc]
        async with asyncio.timeout(DEADLINE_S):
            await coming

    await ended(of_network(b)[which], lambda: site.cluster.peering.unpeer(a.id, b.id, ME))
    await ended(of_network(a)[which], lambda: site.remove(a, endpoint))


async def _until_refused(batches: AsyncIterator[object]) -> None:
    with pytest.raises(Refused):
        async for _ in batches:
            pass


async def test_a_host_has_a_bounded_number_of_watches(site: Site) -> None:
    h1 = site.seen_by("h1")
    open_ = []
    for _ in range(64):
        batches = h1.watch(keys.HOSTS, 0)
        await anext(batches)
        open_.append(batches)
    with pytest.raises(Unavailable, match="watches"):
        await anext(h1.watch(keys.HOSTS, 0))
    await open_.pop().aclose()  # type: ignore[attr-defined]
    batches = h1.watch(keys.HOSTS, 0)
    await anext(batches)
    for one in (*open_, batches):
        await one.aclose()  # type: ignore[attr-defined]


# writing


async def test_a_host_registers_at_a_free_address_and_not_at_anothers(site: Site) -> None:
    h1 = site.seen_by("h1")
    await h1.commit([], [Put(keys.host("h1"), codec.encode(record("h1", "192.0.2.7")))])
    with pytest.raises(Refused, match="underlay"):
        await h1.commit([], [Put(keys.host("h1"), codec.encode(record("h1", "192.0.2.2")))])


async def test_a_host_that_writes_all_the_time_is_slowed_down(site: Site) -> None:
    """Every worker of the cluster hears of each change of a record."""
    gate = blinded(site)  # its clock stands still
    h1, h2 = (gate.store_for(principal(host), site.store) for host in ("h1", "h2"))
    put = Put(keys.host("h1"), codec.encode(record("h1", "192.0.2.1")))
    for _ in range(60):
        await h1.commit([], [put])
    with pytest.raises(Unavailable, match="too often"):
        await h1.commit([], [put])
    await h1.commit([], [Put(keys.observed("h1"), codec.encode(Observed("h1", 1.0)))])
    await h2.commit([], [Put(keys.host("h2"), codec.encode(record("h2", "192.0.2.2")))])


async def test_a_host_does_not_register_at_an_address_of_workloads(site: Site) -> None:
    network = await site.network("a")
    await site.endpoint(network, "h2")
    subnet = network.subnets[0]
    h1 = site.seen_by("h1")
    for address in (subnet.gateway, subnet.cidr.network_address + 9):
        with pytest.raises(Refused, match="network"):
            await h1.commit([], [Put(keys.host("h1"), codec.encode(Host("h1", address, 1500)))])  # type: ignore[arg-type]


async def test_a_host_reports_on_networks_that_it_has_something_of(site: Site) -> None:
    mine, others = await site.network("a"), await site.network("b")
    endpoint = await site.endpoint(mine, "h1")
    h1 = site.seen_by("h1")

    async def report(*networks: Network) -> None:
        told = Observed("h1", 1.0, {network.id: NetworkObserved(1) for network in networks})
        await h1.commit([], [Put(keys.observed("h1"), codec.encode(told))])

    await report(mine)
    await site.cluster._state.observed.mirror.until((await site.store.list(keys.OBSERVED)).revision, DEADLINE_S)
    with pytest.raises(Refused):
        await report(mine, others)
    await site.remove(mine, endpoint)
    await report(mine)  # until its kernel is rid of it


async def test_sessions_are_sealed_for_their_host(site: Site) -> None:
    h1, h2 = site.seen_by("h1"), site.seen_by("h2")
    session = await h1.session(MIN_TTL_S)
    alive = codec.encode(Alive("h1", "run-1", 1.0))
    await h1.commit([Absent(keys.alive("h1"))], [Put(keys.alive("h1"), alive, session.id), Delete("reclaims/h1")])
    with pytest.raises(SessionLost):
        await h2.session(MIN_TTL_S, resume=session.id)
    with pytest.raises(SessionLost):
        await h2.commit([], [Put(keys.alive("h2"), codec.encode(Alive("h2", "r", 1.0)), session.id)])
    theirs = await site.store.session(MIN_TTL_S)  # a controller's own
    with pytest.raises(SessionLost):
        await h1.session(MIN_TTL_S, resume=theirs.id)

    again = await h1.session(MIN_TTL_S, resume=session.id)
    assert again.id == session.id
    await again.close()
    assert await site.store.get(keys.alive("h1")) is None


async def test_every_replica_opens_the_seals_of_every_other(opener: Opener, site: Site) -> None:
    session = await site.seen_by("h1").session(MIN_TTL_S)
    async with await opener() as other, Cluster.open(other, Settings(upkeep=False)) as elsewhere:
        again = await elsewhere.gate.store_for(principal("h1"), other).session(MIN_TTL_S, resume=session.id)
        assert again.id == session.id
        await site.store.commit([], [Put("secrets/gateway", b"f" * 64)])  # a restore brought another one
        fresh = await elsewhere.gate.store_for(principal("h1"), other).session(MIN_TTL_S, resume=session.id)
        assert fresh.id == session.id  # one that still has the former one goes on with it
        made = await blinded(site).store_for(principal("h1"), site.store).session(MIN_TTL_S)
        assert (await elsewhere.gate.store_for(principal("h1"), other).session(MIN_TTL_S, resume=made.id)).id == made.id


async def test_sessions_are_bounded_in_number_and_length(site: Site) -> None:
    h1 = blinded(site).store_for(principal("h1"), site.store)
    with pytest.raises(Refused):
        await h1.session(MAX_TTL_S + 1)
    for _ in range(30):
        await (await h1.session(MIN_TTL_S)).release()
    with pytest.raises(Unavailable, match="sessions"):
        await h1.session(MIN_TTL_S)


async def test_a_conflict_names_own_keys_alone(site: Site) -> None:
    h1 = site.seen_by("h1")
    with pytest.raises(Conflict) as conflict:
        await h1.commit([Absent(keys.host("h1")), Unchanged(keys.inventory("h1"), 3)], [Delete("reclaims/h1")])
    assert set(conflict.value.keys) == {"hosts/h1", "inventory/h1"}
    for key in ("hosts/h2", "tokens/000000000000", "names/a", "addresses/0123456789ab/10.0.0.2"):
        for check in (Absent(key), Unchanged(key, 1)):
            with pytest.raises(Refused):
                await h1.commit([check], [Delete("reclaims/h1")])


# what nobody is shown


async def test_secrets_are_hidden_from_everybody(site: Site) -> None:
    await site.store.commit([], [Put("secrets/x", b"s"), Put("tokens/x", b"t"), Put("pools/x", b"p")])
    shown = HiddenStore(site.store)
    for prefix in ("", "s", "secrets", "secrets/", "secrets/x", "t", "tokens/"):
        found = await shown.list(prefix)
        assert not [entry.key for entry in found.entries if entry.key.startswith(("secrets/", "tokens/"))]
        batch = await anext(shown.watch(prefix, 0))
        assert not [change.key for change in batch.changes if change.key.startswith(("secrets/", "tokens/"))]
    assert (await shown.list("")).entries
    for key in ("secrets/x", "tokens/x"):
        assert await shown.get(key) is None
        for checks, writes in (
            ([], [Put(key, b"")]),
            ([], [Delete(key)]),
            ([Absent(key)], [Delete("pools/none")]),
        ):
            with pytest.raises(Refused):
                await shown.commit(checks, writes)
