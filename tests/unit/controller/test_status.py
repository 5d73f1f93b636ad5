"""What is said of networks, endpoints and hosts: true, false or unknown, why, and since when it really is so."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.memory import MemoryStore
from backends.store import Delete, Put
from controller.cluster import Cluster
from controller.network_rules import stored_network
from controller.steps import MOST, Steps
from controller.views import Status, StatusCondition
from kvnet import codec, keys
from kvnet.model import Alive, Condition, Endpoint, NetworkObserved, Observed, Versioned
from tests.unit.controller.kit import ME, FakeTime, add_host, endpoint, eventually, network, opened

pytestmark = pytest.mark.anyio


class Site:
    """A cluster with hosts whose workers are played by hand."""

    def __init__(self, cluster: Cluster, store: MemoryStore, time: FakeTime) -> None:
        self.cluster, self.store, self.time = cluster, store, time

    async def come(self, host: str) -> None:
        alive = Alive(host, f"at-{self.time.now()}", self.time.now())
        await self.store.commit([], [Put(keys.alive(host), codec.encode(alive))])
        await eventually(lambda: self.cluster.hosts.get(host).alive)

    async def go(self, host: str) -> None:
        await self.store.commit([], [Delete(keys.alive(host))])
        await eventually(lambda: not self.cluster.hosts.get(host).alive)

    async def report(
        self, host: str, network: str, version: int, *conditions: Condition, unattached: Sequence[str] = ()
    ) -> None:
        seen = NetworkObserved(version, conditions, self.time.now(), unattached=tuple(unattached))
        told = Observed(host, self.time.now(), {network: seen} if version >= 0 else {})
        revision = await self.store.commit([], [Put(keys.observed(host), codec.encode(told))])
        await self.cluster._state.observed.mirror.until(revision, 5.0)

    async def endpoint(self, name: str, host: str) -> Versioned[Endpoint]:
        return await self.cluster.endpoints.create("my-net", endpoint(name, host=host), ME)

    def network(self) -> Status:
        return self.cluster.statuses.look().network(self.cluster.networks.get("my-net"))

    def of(self, one: Versioned[Endpoint]) -> Status:
        return self.cluster.statuses.look().endpoint(one)

    def host(self, name: str) -> Status:
        return self.cluster.statuses.look().host(self.cluster.hosts.get(name))


def words(status: Status) -> list[tuple[str, str, str]]:
    return [(c.kind, c.status, c.reason) for c in status]


def ready(status: Status) -> StatusCondition:
    assert [c.kind for c in status[:2]] == ["ready", "converged"]
    return status[0]


def converged(status: Status) -> StatusCondition:
    assert [c.kind for c in status[:2]] == ["ready", "converged"]
    return status[1]


@pytest.fixture
async def site(cluster: Cluster, store: MemoryStore, time: FakeTime) -> Site:
    await add_host(store, "h2")
    await eventually(lambda: cluster.status().hosts_alive == 2)
    await cluster.networks.create(network("my-net", "10.1.0.0/24"), ME)
    return Site(cluster, store, time)


async def test_a_network_without_endpoints_is_ready_since_it_was_made(site: Site) -> None:
    made = site.time.now()
    site.time.pass_by(100.0)

    assert words(site.network()) == [("ready", "true", "no-hosts"), ("converged", "true", "no-hosts")]
    assert {c.since for c in site.network()} == {made}


async def test_an_endpoint_is_ready_when_its_host_has_it_and_a_workload_its_interface(site: Site) -> None:
    await site.come("h1")
    site.time.pass_by(10.0)
    made = await site.endpoint("a", "h1")
    net = made.value.network
    created = site.time.now()

    site.time.pass_by(1.0)
    assert words(site.of(made)) == [("ready", "false", "behind"), ("converged", "false", "behind")]
    assert {c.since for c in site.of(made)} == {created}
    assert converged(site.network()).detail == "waiting for h1"
    await site.report("h1", net, made.version, unattached=["a", made.value.id])
    assert words(site.of(made)) == [("ready", "false", "not-attached"), ("converged", "true", "applied")]
    assert converged(site.of(made)).since == site.time.now()
    site.time.pass_by(5.0)
    attached = site.time.now()
    await site.report("h1", net, made.version)
    site.time.pass_by(5.0)

    assert ready(site.of(made)) == StatusCondition("ready", "true", "attached", since=attached)


async def test_of_an_endpoint_on_a_host_that_is_down_nobody_knows(site: Site) -> None:
    made = await site.endpoint("a", "h1")
    await site.report("h1", made.value.network, made.version, Condition("uplink-mtu", "too large", 7.0))
    site.time.pass_by(10.0)
    await site.go("h1")
    went = site.time.now()
    site.time.pass_by(10.0)

    of_endpoint, of_host = site.of(made), site.host("h1")
    assert words(of_endpoint)[:2] == [("ready", "unknown", "host-down"), ("converged", "unknown", "hosts-down")]
    assert {c.since for c in of_endpoint[:2]} == {went}
    assert words(of_host)[:2] == [("ready", "false", "down"), ("converged", "unknown", "down")]
    assert ready(of_host).since == went
    assert words(site.network())[:2] == [("ready", "unknown", "hosts-down"), ("converged", "unknown", "hosts-down")]
    stale = site.network()[2]
    assert (stale.status, stale.reason, stale.host, stale.since) == ("unknown", "uplink-mtu", "h1", 7.0)
    assert "before the host went down" in stale.detail


async def test_a_host_that_returns_is_ready_since_it_returned(site: Site) -> None:
    made = await site.endpoint("a", "h1")
    await site.report("h1", made.value.network, made.version)
    await site.go("h1")
    site.time.pass_by(60.0)
    await site.come("h1")
    back = site.time.now()
    site.time.pass_by(60.0)

    assert ready(site.host("h1")) == StatusCondition("ready", "true", "alive", since=back)
    assert ready(site.of(made)).since == back
    assert ready(site.network()).since == back


async def test_hosts_that_are_down_are_not_waited_for_and_named(site: Site) -> None:
    await site.endpoint("a", "h1")
    made = await site.endpoint("b", "h2")
    await site.go("h2")
    await site.report("h1", made.value.network, made.version)

    assert words(site.network()) == [("ready", "true", "active"), ("converged", "true", "applied")]
    assert ready(site.network()).detail == "h2 is down"
    assert converged(site.network()).detail == "not waiting for h2, which is down"
    assert site.cluster.convergence.of_endpoint(made).away == ("h2",)


async def test_what_prevents_a_host_is_no_ready_and_says_since_when(site: Site) -> None:
    made = await site.endpoint("a", "h1")
    other = await site.endpoint("b", "h2")
    problem = Condition("foreign-object", "kvbr is not ours", 77.0)
    await site.report("h1", made.value.network, other.version, problem)
    await site.report("h2", made.value.network, other.version)

    assert words(site.network())[0] == ("ready", "false", "foreign-object")
    assert (ready(site.network()).since, "on host h1" in ready(site.network()).detail) == (77.0, True)
    assert words(site.of(made)) == [
        ("ready", "false", "foreign-object"),
        ("converged", "true", "applied"),
        ("problem", "true", "foreign-object"),
    ]
    assert words(site.of(other)) == [("ready", "true", "attached"), ("converged", "true", "applied")]
    assert ready(site.host("h1")).status == "true"
    assert site.host("h1")[2].detail == "network my-net: kvbr is not ours"


async def test_who_is_no_longer_prevented_is_ready_since_then(site: Site) -> None:
    made = await site.endpoint("a", "h1")
    gone = Condition("underlay-missing", "the address is gone", 77.0)
    await site.report("h1", made.value.network, made.version, gone)
    site.time.pass_by(60.0)
    await site.report("h1", made.value.network, made.version)
    cleared = site.time.now()
    site.time.pass_by(60.0)

    for status in (site.network(), site.of(made), site.host("h1")):
        assert (ready(status).status, ready(status).since) == ("true", cleared)


async def test_a_host_says_once_what_concerns_all_of_it(site: Site) -> None:
    second = await site.cluster.networks.create(network("second"), ME)
    first = site.cluster.networks.get("my-net").value.id
    fall = Condition("underlay-missing", "the address is gone", 9.0)
    told = {first: NetworkObserved(1, (fall,)), second.value.id: NetworkObserved(1, (fall,))}
    report = Observed("h1", 10.0, told)
    await site.store.commit([], [Put(keys.observed("h1"), codec.encode(report))])
    await eventually(lambda: site.cluster.hosts.get("h1").observed is not None)

    assert ready(site.host("h1")) == StatusCondition(
        "ready", "false", "underlay-missing", "the address is gone", since=9.0
    )
    assert words(site.host("h1"))[2:] == [("problem", "true", "underlay-missing")]


async def test_a_network_that_goes_or_has_no_name_yet_is_not_ready(site: Site) -> None:
    found = site.cluster.networks.get("my-net")
    await site.cluster.networks._removal._marked(found, ME)
    marked = site.time.now()
    await eventually(lambda: site.cluster.networks.get("my-net").value.state != "active")
    site.time.pass_by(5.0)

    assert ready(site.network()) == StatusCondition("ready", "false", "deleting", "it is being deleted", since=marked)


async def test_while_the_store_is_not_believed_nothing_is_known(site: Site) -> None:
    made = await site.endpoint("a", "h1")
    await site.store.commit([], [Delete(keys.CLUSTER)])
    await eventually(lambda: site.cluster.standing.trouble is not None)
    since = site.time.now()
    site.time.pass_by(9.0)

    for status in (site.network(), site.of(made), site.host("h1")):
        assert words(status) == [
            ("ready", "unknown", "store-not-believed"),
            ("converged", "unknown", "store-not-believed"),
        ]
        assert {c.since for c in status} == {since}


async def test_a_controller_that_starts_anew_does_not_say_since_now(site: Site) -> None:
    await site.come("h1")
    site.time.pass_by(10.0)
    made = await site.endpoint("a", "h1")
    created = site.time.now()
    site.time.pass_by(1.0)
    await site.report("h1", made.value.network, made.version)
    site.time.pass_by(3600.0)
    await site.endpoint("b", "h2")
    joined = site.time.now()
    site.time.pass_by(600.0)

    async with opened(site.store, site.time, seed=2) as again:
        net, look = again.networks.get("my-net"), again.statuses.look()
        assert converged(look.network(net)) == StatusCondition(
            "converged", "false", "behind", "waiting for h1, h2", since=joined
        )
        assert ready(look.endpoint(made)).since == created
        assert converged(look.endpoint(made)).detail == "waiting for h2"
        assert converged(look.endpoint(made)).since == joined
        h1, h2 = again.convergence.of(net).hosts
        assert (h1.applied, h1.lag_seconds) == (made.version, 600.0)
        assert (h2.applied, h2.lag_seconds) == (0, 600.0)


async def test_the_lag_counts_from_the_oldest_change_that_is_not_applied(site: Site) -> None:
    made = await site.endpoint("a", "h1")
    net = site.cluster.networks.get("my-net")
    await site.report("h1", net.value.id, made.version)
    site.time.pass_by(10.0)
    for i in range(3):
        await site.endpoint(f"b{i}", "h1")
        site.time.pass_by(10.0)

    (h1,) = site.cluster.convergence.of(net).hosts
    assert (h1.lag_seconds, h1.applied, h1.alive) == (30.0, made.version, True)
    assert h1.lag_revisions == h1.wanted - made.version > 0


async def test_a_deleted_network_is_waited_for_until_no_living_host_reports_it(site: Site) -> None:
    made = await site.endpoint("a", "h1")
    net = made.value.network
    await site.report("h1", net, made.version)
    _, revision = await site.cluster.endpoints.delete("my-net", made.value.id, ME)
    assert site.cluster.convergence.told({net: revision}).waiting_for == ("h1",)
    _, gone = await site.cluster.networks.delete("my-net", ME)
    assert await stored_network(site.store, net) is None

    assert site.cluster.convergence.told({net: gone}).waiting_for == ("h1",)
    await site.report("h1", net, -1)
    assert (await site.cluster.convergence.until({net: gone}, 5.0)).converged


@given(st.lists(st.integers(min_value=1, max_value=10_000)), st.integers(min_value=0, max_value=10_000))
def test_the_first_known_step_after_a_revision_is_a_true_one_and_never_missed_when_there_is_one(
    noted: list[int], asked: int
) -> None:
    steps = Steps()
    for revision in noted:
        steps.note(revision)

    found = steps.after(asked)

    assert steps.last == max(noted, default=0)
    assert (found is None) == (asked >= steps.last)
    if found is not None:
        assert asked < found
        assert found in noted


@given(st.lists(st.integers(min_value=1, max_value=10_000)), st.integers(min_value=0, max_value=10_000))
def test_steps_are_bounded_and_forget_what_a_store_that_went_back_took_away(noted: list[int], back: int) -> None:
    steps = Steps()
    for revision in [*noted, *range(20_000, 20_000 + 3 * MOST)]:
        steps.note(revision)
    assert len(steps._revisions) <= MOST
    steps.went_back(back)

    assert steps.last == back
    assert steps.after(back) is None
