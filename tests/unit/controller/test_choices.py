"""What an endpoint on its way keeps from others of its process: while a commit of it is under way, and no longer."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_network

import pytest

from backends.memory import MemoryState, MemoryStore
from backends.store import Check, Conflict, Revision, Unknown, Write
from controller.cluster import Cluster
from controller.requests import EndpointRequest
from kvnet import keys
from kvnet.errors import KvnetError
from kvnet.model import Driver, Network, Subnet
from tests.unit.controller.kit import ME, FakeTime, add_host, add_network, endpoint, eventually, opened

pytestmark = pytest.mark.anyio

FREE = 6  # of a /29
SPIN_S = 20


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Unlucky(MemoryStore):
    """Of endpoints: the next commit loses its race; or its answer, and arrives when its writer has looked for it."""

    loses = False
    is_late = False
    waiting: tuple[Sequence[Check], Sequence[Write]] | None = None

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        if not any(write.key.startswith(keys.ENDPOINTS) for write in writes):
            return await super().commit(checks, writes)
        if self.loses:
            self.loses = False
            raise Conflict([write.key for write in writes if write.key.startswith(keys.ADDRESSES)])
        if self.is_late:
            self.is_late, self.waiting = False, (checks, writes)
            raise Unknown("the answer was lost")
        if self.waiting is not None:
            late, self.waiting = self.waiting, None
            await super().commit(*late)
        return await super().commit(checks, writes)


class Pausing(FakeTime):
    """Its pauses end when they are told to."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = asyncio.Event()
        self.pauses = 0

    async def sleep(self, _seconds: float) -> None:
        self.pauses += 1
        await self.goes_on.wait()


@pytest.fixture
def store() -> Unlucky:
    return Unlucky(MemoryState())


@pytest.fixture
async def time() -> Pausing:
    return Pausing()


@pytest.fixture
async def cluster(store: Unlucky, time: Pausing) -> AsyncIterator[Cluster]:
    await add_host(store, "h1")
    async with opened(store, time) as cluster:
        flat = Network("0123456789ab", "flat", Driver.ROUTED, (Subnet(ip_network("10.9.0.0/24")),), 0.0)
        await add_network(store, replace(flat, block_prefix_length=30))
        plain = Network("0123456789cd", "plain", Driver.BRIDGE, (Subnet(ip_network("10.8.0.0/29")),), 0.0)
        await add_network(store, plain)
        await eventually(lambda: len(cluster.networks.list()) == 2)
        yield cluster
        time.goes_on.set()


@contextmanager
def not_spinning() -> Iterator[None]:
    """A loop that never waits is not ended by any time-out of asyncio's."""

    def end(*_: object) -> None:
        raise AssertionError("the controller spins, and does nothing else")

    former = signal.signal(signal.SIGALRM, end)
    signal.alarm(SPIN_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)


@pytest.mark.parametrize("name", ["flat", "plain"])
async def test_who_lost_a_race_and_pauses_stands_in_nobodys_way(
    cluster: Cluster, store: Unlucky, time: Pausing, name: str
) -> None:
    wanted = "10.9.0.2" if name == "flat" else "10.8.0.2"
    store.loses = True
    first = asyncio.create_task(cluster.endpoints.create(name, endpoint("first"), ME))
    pauses = time.pauses
    await eventually(lambda: not store.loses and time.pauses > pauses)

    with not_spinning():
        second = await cluster.endpoints.create(name, EndpointRequest("h1", "second", address=wanted), ME)
    time.goes_on.set()

    assert str(second.value.address) == wanted
    if name == "plain":
        assert (await first).value.address != second.value.address
    else:
        await asyncio.wait([first])


async def test_an_endpoint_that_came_late_keeps_nothing_else_from_others(
    cluster: Cluster, store: Unlucky, time: Pausing
) -> None:
    """Its second attempt chose another address before the first one arrived."""
    time.goes_on.set()
    store.is_late = True
    late = await cluster.endpoints.create("plain", EndpointRequest("h1", "late", id="c0ffee0000000001"), ME)
    others = await cluster.endpoints.create_many("plain", [endpoint(f"c{i}") for i in range(FREE - 1)], ME)

    assert not [one for one in others if isinstance(one, KvnetError)]
    assert len({one.value.address for one in [late, *others] if not isinstance(one, KvnetError)}) == FREE
