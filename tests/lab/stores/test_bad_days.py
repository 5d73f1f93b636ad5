"""What happens to a site when its store has a bad day: nothing, to what runs; and everything works again after."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kvnet.errors import KvnetError
from lab.lab import until
from tests.lab.stores.site import NETWORK, Site, open_site, traffic

pytestmark = [pytest.mark.anyio, pytest.mark.kernel, pytest.mark.slow]

AWAY_S = 20.0  # longer than a worker's session lasts
REFUSED_WITHIN_S = 20.0
SAID_CLEARLY = {"store-unavailable", "host-fenced", "controller-unreachable", "outcome-unknown"}


@pytest.fixture(params=["etcd3.5", "consul", "zookeeper"])
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


async def until_known(site: Site) -> None:
    """The controller says that its knowledge is old."""

    async def is_known() -> bool:
        try:
            return (await site.lab.client.status())["stale_since"] is not None
        except KvnetError:
            return True

    await until(is_known, "the controller notices that its store is away")


async def attach_is_refused(site: Site, host: str) -> None:
    began = time.monotonic()
    with pytest.raises(KvnetError) as refusal:
        await site.attach(host)
    assert refusal.value.code in SAID_CLEARLY, refusal.value
    assert refusal.value.fix
    assert time.monotonic() - began < REFUSED_WITHIN_S
