"""Whatever call the process dies at, and whatever answer is lost: nothing acknowledged is lost, nothing leaks.

A history of operations runs on a store that fails at one exact call, before or after the call took effect. A fresh
controller then sweeps in virtual time, and the store must be what the acknowledged operations made it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends.memory import MemoryState, MemoryStore
from controller.cluster import Cluster
from controller.drafts import PLACEHOLDER
from controller.requests import HoldRequest, NameRequest, PortRequest, ReservationRequest
from kvnet import codec, keys
from kvnet.claims import AddressClaim, ClaimKind, HeldPorts, SubnetClaim
from kvnet.errors import KvnetError
from tests.unit.controller.kit import ME, FailingStore, FakeTime, Fault, Killed, add_host, endpoint, network, opened

Operation = tuple[str, int]

OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "create-network",
                "attach",
                "attach-many",
                "detach",
                "reserve",
                "delete-network",
                "rm-host",
                "through-docker",
            ]
        ),
        st.integers(0, 1),
    ),
    max_size=10,
)
FAULTS = st.builds(Fault, at=st.integers(1, 40), kill=st.booleans(), before=st.booleans())


@dataclass
class Story:
    """What the caller was told. In `open` is what was asked for and not answered."""

    acknowledged: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    open: set[str] = field(default_factory=set)

    def asked(self, *things: str) -> None:
        self.open |= set(things)
        self.acknowledged -= set(things)
        self.gone -= set(things)

    def made(self, *things: str) -> None:
        self.open -= set(things)
        self.acknowledged |= set(things)

    def removed(self, *things: str) -> None:
        self.open -= set(things)
        self.gone |= set(things)


async def perform(cluster: Cluster, operation: Operation, story: Story) -> None:
    kind, i = operation
    net, one, two = f"net{i}", f"net{i}/e", f"net{i}/f"
    match kind:
        case "create-network":
            story.asked(net)
            driver = ("overlay", "routed")[i]
            await cluster.networks.create(network(net, id=f"{i:012x}", driver=driver), ME)
            story.made(net)
        case "attach":
            story.asked(one)
            await cluster.endpoints.create(
                net, endpoint("e", id=f"e{i}", ports=(PortRequest(80, host_port=8080 + i),)), ME
            )
            story.made(one)
        case "attach-many":
            story.asked(two)
            (outcome,) = await cluster.endpoints.create_many(
                net, [endpoint("f", id=f"f{i}", ports=(PortRequest(80),))], ME
            )
            if not isinstance(outcome, KvnetError):
                story.made(two)
        case "detach":
            story.asked(one)
            await cluster.endpoints.delete(net, f"e{i}", ME)
            story.removed(one)
        case "reserve":
            await cluster.reservations.create(net, ReservationRequest("printer"), ME)
        case "delete-network":
            story.asked(net)
            await cluster.networks.delete(net, ME)
            story.removed(net)
        case "through-docker":
            held = await cluster.holds.create(HoldRequest("h1"), ME)
            made = await cluster.networks.create(network("", holds=(held.id,), naming=True), ME)
            story.asked(f"docker{i}")
            await cluster.naming.name(made.value.id, NameRequest(f"docker{i}"), ME)
            story.made(f"docker{i}")
        case "rm-host":
            story.asked("net0/e", "net0/f", "net1/e", "net1/f")
            await cluster.hosts.delete("h1", ME, force=True)
            story.removed("net0/e", "net0/f", "net1/e", "net1/f")


async def live(store: FailingStore, time: FakeTime, operations: list[Operation], story: Story) -> None:
    """The life of a controller, until its operations are done or it dies."""
    try:
        async with opened(store, time) as cluster:
            await add_host(store.inner, "h1", alive=False)
            for operation in operations:
                try:
                    await perform(cluster, operation, story)
                except KvnetError:
                    continue
    except Killed:
        return
    except BaseExceptionGroup as group:
        if group.split(Killed)[1] is not None:
            raise


async def aftermath(state: MemoryState, time: FakeTime) -> Cluster:
    """A fresh controller takes over and does the upkeep until there is nothing left to do."""
    async with MemoryStore(state) as store, opened(store, time, seed=99, leak_grace_s=30.0) as cluster:
        for _ in range(8):
            time.pass_by(31.0)
            swept = await cluster.upkeep.sweep()
            assert (swept.refused, swept.errors) == ("", ())
            await cluster._state.reached(state.revision, *cluster._state.tables)
        report = await cluster.ipam.check()
        assert report.findings == ()
        return cluster


def require_told_the_truth(cluster: Cluster, story: Story) -> None:
    there = {n.value.name for n in cluster.networks.list()}
    there |= {f"net{int(e.value.network, 16)}/{e.value.name}" for e in cluster.endpoints.list()}
    assert story.acknowledged <= there
    assert not story.gone & there


def require_no_leak(state: MemoryState) -> None:
    claims = {
        key: codec.decode(AddressClaim, entry.value)
        for key, entry in state.entries.items()
        if key.startswith(keys.ADDRESSES)
    }
    assert all(claim.kind is not ClaimKind.TOMBSTONE for claim in claims.values())
    networks = {key.removeprefix(keys.NETWORKS) for key in state.entries if key.startswith(keys.NETWORKS)}
    assert {key.split("/")[1] for key in claims} <= networks
    subnets = {codec.decode(SubnetClaim, e.value) for key, e in state.entries.items() if key.startswith(keys.SUBNETS)}
    assert all(claim.hold is None and claim.network in networks for claim in subnets)
    names = {key.removeprefix(keys.NAMES) for key in state.entries if key.startswith(keys.NAMES)}
    assert not any(name.startswith(PLACEHOLDER) for name in names)
    assert {key.split("/")[1] for key in state.entries if key.startswith(keys.BLOCKS)} <= networks
    ports = [codec.decode(HeldPorts, e.value) for key, e in state.entries.items() if key.startswith(keys.PORTS)]
    holders = [hold.endpoint for bucket in ports for hold in bucket.held]
    assert sorted(holders) == sorted(k.rpartition("/")[2] for k in state.entries if k.startswith(keys.ENDPOINTS))
    local = {key.rpartition("/")[2] for key in state.entries if key.startswith(keys.LOCAL)}
    assert local == {key.rpartition("/")[2] for key in state.entries if key.startswith(keys.ENDPOINTS)}


async def sweep_until_the_end(store: FailingStore, time: FakeTime) -> None:
    """An upkeep that dies in the middle, too."""
    try:
        async with opened(store, time, seed=50, leak_grace_s=30.0) as cluster:
            for _ in range(3):
                time.pass_by(31.0)
                await cluster.upkeep.sweep()
    except Killed:
        return
    except BaseExceptionGroup as group:
        if group.split(Killed)[1] is not None:
            raise


async def run(operations: list[Operation], fault: Fault, second_fault: Fault | None = None) -> None:
    time, state, story = FakeTime(), MemoryState(), Story()
    store = FailingStore(MemoryStore(state), fault)
    await live(store, time, operations, story)
    await store.inner.close()
    if second_fault is not None:
        store = FailingStore(MemoryStore(state), second_fault)
        await sweep_until_the_end(store, time)
        await store.inner.close()
    cluster = await aftermath(state, time)
    require_told_the_truth(cluster, story)
    require_no_leak(state)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(OPERATIONS, FAULTS, st.none() | FAULTS)
def test_nothing_acknowledged_is_lost_and_nothing_leaks(
    operations: list[Operation], fault: Fault, fault_of_the_upkeep: Fault | None
) -> None:
    asyncio.run(run(operations, fault, fault_of_the_upkeep))


WHOLE_LIFE: list[Operation] = [
    ("create-network", 0),
    ("through-docker", 0),
    ("attach", 0),
    ("attach-many", 0),
    ("reserve", 0),
    ("detach", 0),
    ("delete-network", 0),
    ("rm-host", 0),
    ("delete-network", 0),
]


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("kill", [True, False], ids=["killed", "answer-lost"])
def test_every_call_of_a_whole_life_may_be_the_last(kill: bool, before: bool) -> None:
    async def calls_of_a_healthy_life() -> int:
        store = FailingStore(MemoryStore())
        await live(store, FakeTime(), WHOLE_LIFE, Story())
        await store.close()
        return store.calls

    for at in range(1, asyncio.run(calls_of_a_healthy_life()) + 1):
        asyncio.run(run(WHOLE_LIFE, Fault(at, kill, before)))
