"""A pass looks only at what changed since the last one, and the kernel has what a look at everything would want."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import ip_address

import pytest

from backends.store import Put
from kvnet import codec, keys
from kvnet.model import Endpoint, Host
from tests.unit.worker.kit import Running, World, until
from tests.unit.worker.life import NET
from worker.networktables import RECENT

pytestmark = pytest.mark.anyio
C1 = "/run/netns/c1"


async def _with_one_workload(world: World) -> Running:
    await world.register("h2")
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1")
    await asyncio.sleep(5)
    return h1


def _batched(found: list[Endpoint], size: int) -> list[list[Endpoint]]:
    return [found[start : start + size] for start in range(0, len(found), size)]


def _another(number: int) -> Endpoint:
    mac = f"02:07:00:00:{number >> 8:02x}:{number & 255:02x}"
    return Endpoint(f"e-p{number}", NET, "h2", f"p{number}", (ip_address("10.1.8.0") + number,), mac, 0.0)


@pytest.mark.parametrize("count", [1, RECENT - 1, RECENT, RECENT + 50])
async def test_as_many_changes_as_come_between_two_passes_are_all_seen(world: World, count: int) -> None:
    h1 = await _with_one_workload(world)
    for number in range(20):
        await world.create_endpoint(f"early{number}", "h2")
    await until(lambda: len(h1.host.state(NET).vteps) == 20, seconds=2.0)

    more = [_another(number) for number in range(count)]
    for some in _batched(more, 60):
        await world.client().commit([], [Put(keys.endpoint(NET, one.id), codec.encode(one)) for one in some])

    await until(lambda: len(h1.host.state(NET).vteps) == 20 + count, seconds=3.0)
    assert await h1.plan() == []


async def test_those_that_come_go_and_come_again_between_two_passes_end_as_they_are(world: World) -> None:
    h1 = await _with_one_workload(world)
    kept = [await world.create_endpoint(f"kept{number}", "h2") for number in range(10)]
    await until(lambda: len(h1.host.state(NET).vteps) == 10, seconds=2.0)
    entries = [(keys.endpoint(NET, one.id), one) for one in kept]

    for key, one in entries:
        await world.client().commit([], [Put(key, codec.encode(replace(one, mac=f"02:99{one.mac[5:]}")))])
    for key, one in entries[:5]:
        await world.client().commit([], [Put(key, codec.encode(one))])

    def macs() -> set[str]:
        return {neighbour.mac.hex(":") for neighbour in h1.host.state(NET).neighbours}

    wanted = {one.mac for one in kept[:5]} | {f"02:99{one.mac[5:]}" for one in kept[5:]}
    unwanted = {f"02:99{one.mac[5:]}" for one in kept[:5]} | {one.mac for one in kept[5:]}
    await until(lambda: wanted <= macs() and not unwanted & macs(), seconds=2.0)
    assert await h1.plan() == []


async def test_a_host_that_moves_is_followed_by_its_tunnels(world: World) -> None:
    h1 = await _with_one_workload(world)
    await world.create_endpoint("peer", "h2")
    await until(lambda: len(h1.host.state(NET).vteps) == 1, seconds=2.0)
    entry = await world.client().get(keys.host("h2"))
    assert entry is not None

    moved = replace(codec.decode(Host, entry.value), underlay=ip_address("198.18.0.99"))
    await world.client().commit([], [Put(keys.host("h2"), codec.encode(moved))])

    await until(lambda: {v.remote for v in h1.host.state(NET).vteps} == {moved.underlay.packed}, seconds=2.0)
    assert await h1.plan() == []
