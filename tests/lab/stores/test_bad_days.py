"""What happens to a site when its store has a bad day: nothing, to what runs; and everything works again after."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path
from typing import Any

import pytest

from kvnet.errors import KvnetError
from lab.lab import until
from tests.lab.eye import Seen
from tests.lab.stores.site import FAIL_OVER_S, NETWORK, Site, on_its_own, open_site, traffic

pytestmark = [pytest.mark.anyio, pytest.mark.kernel, pytest.mark.slow]

AWAY_S = 20.0  # longer than a worker's session lasts
REFUSED_WITHIN_S = 20.0
SAID_CLEARLY = {"store-unavailable", "host-fenced", "controller-unreachable", "outcome-unknown"}

# The host's own doubt (of an empty store: broken), or why it has no new session when that went with the store.
NOT_BELIEVED = {"store-went-back", "store-broken", "host-fenced"}


@pytest.fixture(params=[on_its_own(kind) for kind in ("etcd3.5", "consul", "zookeeper")])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    """With a network, c1 on h1 and c2 on h2, which reach each other."""
    async with open_site(request.param, tmp_path) as site:
        await site.lab.client.create_network({"name": NETWORK, "driver": "overlay"})
        for workload, host in (("c1", "h1"), ("c2", "h2")):
            await site.lab.add_workload(workload, host)
            await site.lab.attach(NETWORK, workload)
        await site.until_reached("c1", address_of(site, "c2"))
        yield site


def address_of(site: Site, workload: str) -> str:
    return str(site.lab.workloads[workload].endpoints[NETWORK]["address"])


async def test_a_leader_that_only_its_peers_can_reach_is_passed_over(site: Site) -> None:
    async with traffic(site.lab, "c1", address_of(site, "c2")):
        leader = await site.store.leader()
        await site.store.partition(leader, site.clients)
        await site.until_attaching_works()
        await site.store.heal()
        await site.until_attaching_works()
    await site.until_all_ready()
    await site.require_no_findings()


async def test_a_frozen_leader_is_passed_over(site: Site) -> None:
    async with traffic(site.lab, "c1", address_of(site, "c2")):
        leader = await site.store.leader()
        await site.store.members[leader].freeze()
        await site.until_attaching_works(seconds=60.0)
        await site.store.members[leader].thaw()
        await site.until_attaching_works()
    await site.require_no_findings()


async def test_without_its_store_the_site_runs_on_and_refuses_clearly(site: Site) -> None:
    async with traffic(site.lab, "c1", address_of(site, "c2")):
        await site.store.kill_all()
        gone_at = time.monotonic()
        await until_known(site)
        for host in site.lab.hosts:
            await attach_is_refused(site, host)
        await asyncio.sleep(max(0.0, AWAY_S - (time.monotonic() - gone_at)))
        await attach_is_refused(site, "h2")
        await site.store.start()
        await site.until_all_ready()
        await site.until_attaching_works()
    await site.require_no_findings()


async def test_a_wiped_store_is_swept_by_nobody_and_the_backup_brings_it_back(site: Site, tmp_path: Path) -> None:
    backup = str(tmp_path / "backup.json.gz")
    await site.kvnet("backup", backup, "--store", site.lab.store_url)
    async with traffic(site.lab, "c1", address_of(site, "c2")):
        before = await site.settled_kernels()
        await site.store.wipe_all()
        assert "kvnet restore" in await site.until_not_believed("wiped")
        for host in site.lab.hosts:
            await until_not_believed_by(site, host)
        await asyncio.sleep(AWAY_S)  # whatever runs out by then has run out
        require_all_still_there(before, site.kernels())
        await site.until_not_believed("wiped")

        await site.kvnet("restore", backup, "--store", site.lab.store_url)
        await site.until_all_ready()
        await site.until_attaching_works()
        require_all_still_there(before, site.kernels())
        for workload in ("c1", "c2"):
            there = await site.lab.client.get_endpoint(NETWORK, site.lab.workloads[workload].endpoints[NETWORK]["id"])
            assert there["address"] == address_of(site, workload)
    await site.require_no_findings()


async def test_an_older_backup_behind_our_back_is_noticed_and_refused_until_accepted(site: Site) -> None:
    """c9 was acknowledged after the backup was made. Once the store is accepted as it is, c9 is none of its endpoints:
    its host takes its interface away (docs/upkeep.md), before its address can belong to somebody else.
    """
    await site.store.stop_all()
    older = copies(site, "older")
    await site.store.start()
    await site.until_all_ready()
    await site.until_attaching_works()
    await site.lab.add_workload("c9", "h3")
    await site.lab.attach(NETWORK, "c9")
    c9 = address_of(site, "c9")
    await site.until_reached("c1", c9)

    async with traffic(site.lab, "c1", address_of(site, "c2")):
        async with traffic(site.lab, "c1", c9):
            before = await site.settled_kernels()
            await site.store.stop_all()
            for index, folder in enumerate(older):
                shutil.rmtree(site.store.site.data(index))
                shutil.copytree(folder, site.store.site.data(index))
            await site.store.start()
            assert "kvnet store accept" in await site.until_not_believed("went-back")
            for host in site.lab.hosts:
                await until_not_believed_by(site, host)
            await asyncio.sleep(AWAY_S)
            require_all_still_there(before, site.kernels())
            await site.until_not_believed("went-back")
        await site.kvnet("store", "accept", "--yes")
        await site.until_all_ready()
        await site.until_attaching_works()
        await until_nobody_has(site, c9)
    await site.require_no_findings()


def copies(site: Site, name: str) -> list[Path]:
    """The data folders of all members, copied aside."""
    folders = []
    for index in site.store.site.everywhere():
        folders.append(site.lab.directory / f"{name}-{index}")
        shutil.copytree(site.store.site.data(index), folders[-1])
    return folders


def require_all_still_there(before: Mapping[str, Seen], now: Mapping[str, Seen]) -> None:
    """Nothing of ours vanished from any host's kernel, or was made anew. Something may have been added."""
    for host, seen in before.items():
        for what, had, has in zip(seen._fields, seen, now[host], strict=True):
            gone = set(had.items() if isinstance(had, dict) else had) - set(
                has.items() if isinstance(has, dict) else has
            )
            assert not gone, f"{what} of {host}: {sorted(gone)} gone"


