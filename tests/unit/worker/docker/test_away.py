"""The controller is away, or silent: what is refused says so within seconds, and what is torn down is torn down."""

from __future__ import annotations

import asyncio
import time

import pytest

from backends.memory import MemoryStore
from kvnet.errors import ControllerUnreachable, HostFenced, KvnetError, NotFound
from kvnet.wire import EndpointBody
from tests.unit.worker.docker.kit import Cluster, DockerError, Host, until
from worker.attachments import Record
from worker.catalogue import NetworkCatalogue
from worker.ports import Time
from worker.runtimes.docker import patience, plugin, pools

pytestmark = pytest.mark.anyio

SUBNET = "10.90.1.0/24"


@pytest.fixture(params=["cut", "silent"])
def trouble(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With shorter deadlines than in the product: their order is what matters."""
    monkeypatch.setattr(plugin, "ANSWER_S", 0.6)
    monkeypatch.setattr(plugin, "TEARDOWN_S", 0.3)
    monkeypatch.setattr(patience, "PASSING_S", 0.2)
    return str(request.param)


WORDS = r"no answer from the controller|did not answer in time"


async def test_a_network_is_not_made_and_nothing_of_it_is_left(cluster: Cluster, h1: Host, trouble: str) -> None:
    h1.line.state = trouble
    for subnets in (("",), (SUBNET,)):
        with pytest.raises(DockerError, match=WORDS):
            await h1.docker.create(subnets=subnets)
    h1.line.state = "up"

    assert not await cluster.leftovers()
    assert not list(h1.ledger.wants())


async def test_a_network_whose_controller_goes_away_halfway_has_no_name_to_stay_under(
    cluster: Cluster, h1: Host, trouble: str
) -> None:
    async def before() -> None:
        if h1.docker.calls and h1.docker.calls[-1] == "IpamDriver.RequestAddress":
            h1.line.state = trouble

    h1.docker.before = before
    with pytest.raises(DockerError, match=WORDS):
        await h1.docker.create(subnets=(SUBNET,))
    h1.line.state = "up"

    assert await cluster.leftovers() == [SUBNET]  # a hold, which runs out
    assert not list(h1.ledger.wants())
    assert not list(h1.ledger.bindings())


async def test_a_container_does_not_start_and_nothing_of_it_is_left(cluster: Cluster, h1: Host, trouble: str) -> None:
    network = await h1.made("web")
    h1.line.state = trouble
    with pytest.raises(DockerError, match=WORDS):
        await h1.docker.run(network)
    assert h1.failed_starts == 1  # it may be one that is to be started again
    h1.line.state = "up"

    assert not await cluster.endpoints("web")
    assert not h1.workloads.records()


async def test_a_container_stops_all_the_same_and_its_endpoint_is_owed(
    cluster: Cluster, h1: Host, trouble: str
) -> None:
    network = await h1.made("web")
    container = await h1.docker.run(network)
    h1.line.state = trouble
    began = time.monotonic()
    reply = await h1.caller.call("NetworkDriver.DeleteEndpoint", container.ids)
    again = await h1.caller.call("NetworkDriver.DeleteEndpoint", container.ids)

    assert (reply.json, again.json) == ({}, {})
    assert time.monotonic() - began < 2.0
    assert h1.workloads.owed or trouble == "silent"


async def test_a_removal_is_noted_and_done_when_the_controller_is_back(
    cluster: Cluster, h1: Host, trouble: str
) -> None:
    network = await h1.made("web")
    h1.line.state = trouble
    await h1.docker.remove(network)
    noted = h1.ledger.binding(network.id)
    h1.line.state = "up"

    assert noted is not None
    await h1.plugin.network_gone(network.id)
    assert not await cluster.leftovers()
    assert h1.ledger.binding(network.id) is None


async def test_a_network_whose_last_endpoint_is_still_owed_goes_after_it(cluster: Cluster, h1: Host) -> None:
    network = await h1.made("web")
    container = await h1.docker.run(network)
    h1.line.state = "cut"
    await h1.docker.stop(container)
    h1.line.state = "up"
    await h1.docker.remove(network)
    assert h1.ledger.binding(network.id) is not None

    await h1.workloads.settle_debts()
    await h1.plugin.network_gone(network.id)

    assert not await cluster.leftovers()


async def test_what_the_follower_is_told_of_a_removal_is_whether_it_worked(h1: Host) -> None:
    network = await h1.made("web")
    h1.line.state = "cut"

    with pytest.raises(KvnetError, match="no answer"):
        await h1.plugin.network_gone(network.id)

    assert h1.ledger.binding(network.id) is not None


async def test_a_controller_that_is_back_in_a_moment_is_waited_for(cluster: Cluster, h1: Host) -> None:
    """After a reboot Docker starts its containers once, whether store and controller are there or not."""
    network = await h1.made("web")
    h1.line.state = "cut"
    start = asyncio.create_task(h1.docker.run(network))
    await until(lambda: h1.line.asked.count("create_endpoint") >= 3)
    h1.line.state = "up"

    container = await start

    assert (await cluster.endpoints("web"))[0]["address"] == container.address


async def test_what_a_failed_network_had_held_is_not_waited_for(h1: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "ANSWER_S", 0.3)
    monkeypatch.setattr(pools, "RELEASE_S", 0.1)

    async def before() -> None:
        if h1.docker.calls and h1.docker.calls[-1] == "IpamDriver.RequestAddress":
            h1.line.state = "silent"

    h1.docker.before = before
    began = time.monotonic()
    with pytest.raises(DockerError, match="did not answer in time"):
        await h1.docker.create(subnets=(SUBNET,))
    assert time.monotonic() - began < plugin.TEARDOWN_S / 2
    h1.line.state = "up"


async def test_a_network_that_is_only_unheard_of_is_not_said_to_be_unknown(
    h1: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PASSING_S", 0.1)
    monkeypatch.setattr(patience, "NAMING_S", 0.1)
    deaf = NetworkCatalogue(MemoryStore(), time=Time())
    with pytest.raises(ControllerUnreachable, match="does not hear the store"):
        await patience.Patience(deaf, Time()).network("0123456789ab")
    with pytest.raises(NotFound, match="not known on this host"):
        await patience.Patience(h1.catalogue, Time()).network("0123456789ab")


async def test_a_host_that_is_fenced_says_so(h1: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    network = await h1.made("web")
    monkeypatch.setattr(patience, "PASSING_S", 0.1)

    async def claim(network: str, body: EndpointBody, *, runtime: str) -> Record:
        raise HostFenced("this host lost its session", fix="it comes back by itself")

    monkeypatch.setattr(h1.workloads, "claim", claim)
    with pytest.raises(DockerError, match="this host lost its session; it comes back by itself"):
        await h1.docker.run(network)


async def test_a_fault_of_ours_is_one_line_in_docker_and_one_in_the_log(
    h1: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = await h1.made("web")
    container = await h1.docker.run(network)

    async def broken(endpoint: str) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(h1.workloads, "release", broken)
    monkeypatch.setattr(h1.workloads, "hand_over", broken)
    deleted = await h1.caller.call("NetworkDriver.DeleteEndpoint", container.ids)
    await h1.plugin.until_departed()
    with pytest.raises(DockerError, match="kvnet's worker failed: TypeError; see its log"):
        await h1.docker.run(network)

    assert deleted.json == {}
    assert "ZeroDivisionError" in h1.said.getvalue()


async def test_calls_are_counted_and_timed(h1: Host) -> None:
    network = await h1.made("web")
    for _ in range(3):
        await h1.docker.stop(await h1.docker.run(network))
    with pytest.raises(DockerError):
        await h1.docker.create(options={"egres": ""})

    calls = h1.plugin.status()["calls"]

    assert (calls["NetworkDriver.Join"]["count"], calls["NetworkDriver.Join"]["failed"]) == (3, 0)
    assert calls["NetworkDriver.CreateNetwork"]["failed"] == 1
    assert 0 < calls["NetworkDriver.Join"]["p50_ms"] <= calls["NetworkDriver.Join"]["p99_ms"] < 1000
