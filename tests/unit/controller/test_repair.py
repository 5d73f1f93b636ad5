"""`kvnet check --repair` among real changes: each repair stands for itself, and nothing new is ever undone."""

from __future__ import annotations

import asyncio
import random
from ipaddress import ip_address

import pytest

from backends.memory import MemoryStore
from backends.store import Delete, Put
from controller.cluster import Cluster
from kvnet import codec, keys
from kvnet.claims import AddressClaim, ClaimKind
from kvnet.errors import KvnetError
from tests.unit.controller.kit import ME, FakeTime, endpoint, network

pytestmark = pytest.mark.anyio


async def plant(store: MemoryStore, net: str, rng: random.Random) -> None:
    """One damage of a random kind: an address claimed for nobody, a place for nobody, a name for nobody, an orphan."""
    who = f"x{rng.randrange(10**6)}"
    claim = codec.encode(AddressClaim(ClaimKind.ENDPOINT, who, 0.0, None, "h1"))
    kind = rng.randrange(5)
    if kind == 0:
        address = ip_address(f"10.1.0.{rng.randrange(2, 250)}")
        if await store.get(keys.address(net, address)) is None:
            await store.commit([], [Put(keys.address(net, address), claim)])
    elif kind == 1:
        await store.commit([], [Put(keys.local("h1", who), net.encode())])
    elif kind == 2:
        await store.commit([], [Put(keys.name(f"ghost{who}"), b"0" * 12)])
    elif kind == 3:
        await store.commit([], [Put(keys.address("f" * 12, ip_address("10.9.0.2")), claim)])
    else:
        local = [e.key for e in (await store.list(keys.LOCAL)).entries]
        if local:
            await store.commit([], [Delete(rng.choice(local))])


@pytest.mark.parametrize("seed", range(6))
async def test_repairs_that_race_with_real_changes_harm_nothing(
    cluster: Cluster, store: MemoryStore, time: FakeTime, seed: int
) -> None:
    rng = random.Random(seed)
    net = (await cluster.networks.create(network("my-net", "10.1.0.0/24"), ME)).value.id
    alive: set[str] = set()
    refusals: list[KvnetError] = []
    done = asyncio.Event()

    async def user() -> None:
        for i in range(60):
            try:
                if alive and rng.random() < 0.4:
                    name = rng.choice(sorted(alive))
                    alive.discard(name)
                    await cluster.endpoints.delete(net, name, ME)
                else:
                    await cluster.endpoints.create(net, endpoint(f"e{i}", id=f"e{i}"), ME)
                    alive.add(f"e{i}")
            except KvnetError as error:
                refusals.append(error)
            if rng.random() < 0.5:
                await plant(store, net, rng)
            await asyncio.sleep(0)
        done.set()

    async def repairer() -> None:
        while not done.is_set():
            report = await cluster.ipam.repair(ME)
            for finding in report.repaired:
                assert finding.is_repairable
            await asyncio.sleep(0)

    await asyncio.gather(user(), repairer(), repairer())
    for _ in range(4):
        report = await cluster.ipam.repair(ME)

    there = {e.key.rpartition("/")[2] for e in (await store.list(keys.endpoints(net))).entries}
    assert alive <= there
    assert {error.status for error in refusals} <= {404, 409, 503}
    assert report.findings == (), report.findings
    assert report.changed == ()


async def test_a_finding_that_changed_meanwhile_is_left_alone_and_told(
    cluster: Cluster, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cluster.networks.create(network("my-net", "10.1.0.0/24"), ME)
    await store.commit([], [Put(keys.name("ghost"), b"0" * 12), Put(keys.name("spook"), b"0" * 12)])
    found = cluster.ipam._consistency.findings
    looked = False

    async def findings() -> object:
        nonlocal looked
        result = await found()
        if not looked:
            looked = True
            await store.commit([], [Put(keys.name("ghost"), b"1" * 12)])
        return result

    monkeypatch.setattr(cluster.ipam._consistency, "findings", findings)

    report = await cluster.ipam.repair(ME)

    assert [f.keys for f in report.repaired] == [(keys.name("spook"),)]
    assert [f.keys for f in report.changed] == [(keys.name("ghost"),)]
    assert [(f.kind, f.keys) for f in report.findings] == [("orphan", (keys.name("ghost"),))]
    assert await store.get(keys.name("ghost")) is not None