def _rows(seen: Mapping[str, int] | set[tuple[str, ...]]) -> set[tuple[Any, ...]]:
    return set(seen.items()) if isinstance(seen, Mapping) else set(seen)


async def until_nobody_has(site: Site, address: str) -> None:
    async def is_silent() -> bool:
        return not (await site.lab.ping("c1", address, timeout_s=0.3)).ok

    await until(is_silent, f"nobody answers at {address}, which the store does not know", seconds=FAIL_OVER_S)


async def until_known(site: Site) -> None:
    """The controller says that its knowledge is old."""

    async def is_known() -> bool:
        try:
            return (await site.lab.client.status())["stale_since"] is not None
        except KvnetError:
            return True

    await until(is_known, "the controller notices that its store is away")


async def until_not_believed_by(site: Site, host: str) -> None:
    """Attaching is refused, at last for that reason: a worker may find the store again later than the controller."""

    async def is_so() -> bool:
        return await attach_is_refused(site, host, SAID_CLEARLY | NOT_BELIEVED) in NOT_BELIEVED

    await until(is_so, f"{host} does not believe the store", seconds=FAIL_OVER_S)


async def attach_is_refused(site: Site, host: str, codes: Collection[str] = SAID_CLEARLY) -> str:
    """Why."""
    began = time.monotonic()
    with pytest.raises(KvnetError) as refusal:
        await site.attach(host)
    assert refusal.value.code in codes, (refusal.value.code, refusal.value)
    assert refusal.value.fix
    assert time.monotonic() - began < REFUSED_WITHIN_S
    return refusal.value.code
