"""A store's members on the lab's fabric, cut off from one another and healed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lab.lab import open_lab
from tests.servers.cluster import Cluster
from tests.servers.family import ServerFailed
from tests.servers.places import Place

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]
NEW_LEADER_SECONDS = 15.0
NAMES = ("s1", "s2", "s3")


async def test_a_leader_that_is_cut_off_is_replaced_and_taken_back(tmp_path: Path) -> None:
    async with open_lab(tmp_path, hosts=0, places=NAMES) as lab:
        places = [Place(str(lab.places[name].underlay), lab.places[name].netns) for name in NAMES]
        async with Cluster("etcd3.5", tmp_path / "store", places=places) as store:
            assert store.endpoints[0].startswith("198.18.")
            old = await store.leader()
            others = [member for member in store.members if member.index != old]

            await store.partition(old, [member.place.address for member in others])

            new = await until_another_leads(store, old)
            await asyncio.gather(*(member.until_ready() for member in others))
            with pytest.raises(ServerFailed, match="not ready"):
                await store.members[old].until_ready(3)

            await store.partition(old)  # from everyone
            await store.heal()

            await store.until_healthy()
            assert await store.leader() in (new, *(member.index for member in others))


async def until_another_leads(store: Cluster, old: int) -> int:
    """The cut off leader believes in itself for a while."""
    async with asyncio.timeout(NEW_LEADER_SECONDS):
        while (new := await store.leader()) == old:  # noqa: ASYNC110 - servers tell nobody
            await asyncio.sleep(0.05)
    return new


async def test_a_member_on_the_machines_loopback_cannot_be_cut_off(tmp_path: Path) -> None:
    store = Cluster("etcd3.5", tmp_path)

    with pytest.raises(ServerFailed, match="no network namespace"):
        await store.partition(0)
